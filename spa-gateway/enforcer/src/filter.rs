//! The socket filter in front of the daemon: SPEC §8 step 0, as steps that become a program of the kernel.
//!
//! Offsets count from the IP header, since the socket is `SOCK_DGRAM`: the same program serves every kind of
//! link. Only what was sent to this machine passes; of IPv4 no fragment, of IPv6 no extension header. A frame of a
//! VLAN belongs to that VLAN's interface, not to the one below it, which sees it too. The same steps become classic BPF, which every kernel takes, and extended BPF (`known`), which also looks the tag up.

mod known;
#[cfg(test)]
mod tests;

use libc::sock_filter;

pub use known::known_knocks;

/// Bytes of a UDP header and a knock (SPEC §4).
const UDP_LEN: u32 = 8 + 512;
/// What the kernel copies at most; the knock is shorter.
const WHOLE: u32 = 0x4_0000;
/// Offsets from here on name what the kernel knows of the packet (`SKF_AD_OFF`).
const ABOUT: u32 = 0xFFFF_F000;
const ABOUT_PROTOCOL: u32 = ABOUT;
const ABOUT_PACKET_TYPE: u32 = ABOUT + 4;
/// Which VLAN it was tagged for, with its priority, and whether it was (`SKF_AD_VLAN_TAG`, `SKF_AD_VLAN_TAG_PRESENT`).
const ABOUT_TAG: u32 = ABOUT + 44;
const ABOUT_TAGGED: u32 = ABOUT + 48;
/// The bits of a tag that number the VLAN (IEEE 802.1Q); 0 is none, only a priority.
const VLAN: u32 = 0x0FFF;
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
    /// The packet passes, as far as its shape goes; its tag is at the offset.
    Shaped(u32),
    /// The same; the offset is behind the IPv4 header.
    ShapedBehind(u32),
}

/// The program for knocks to `port`, whatever their tag.
pub fn knocks(port: u16) -> Vec<sock_filter> {
    assemble(&shape(port))
}

/// What any knock looks like.
fn shape(port: u16) -> Vec<Step> {
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
    ];
    let behind = u8::try_from(ipv4.len() + no_wireguard.len() + 1).expect("a short program");
    let mut steps = vec![
        Step::Half(ABOUT_PACKET_TYPE),
        Step::Is(TO_US),
        Step::Half(ABOUT_TAGGED),
        Step::Unless(1, 3),
        Step::Half(ABOUT_TAG),
        Step::And(VLAN),
        Step::Is(0),
        Step::Half(ABOUT_PROTOCOL),
        Step::Unless(0x0800, behind),
    ];
    steps.extend(ipv4);
    steps.extend(no_wireguard);
    steps.push(Step::ShapedBehind(8));
    steps.push(Step::Half(ABOUT_PROTOCOL));
    steps.push(Step::Is(0x86DD));
    steps.extend(ipv6);
    steps.extend(no_wireguard);
    steps.push(Step::Shaped(48));
    steps
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
                Step::Shaped(_) | Step::ShapedBehind(_) => instruction(0x06, 0, 0, WHOLE),
            }
        })
        .collect();
    program.push(instruction(0x06, 0, 0, 0));
    program
}
