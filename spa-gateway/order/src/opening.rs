//! What can be open: a door for WireGuard's port, a flow for a session.

use core::net::IpAddr;
use core::num::NonZeroU16;

use crate::wire::{DecodeError, Reader, Writer};

/// Bytes of a flow on the wire.
pub(crate) const FLOW_LEN: usize = 58;
/// Bytes of an address on the wire.
const ADDRESS_LEN: usize = 17;
/// Bytes of a door on the wire.
pub(crate) const DOOR_LEN: usize = 19;

/// Whether a flow leads through the gateway or to the gateway itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FlowTarget {
    /// A host behind the gateway (hook `forward`).
    Forward,
    /// The gateway itself (hook `input`): the control channel, or a resource on it.
    Gateway,
}

/// What a flow speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
    /// Echo requests of ICMP (1) or ICMPv6 (58), by the family of the flow; ports are (0, 0).
    Icmp,
}

/// One way through: (tunnel address, destination, protocol, ports).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flow {
    /// The session's address inside the tunnel.
    pub tunnel: IpAddr,
    /// Through the gateway, or to it.
    pub to: FlowTarget,
    /// The first address of the destination; host bits are zero.
    pub destination: IpAddr,
    /// How many bits of `destination` count: 32 or 128 for one host.
    pub prefix: u8,
    /// TCP, UDP or echo.
    pub protocol: Protocol,
    /// First and last port, both included.
    pub ports: (u16, u16),
    /// The address the session knows the destination by, if that is another one: the gateway translates it. Only for one
    /// host, through one port or by echo.
    pub published: Option<IpAddr>,
}

impl Flow {
    pub(crate) fn write(&self, out: &mut Writer<'_>) {
        out.put_address(self.tunnel);
        out.put(&[match self.to {
            FlowTarget::Forward => 1,
            FlowTarget::Gateway => 2,
        }]);
        out.put_address(self.destination);
        out.put(&[self.prefix]);
        out.put(&[match self.protocol {
            Protocol::Tcp => 1,
            Protocol::Udp => 2,
            Protocol::Icmp => 3,
        }]);
        out.put(&self.ports.0.to_be_bytes());
        out.put(&self.ports.1.to_be_bytes());
        match self.published {
            Some(published) => out.put_address(published),
            None => out.put(&[0; ADDRESS_LEN]),
        }
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            tunnel: from.address()?,
            to: match from.u8()? {
                1 => FlowTarget::Forward,
                2 => FlowTarget::Gateway,
                _ => return Err(DecodeError::Value),
            },
            destination: from.address()?,
            prefix: from.u8()?,
            protocol: match from.u8()? {
                1 => Protocol::Tcp,
                2 => Protocol::Udp,
                3 => Protocol::Icmp,
                _ => return Err(DecodeError::Value),
            },
            ports: (from.u16()?, from.u16()?),
            published: if from.next_is_zero() {
                from.zeros::<ADDRESS_LEN>()?;
                None
            } else {
                Some(from.address()?)
            },
        })
    }
}

/// One way to the WireGuard port: a source address, and its port where that is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Door {
    /// The source address as the gateway sees it.
    pub source: IpAddr,
    /// The source port; `None` lets every port of the address in.
    pub port: Option<NonZeroU16>,
}

impl Door {
    pub(crate) fn write(&self, out: &mut Writer<'_>) {
        out.put_address(self.source);
        out.put(&self.port.map_or(0, NonZeroU16::get).to_be_bytes());
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            source: from.address()?,
            port: NonZeroU16::new(from.u16()?),
        })
    }
}
