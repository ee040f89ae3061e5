//! Both programs, run step by step as the kernel would.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use spa_order::{ALL_PASS, HEADER_WORDS, SLOTS, TagTable};

use super::*;

/// What the kernel knows of a packet.
#[derive(Clone, Copy)]
struct About {
    protocol: u32,
    packet_type: u32,
    /// The tag, if there is one.
    tag: Option<u32>,
}

/// Of a frame without a tag.
fn passes(packet: &[u8], protocol: u32, packet_type: u32) -> bool {
    passes_tagged(
        packet,
        About {
            protocol,
            packet_type,
            tag: None,
        },
    )
}

/// Both programs agree on every shape, and where the table is empty nothing passes.
fn passes_tagged(packet: &[u8], about: About) -> bool {
    let table = TagTable::for_credentials(0);
    let memory: Vec<Cell<u32>> = vec![Cell::new(0); table.words()];
    let stranger = passes_known(&memory, packet, about);
    assert!(!stranger);
    for first in memory[HEADER_WORDS..].iter().step_by(SLOTS) {
        first.set(ALL_PASS);
    }
    let known = passes_known(&memory, packet, about);
    assert_eq!(known, passes_classic(packet, about));
    assert_eq!(
        memory[0].get(),
        u32::from(known),
        "one stranger was counted"
    );
    known
}

