//! The network interface itself: is the name free, make and remove it, its addresses, MTU and state.
//!
//! Invariant: an interface that does not carry our mark is never changed or removed.

use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use crate::WireguardError;
use crate::netlink::{Carried, Netlink};

/// The interface alias that marks an interface as ours (`ip link show` prints it).
pub const OUR_MARK: &str = "spa: managed by spa-gateway or spa";
/// How long the `spa-tunnel` of an owner that is gone may take to end, and how often to look.
const ENDING: Duration = Duration::from_secs(1);
const ENDING_POLL: Duration = Duration::from_millis(10);
/// Longest interface name in bytes (`IFNAMSIZ` less the final zero).
const NAME_LEN: usize = 15;

/// The routing socket: links, addresses and routes.
#[derive(Debug)]
pub struct Links {
    pub(crate) route: Netlink,
}

/// What already bears the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// Nothing does.
    Nothing,
    /// A kernel WireGuard interface of ours.
    Wireguard {
        /// Its index.
        index: u32,
    },
}

/// What an interface is, as far as it matters here.
#[derive(Debug)]
pub struct Link {
    /// Its index.
    pub index: u32,
    kind: Option<InfoKind>,
    ours: bool,
}

impl Carried for RouteNetlinkMessage {}

impl Links {
    /// Opens the socket.
    pub fn open(name: &str) -> Result<Self, WireguardError> {
        Ok(Self {
            route: Netlink::open(NETLINK_ROUTE)
                .map_err(failed("opening a netlink socket", name))?,
        })
    }

    /// Looks whether the name is free or an interface of ours can be taken over.
    ///
    /// # Errors
    /// [`WireguardError::Occupied`] where it is somebody else's.
    pub fn look_for_ours(&mut self, name: &str) -> Result<Adoption, WireguardError> {
        let deadline = Instant::now() + ENDING;
        let link = loop {
            match self.find(name)? {
                None => return Ok(Adoption::Nothing),
                // A TUN device of ours lives exactly as long as the spa-tunnel that holds it, and that ends with
                // its owner: after a restart it may be about to.
                Some(link)
                    if link.ours
                        && link.kind == Some(InfoKind::Tun)
                        && Instant::now() < deadline =>
                {
                    thread::sleep(ENDING_POLL);
                }
                Some(link) => break link,
            }
        };
        match (link.kind, link.ours) {
            (Some(InfoKind::Wireguard), true) => Ok(Adoption::Wireguard { index: link.index }),
            (Some(InfoKind::Wireguard), false) => {
                Err(occupied(name, "a WireGuard interface somebody else made"))
            }
            (Some(InfoKind::Tun), true) => {
                Err(occupied(name, "held by a spa-tunnel that still runs"))
            }
            (Some(kind), _) => Err(occupied(name, &format!("of kind {kind}"))),
            (None, _) => Err(occupied(name, "no WireGuard interface")),
        }
    }

