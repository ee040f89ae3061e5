//! The socket filter in front of the daemon: SPEC §8 step 0, in classic BPF.
//!
//! Offsets count from the IP header, since the socket is `SOCK_DGRAM`: the same program serves every kind of
//! link. Only what was sent to this machine passes; of IPv4 no fragment, of IPv6 no extension header.

use libc::sock_filter;

/// Bytes of a UDP header and a knock (SPEC §4).
const UDP_LEN: u32 = 8 + 512;
/// What the kernel copies at most; the knock is shorter.
const WHOLE: u32 = 0x4_0000;
/// Offsets from here on name what the kernel knows of the packet (`SKF_AD_OFF`).
const ABOUT: u32 = 0xFFFF_F000;
const ABOUT_PROTOCOL: u32 = ABOUT;
const ABOUT_PACKET_TYPE: u32 = ABOUT + 4;
/// `PACKET_HOST`: sent to us, by nobody of ours.
const TO_US: u32 = 0;

/// One step; every test that fails ends in "drop".
#[derive(Clone, Copy)]
enum Step {
    /// A := the byte at the offset.
    Byte(u32),
    /// A := the 16 bits at the offset.
    Half(u32),
    /// A := the 16 bits at the offset behind the IPv4 header.
    HalfBehind(u32),
    /// A := the 32 bits at the offset.
    Word(u32),
    /// A := the 32 bits at the offset behind the IPv4 header.
    WordBehind(u32),
    /// X := the length of the IPv4 header.
    HeaderLength,
    /// A := A - X.
    MinusHeaderLength,
    /// A := A & mask.
    And(u32),
    /// Goes on if A is this.
    Is(u32),
    /// Goes on if A is not this.
    IsNot(u32),
    /// Goes on if A has none of these bits.
    HasNone(u32),
    /// Goes on if A is at least this.
    AtLeast(u32),
    /// Skips the next `count` steps unless A is this.
    Unless(u32, u8),
    /// The packet passes.
    Pass,
}

/// The program for knocks to `port`.
pub fn knocks(port: u16) -> Vec<sock_filter> {
    let port = u32::from(port);
    let ipv4 = [
        Step::Byte(0),
        Step::And(0xF0),
        Step::Is(0x40),
        Step::Byte(0),
        Step::And(0x0F),
        Step::AtLeast(5),
        Step::Byte(9),
        Step::Is(17),
        // More fragments, or an offset.
        Step::Half(6),
        Step::HasNone(0x3FFF),
        Step::HeaderLength,
        Step::Half(2),
        Step::MinusHeaderLength,
        Step::Is(UDP_LEN),
        Step::HalfBehind(2),
        Step::Is(port),
        Step::HalfBehind(4),
        Step::Is(UDP_LEN),
        Step::WordBehind(8),
    ];
    let ipv6 = [
        Step::Byte(0),
        Step::And(0xF0),
        Step::Is(0x60),
        Step::Byte(6),
        Step::Is(17),
        Step::Half(4),
        Step::Is(UDP_LEN),
        Step::Half(42),
        Step::Is(port),
        Step::Half(44),
        Step::Is(UDP_LEN),
        Step::Word(48),
    ];
    // Message types of WireGuard, each followed by three zeros.
    let no_wireguard = [
        Step::IsNot(0x0100_0000),
        Step::IsNot(0x0200_0000),
        Step::IsNot(0x0300_0000),
        Step::IsNot(0x0400_0000),
        Step::Pass,
    ];
    let behind = u8::try_from(ipv4.len() + no_wireguard.len()).expect("a short program");
    let mut steps = vec![
        Step::Half(ABOUT_PACKET_TYPE),
        Step::Is(TO_US),
        Step::Half(ABOUT_PROTOCOL),
        Step::Unless(0x0800, behind),
    ];
    steps.extend(ipv4);
    steps.extend(no_wireguard);
    steps.push(Step::Half(ABOUT_PROTOCOL));
    steps.push(Step::Is(0x86DD));
    steps.extend(ipv6);
    steps.extend(no_wireguard);
    assemble(&steps)
}

/// The program that lets nothing pass, for sockets that only send.
pub fn nothing() -> Vec<sock_filter> {
    assemble(&[])
}

/// Turns steps into instructions; the last one, behind all, drops.
fn assemble(steps: &[Step]) -> Vec<sock_filter> {
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut program: Vec<_> = steps
        .iter()
        .enumerate()
        .map(|(at, step)| {
            let drop = u8::try_from(steps.len() - at - 1).expect("a short program");
            // linux/bpf_common.h: class | size or operation | mode or source.
            match *step {
                Step::Byte(k) => instruction(0x30, 0, 0, k),
                Step::Half(k) => instruction(0x28, 0, 0, k),
                Step::HalfBehind(k) => instruction(0x48, 0, 0, k),
                Step::Word(k) => instruction(0x20, 0, 0, k),
                Step::WordBehind(k) => instruction(0x40, 0, 0, k),
                Step::HeaderLength => instruction(0xB1, 0, 0, 0),
                Step::MinusHeaderLength => instruction(0x1C, 0, 0, 0),
                Step::And(k) => instruction(0x54, 0, 0, k),
                Step::Is(k) => instruction(0x15, 0, drop, k),
                Step::IsNot(k) => instruction(0x15, drop, 0, k),
                Step::HasNone(k) => instruction(0x45, drop, 0, k),
                Step::AtLeast(k) => instruction(0x35, 0, drop, k),
                Step::Unless(k, count) => instruction(0x15, 0, count, k),
                Step::Pass => instruction(0x06, 0, 0, WHOLE),
            }
        })
        .collect();
    program.push(instruction(0x06, 0, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would; a read past the end drops.
    fn passes(packet: &[u8], protocol: u32, packet_type: u32) -> bool {
        let program = knocks(51_820);
        let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
        loop {
            let step = program[at];
            at += 1;
            let load = |offset: u32, len: usize| -> Option<u32> {
                match offset {
                    ABOUT_PROTOCOL => return Some(protocol),
                    ABOUT_PACKET_TYPE => return Some(packet_type),
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
}