/// Runs the extended program. Addresses are offsets into the table, which is all it may reach.
fn passes_known(memory: &[Cell<u32>], packet: &[u8], about: About) -> bool {
    const CONTEXT: u64 = 1 << 40;
    let table = TagTable::for_credentials(0);
    let program = known_knocks(51_820, table, std::io::stdin());
    let mut registers = [0_u64; 11];
    registers[1] = CONTEXT;
    let mut at = 0_usize;
    let word = |address: u64, offset: i16| {
        let address = address.checked_add_signed(offset.into()).expect("inside");
        let at = usize::try_from(address).expect("an address of the table");
        assert_eq!(at % 4, 0);
        &memory[at / 4]
    };
    loop {
        let step = program[at];
        let (to, from) = step.registers();
        let (to, from) = (usize::from(to), usize::from(from));
        at += 1;
        let short = |value: u64| u32::try_from(value & 0xFFFF_FFFF).expect("masked");
        let (left, right, k) = (registers[to], registers[from], step.operand.cast_unsigned());
        let behind = u64::from(k)
            + if matches!(step.code, 0x48 | 0x40) {
                right
            } else {
                0
            };
        let load = |len: usize| -> Option<u64> {
            assert_eq!(registers[6], CONTEXT);
            let offset = usize::try_from(behind).expect("small");
            let bytes = packet.get(offset..offset + len)?;
            Some(
                bytes
                    .iter()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte)),
            )
        };
        let jumps = match step.code {
            0x05 => true,
            0x15 => left == u64::from(k),
            0x1D => left == right,
            0x45 => left & u64::from(k) != 0,
            0x55 => left != u64::from(k),
            0xA5 => left < u64::from(k),
            0x95 => return registers[0] != 0,
            _ => false,
        };
        if jumps {
            at = at.checked_add_signed(step.offset.into()).expect("inside");
        }
        let loaded = match step.code {
            0x30 => load(1),
            0x28 | 0x48 => load(2),
            0x20 | 0x40 => load(4),
            _ => Some(registers[0]),
        };
        let Some(loaded) = loaded else { return false };
        registers[0] = loaded;
        match step.code {
            0x18 => {
                assert_eq!(from, 2, "the address of a map's value");
                registers[to] = u64::from(program[at].operand.cast_unsigned());
                at += 1;
            }
            0x61 if right == CONTEXT => {
                registers[to] = match step.offset {
                    4 => about.packet_type.into(),
                    // As on the wire.
                    16 => u16::try_from(about.protocol)
                        .expect("an ethertype")
                        .to_be()
                        .into(),
                    20 => about.tag.is_some().into(),
                    24 => about.tag.unwrap_or(STALE).into(),
                    other => panic!("offset {other} of the context"),
                };
            }
            0x61 => registers[to] = word(right, step.offset).get().into(),
            0xC3 => {
                let word = word(left, step.offset);
                word.set(word.get() + short(right));
            }
            0xDC => registers[to] = u16::try_from(left & 0xFFFF).expect("masked").to_be().into(),
            0x0F => registers[to] = left.wrapping_add(right),
            0x1C => registers[to] = short(left).wrapping_sub(short(right)).into(),
            0x44 => registers[to] = (short(left) | k).into(),
            0x54 => registers[to] = (short(left) & k).into(),
            0x64 => registers[to] = (short(left) << k).into(),
            0xB4 => registers[to] = k.into(),
            0xBC => registers[to] = short(right).into(),
            0xBF => registers[to] = right,
            0x05 | 0x15 | 0x1D | 0x20 | 0x28 | 0x30 | 0x40 | 0x45 | 0x48 | 0x55 | 0xA5 => {}
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// Runs the classic program; a read past the end drops.
fn passes_classic(packet: &[u8], about: About) -> bool {
    let program = knocks(51_820);
    let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
    loop {
        let step = program[at];
        at += 1;
        let load = |offset: u32, len: usize| -> Option<u32> {
            match offset {
                ABOUT_PROTOCOL => return Some(about.protocol),
                ABOUT_PACKET_TYPE => return Some(about.packet_type),
                ABOUT_TAGGED => return Some(about.tag.is_some().into()),
                ABOUT_TAG => return Some(about.tag.unwrap_or(STALE)),
                _ => {}
            }
            let offset = usize::try_from(offset).expect("small");
            let bytes = packet.get(offset..offset + len)?;
            Some(
                bytes
                    .iter()
                    .fold(0, |value, byte| value << 8 | u32::from(*byte)),
            )
        };
        let loaded = match step.code {
            0x30 => load(step.k, 1),
            0x28 => load(step.k, 2),
            0x48 => load(step.k + x, 2),
            0x20 => load(step.k, 4),
            0x40 => load(step.k + x, 4),
            _ => Some(a),
        };
        let Some(loaded) = loaded else { return false };
        a = loaded;
        let skip = match step.code {
            0xB1 => {
                let Some(byte) = load(0, 1) else { return false };
                x = 4 * (byte & 0xF);
                0
            }
            0x1C => {
                a = a.wrapping_sub(x);
                0
            }
            0x54 => {
                a &= step.k;
                0
            }
            0x15 => {
                if a == step.k {
                    step.jt
                } else {
                    step.jf
                }
            }
            0x45 => {
                if a & step.k != 0 {
                    step.jt
                } else {
                    step.jf
                }
            }
            0x35 => {
                if a >= step.k {
                    step.jt
                } else {
                    step.jf
                }
            }
            0x06 => return step.k != 0,
            _ => 0,
        };
        at += usize::from(skip);
    }
}

fn ipv4(payload: usize) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    let total = u16::try_from(28 + payload).expect("small");
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1]);
    udp(&mut packet, payload);
    packet
}

fn ipv6(payload: usize) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(8 + payload).expect("small").to_be_bytes());
    packet.extend([17, 64]);
    packet.extend([0x20; 32]);
    udp(&mut packet, payload);
    packet
}

