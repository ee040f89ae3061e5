//! What gets past the gateway's own table: a second table, later in the same hooks, that counts marked packets.
//!
//! Silence alone does not tell a packet that was dropped at the door from one that WireGuard received and ignored.

use anyhow::Context;

use crate::net::Namespace;
use crate::packet::Packet;

/// The payload length of a marked packet, one that neither WireGuard nor a knock uses.
pub const MARK: usize = 333;

/// The counting table of one namespace.
#[derive(Clone, Debug)]
pub struct Sensor {
    space: Namespace,
}

impl Sensor {
    /// Places the table.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn place(space: &Namespace) -> anyhow::Result<Self> {
        space.nft(&format!(
            "table inet sensor {{
               counter input {{ }}
               counter forward {{ }}
               chain input {{
                 type filter hook input priority 50
                 udp length {length} counter name input
               }}
               chain forward {{
                 type filter hook forward priority 50
                 udp length {length} counter name forward
               }}
             }}",
            length = MARK + 8
        ))?;
        Ok(Self {
            space: space.clone(),
        })
    }

    /// Marked packets that reached programs of this machine.
    ///
    /// # Errors
    /// When the table is gone.
    pub fn received(&self) -> anyhow::Result<u64> {
        self.read("input")
    }

    /// Marked packets that this machine passed on.
    ///
    /// # Errors
    /// When the table is gone.
    pub fn forwarded(&self) -> anyhow::Result<u64> {
        self.read("forward")
    }

    fn read(&self, counter: &str) -> anyhow::Result<u64> {
        let text = self
            .space
            .output("nft", &["-j", "list", "counter", "inet", "sensor", counter])?;
        let listing: serde_json::Value = serde_json::from_str(&text)?;
        listing["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|item| item["counter"]["packets"].as_u64())
            .with_context(|| format!("no counter in {text}"))
    }
}

/// A packet the sensor counts.
pub fn marked(source: std::net::SocketAddr, destination: std::net::SocketAddr) -> Packet {
    Packet::udp(source, destination, &[0x5a; MARK])
}