    /// Finds an interface by name.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>, WireguardError> {
        let mut question = LinkMessage::default();
        question
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let answers = match self
            .route
            .request(RouteNetlinkMessage::GetLink(question), 0)
        {
            Ok(answers) => answers,
            Err(error) if is(&error, Errno::NODEV) => return Ok(None),
            Err(error) => return Err(failed("looking for the interface", name)(error)),
        };
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(Link::of(&link)),
            _ => None,
        }))
    }

    /// Makes a kernel WireGuard interface with our mark; `None` where the kernel has no WireGuard.
    pub fn add_wireguard(&mut self, name: &str) -> Result<Option<u32>, WireguardError> {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]),
        ];
        match self.route.request(
            RouteNetlinkMessage::NewLink(link),
            NLM_F_CREATE | NLM_F_EXCL,
        ) {
            Ok(_) => self.mark_ours(name).map(Some),
            Err(error) if is(&error, Errno::OPNOTSUPP) || is(&error, Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("making a WireGuard interface", name)(error)),
        }
    }

    /// Puts our mark on an interface just made and keeps the kernel from giving it a link-local address, which
    /// would have it speak unasked. Returns its index.
    pub fn mark_ours(&mut self, name: &str) -> Result<u32, WireguardError> {
        let index = self
            .find(name)?
            .ok_or_else(|| failed("finding the new interface", name)(Errno::NODEV.into()))?
            .index;
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::IfAlias(OUR_MARK.to_owned())];
        self.set(link)
            .map_err(failed("marking the interface", name))?;
        let mut link = LinkMessage::default();
        link.header.index = index;
        let quiet = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
        link.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
            quiet,
        )])];
        // A system without IPv6 refuses, and has nothing to be quieted.
        let _ = self.set(link);
        Ok(index)
    }

    /// Sets the MTU and brings the interface up.
    pub fn bring_up(
        &mut self,
        name: &str,
        index: u32,
        mtu: u32,
        port: u16,
    ) -> Result<(), WireguardError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes = vec![LinkAttribute::Mtu(mtu)];
        self.set(link)
            .map_err(|error| match is(&error, Errno::ADDRINUSE) {
                // A WireGuard interface binds its port when it comes up.
                true => WireguardError::PortInUse { port },
                false => failed("bringing the interface up", name)(error),
            })
    }

    /// Gives the interface exactly these addresses; link-local ones are left alone.
    pub fn set_addresses(
        &mut self,
        name: &str,
        index: u32,
        wanted: &[(IpAddr, u8)],
    ) -> Result<(), WireguardError> {
        for (old, prefix) in self.addresses(name, index)? {
            if !wanted.contains(&(old, prefix)) {
                self.route
                    .request(
                        RouteNetlinkMessage::DelAddress(address_message(index, old, prefix)),
                        0,
                    )
                    .map_err(failed("removing an address", name))?;
            }
        }
        for &(address, prefix) in wanted {
            let message = RouteNetlinkMessage::NewAddress(address_message(index, address, prefix));
            self.route
                .request(message, NLM_F_CREATE | NLM_F_REPLACE)
                .map_err(failed("adding an address", name))?;
        }
        Ok(())
    }

    /// Removes the interface; one that is gone is removed already.
    pub fn delete(&mut self, name: &str, index: u32) -> Result<(), WireguardError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        match self.route.request(RouteNetlinkMessage::DelLink(link), 0) {
            Err(error) if !is(&error, Errno::NODEV) => {
                Err(failed("removing the interface", name)(error))
            }
            _ => Ok(()),
        }
    }

    fn set(&mut self, link: LinkMessage) -> io::Result<()> {
        self.route
            .request(RouteNetlinkMessage::SetLink(link), 0)
            .map(drop)
    }

    fn addresses(&mut self, name: &str, index: u32) -> Result<Vec<(IpAddr, u8)>, WireguardError> {
        let answers = self
            .route
            .dump(|| RouteNetlinkMessage::GetAddress(AddressMessage::default()))
            .map_err(failed("reading addresses", name))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(address) if address.header.index == index => {
                    own_address(&address)
                }
                _ => None,
            })
            .collect())
    }
}

impl Link {
    fn of(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            kind: None,
            ours: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfAlias(alias) => link.ours = alias == OUR_MARK,
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.clone()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

/// Checks that an interface may bear the name (`dev_valid_name` in the kernel).
pub fn check_name(name: &str) -> Result<(), WireguardError> {
    let good = (1..=NAME_LEN).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'%');
    if good {
        Ok(())
    } else {
        Err(WireguardError::Name {
            name: name.to_owned(),
        })
    }
}

/// Checks that a prefix is not longer than its address.
pub fn check_prefix((address, prefix): (IpAddr, u8)) -> Result<(), WireguardError> {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if prefix <= longest {
        Ok(())
    } else {
        Err(WireguardError::Prefix { address, prefix })
    }
}

/// Says what the kernel refused, with a word of its own for a missing capability.
pub fn failed<'a>(doing: &'static str, name: &'a str) -> impl Fn(io::Error) -> WireguardError + 'a {
    move |source| match is(&source, Errno::PERM) {
        true => WireguardError::NotPermitted {
            doing,
            name: name.to_owned(),
        },
        false => WireguardError::Kernel {
            doing,
            name: name.to_owned(),
            source,
        },
    }
}

/// Tells one error number from all others.
pub fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn occupied(name: &str, what: &str) -> WireguardError {
    WireguardError::Occupied {
        name: name.to_owned(),
        what: what.to_owned(),
    }
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.header.scope = AddressScope::Universe;
    message.header.family = family(address);
    if address.is_ipv6() {
        // Nobody else can have it inside our own tunnel, and an address on probation cannot be bound.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ];
    message
}

/// The address of the interface itself in a dump: `Local` where there is one (IPv4), else `Address`.
fn own_address(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let mut own = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => own = own.or(Some(*address)),
            _ => {}
        }
    }
    own.filter(|address| !matches!(address, IpAddr::V6(six) if six.is_unicast_link_local()))
        .map(|address| (address, message.header.prefix_len))
}

/// The address family of an address.
pub fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_the_kernel_would_refuse_is_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a:b",
            "spa%d",
            "sixteen-bytes-xx",
            "größe",
        ] {
            assert!(
                matches!(check_name(bad), Err(WireguardError::Name { .. })),
                "{bad}"
            );
        }
        assert!(check_name("fifteen-bytes-x").is_ok());
    }

    #[test]
    fn a_prefix_longer_than_its_address_is_refused() {
        assert!(check_prefix(([10, 0, 0, 0].into(), 32)).is_ok());
        assert!(check_prefix(([10, 0, 0, 0].into(), 33)).is_err());
        assert!(check_prefix((std::net::Ipv6Addr::LOCALHOST.into(), 128)).is_ok());
        assert!(check_prefix((std::net::Ipv6Addr::LOCALHOST.into(), 129)).is_err());
    }
}