fn udp(packet: &mut Vec<u8>, payload: usize) {
    packet.extend(40_000_u16.to_be_bytes());
    packet.extend(51_820_u16.to_be_bytes());
    packet.extend(u16::try_from(8 + payload).expect("small").to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(vec![0xAB; payload]);
}

const V4: u32 = 0x0800;
const V6: u32 = 0x86DD;
/// What the kernel may leave behind of a tag it has taken off.
const STALE: u32 = 0x2007;

#[test]
fn a_knock_passes_in_either_family() {
    assert!(passes(&ipv4(512), V4, TO_US));
    assert!(passes(&ipv6(512), V6, TO_US));
}

#[test]
fn a_knock_passes_behind_ip_options() {
    let mut packet = ipv4(512);
    packet[0] = 0x46;
    packet[2..4].copy_from_slice(&(512_u16 + 8 + 24).to_be_bytes());
    packet.splice(20..20, [1, 1, 1, 0]);
    assert!(passes(&packet, V4, TO_US));
}

#[test]
fn any_other_length_is_dropped() {
    for len in [0, 1, 32, 148, 511, 513, 1024] {
        assert!(!passes(&ipv4(len), V4, TO_US), "{len}");
        assert!(!passes(&ipv6(len), V6, TO_US), "{len}");
    }
    let mut lying = ipv4(512);
    lying[24..26].copy_from_slice(&519_u16.to_be_bytes());
    assert!(!passes(&lying, V4, TO_US));
}

#[test]
fn another_port_protocol_or_receiver_is_dropped() {
    for (at, value) in [(23, 0_u8), (9, 6), (6, 0x20), (7, 1), (0, 0x44), (0, 0x65)] {
        let mut packet = ipv4(512);
        packet[at] = value;
        assert!(!passes(&packet, V4, TO_US), "byte {at} = {value}");
    }
    for (at, value) in [(43, 0_u8), (6, 6), (6, 44), (0, 0x45)] {
        let mut packet = ipv6(512);
        packet[at] = value;
        assert!(!passes(&packet, V6, TO_US), "byte {at} = {value}");
    }
    for packet_type in 1..=4 {
        assert!(!passes(&ipv4(512), V4, packet_type));
    }
    assert!(!passes(&ipv4(512), 0x0806, TO_US));
}

#[test]
fn a_frame_of_a_vlan_is_not_of_the_interface_below_it() {
    for (packet, protocol) in [(ipv4(512), V4), (ipv6(512), V6)] {
        let tagged = |tag| {
            let about = About {
                protocol,
                packet_type: TO_US,
                tag,
            };
            passes_tagged(&packet, about)
        };
        for vlan in [1, 7, VLAN, 0xE007] {
            assert!(!tagged(Some(vlan)), "{vlan}");
        }
        // A priority alone, as some providers give it.
        assert!(tagged(Some(0)) && tagged(Some(0xE000)));
        assert!(tagged(None));
    }
}

#[test]
fn what_looks_like_wireguard_is_left_to_wireguard() {
    for kind in 1..=4 {
        for (mut packet, protocol, at) in [(ipv4(512), V4, 28), (ipv6(512), V6, 48)] {
            packet[at..at + 4].copy_from_slice(&[kind, 0, 0, 0]);
            assert!(!passes(&packet, protocol, TO_US));
            packet[at + 3] = 1;
            assert!(passes(&packet, protocol, TO_US));
        }
    }
    for kind in [0, 5] {
        let mut packet = ipv4(512);
        packet[28..32].copy_from_slice(&[kind, 0, 0, 0]);
        assert!(passes(&packet, V4, TO_US));
    }
}

#[test]
fn only_a_tag_of_the_table_passes() {
    let table = TagTable::for_credentials(0);
    let tag = [0xAB; 8];
    let written: Vec<AtomicU32> = (0..table.words()).map(|_| AtomicU32::new(0)).collect();
    let (bucket, _) = table.place(tag);
    // Wherever it stands in its bucket.
    for others in 0..u32::try_from(SLOTS).expect("few") {
        let mut places: Vec<_> = (0..others).map(|other| (bucket, 2 * other + 1)).collect();
        table.write(&written, &places);
        places.push(table.place(tag));
        table.write(&written, &places);
        let memory: Vec<_> = written
            .iter()
            .map(|word| Cell::new(word.load(Ordering::Relaxed)))
            .collect();
        for (mut packet, protocol, at) in [(ipv4(512), V4, 28), (ipv6(512), V6, 48)] {
            let about = About {
                protocol,
                packet_type: TO_US,
                tag: None,
            };
            assert!(passes_known(&memory, &packet, about));
            for byte in at..at + 8 {
                packet[byte] ^= 0x10;
                let in_bucket_bits = byte < at + 3;
                let passes = passes_known(&memory, &packet, about);
                // Of the first half only the bits of the bucket are looked at.
                assert_eq!(passes, in_bucket_bits, "byte {byte}");
                packet[byte] ^= 0x10;
            }
        }
    }
}
