//! A scanner: probes every TCP and UDP port of an address and reports whatever comes back.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;

use crate::net::Namespace;
use crate::packet::{ICMP, ICMP6, Packet, TCP, UDP};
use crate::wait::wait_until;
use crate::wire::{Direction, Sender, Wire};

/// Probes that are under way at once: more would overrun a queue between two namespaces (net.core.netdev_max_backlog is 1000).
const BURST: usize = 400;
/// Where the probes come from.
const SOURCE_PORT: u16 = 40_000;
/// How long an answer may take after the last probe has arrived. A kernel answers within microseconds, a program within milliseconds.
const PATIENCE: Duration = Duration::from_millis(300);

/// Where a scan stands, and how to tell that its probes arrived.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    /// Where the scanner stands.
    pub from: &'a Namespace,
    /// Its interface.
    pub interface: &'a str,
    /// Its address.
    pub address: IpAddr,
    /// The machine that is scanned, and the interface the probes arrive at.
    pub target: (&'a Namespace, &'a str),
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Probes sent, all of which arrived.
    pub probes: usize,
    /// Every packet that came back, by "protocol and port" of what was probed, or by what it is.
    pub answers: BTreeMap<String, usize>,
}

impl Findings {
    /// Whether nothing at all came back.
    pub fn is_silent(&self) -> bool {
        self.answers.is_empty()
    }
}

impl Scanner<'_> {
    /// Probes all 65,536 TCP ports (SYN) and all 65,536 UDP ports (a few bytes) of `target`.
    ///
    /// # Errors
    /// When a probe cannot be sent or does not arrive: a scan of nothing proves nothing.
    pub fn every_port(&self, target: IpAddr) -> anyhow::Result<Findings> {
        let source = SocketAddr::new(self.address, SOURCE_PORT);
        let ports = 0..=u16::MAX;
        let probes =
            ports
                .clone()
                .map(|port| Packet::syn(source, SocketAddr::new(target, port)))
                .chain(ports.map(|port| {
                    Packet::udp(source, SocketAddr::new(target, port), b"anyone there?")
                }));
        self.probe(probes)
    }

    /// What a curious person tries after the ports: echo, timestamps, stray segments, and every IP protocol number.
    ///
    /// # Errors
    /// As [`Self::every_port`].
    pub fn oddities(&self, target: IpAddr, port: u16) -> anyhow::Result<Findings> {
        let source = SocketAddr::new(self.address, SOURCE_PORT);
        let to = SocketAddr::new(target, port);
        let mut probes = Vec::new();
        // FIN, SYN|ACK, ACK, RST, none, all: each closed port of an open machine answers some of them.
        for flags in [0x01, 0x12, 0x10, 0x04, 0x00, 0x29] {
            probes.push(Packet::tcp(source, to, flags));
        }
        let (echo, numbers) = match target {
            IpAddr::V4(_) => (vec![(ICMP, 8), (ICMP, 13), (ICMP, 15), (ICMP, 17)], 2..=252),
            // 128 echo request, 139 node information. Extension headers are not protocols, so the numbers start above them.
            IpAddr::V6(_) => (vec![(ICMP6, 128), (ICMP6, 139)], 61..=132),
        };
        for (protocol, kind) in echo {
            let message = [kind, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
            probes.push(Packet::raw(self.address, target, protocol, &message));
        }
        for protocol in numbers.filter(|number| ![TCP, UDP, ICMP6].contains(number)) {
            probes.push(Packet::raw(self.address, target, protocol, &[0; 8]));
        }
        self.probe(probes.into_iter())
    }

    /// Sends probes and gathers what comes back.
    ///
    /// # Errors
    /// As [`Self::every_port`].
    pub fn probe(&self, probes: impl Iterator<Item = Packet> + Send) -> anyhow::Result<Findings> {
        let answers = Wire::tap(self.from, self.interface, Direction::Incoming)?;
        let (target, interface) = self.target;
        let arrived = |limit: u64| {
            wait_until("every probe arrives", Duration::from_secs(5), || {
                (target.received(interface).ok()? >= limit).then_some(())
            })
        };
        let mut sent = 0;
        let before = target.received(interface)?;
        let mut probes = probes.peekable();
        while probes.peek().is_some() {
            let burst = self.from.run(|| {
                let sender = Sender::open()?;
                let mut count = 0;
                for probe in probes.by_ref().take(BURST) {
                    sender.send(&probe)?;
                    count += 1;
                }
                anyhow::Ok(count)
            })??;
            sent += burst;
            arrived(before + sent as u64).with_context(|| format!("after {sent} probes"))?;
        }
        // Silence needs a while to be silent for.
        answers.watch_for(PATIENCE, |packet| !packet.is_link_housekeeping());
        Ok(Findings {
            probes: sent,
            answers: summary(answers.finish().into_iter().map(|seen| seen.packet)),
        })
    }
}

fn summary(packets: impl Iterator<Item = Packet>) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for packet in packets.filter(|packet| !packet.is_link_housekeeping()) {
        let what = match packet.protocol {
            TCP => format!("tcp {}", packet.source.port()),
            UDP => format!("udp {}", packet.source.port()),
            ICMP | ICMP6 => format!(
                "icmp type {} code {}",
                packet.payload.first().copied().unwrap_or_default(),
                packet.payload.get(1).copied().unwrap_or_default()
            ),
            other => format!("protocol {other}"),
        };
        *answers.entry(what).or_default() += 1;
    }
    answers
}
