//! Deletes what connection tracking remembers of tunnel addresses.
//!
//! The guard rules close a flow whatever is remembered; this makes the end complete, so that nothing of a
//! session is left and the next owner of the address starts with nothing. Invariant: only entries with one
//! of the given addresses at either end of either direction are touched.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use crate::netlink::{DUMP, Link, REQUEST_ACK, Request, attribute};

// include/uapi/linux/netfilter/nfnetlink_conntrack.h
const CT_NEW: u16 = 1 << 8;
const CT_GET: u16 = (1 << 8) | 1;
const CT_DELETE: u16 = (1 << 8) | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_SOURCE: u32 = 1;
/// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
const FAMILY4: u8 = 2;
const FAMILY6: u8 = 10;
/// Bytes of `struct nfgenmsg` in front of the attributes.
const NFGEN_LEN: usize = 4;

/// Connection tracking of this network namespace.
#[derive(Debug)]
pub struct Conntrack {
    link: Link,
}

impl Conntrack {
    /// Finds out whether the kernel lets us ask; `None` where `nf_conntrack_netlink` is missing.
    ///
    /// # Errors
    /// Any other refusal.
    pub fn open() -> io::Result<Option<Self>> {
        let mut link = Link::netfilter()?;
        // The unspecified address has no connections: the answer is empty, or "no such subsystem".
        let nobody = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        match link.ask(of_address(nobody), |_, _| {}) {
            Ok(()) => Ok(Some(Self { link })),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Deletes every entry of these addresses. With their flows closed no new one is made: the guard rules drop a packet
    /// before its entry counts.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn forget(&mut self, addresses: &BTreeSet<IpAddr>) -> io::Result<()> {
        for entry in self.entries(addresses)? {
            self.delete(&entry)?;
        }
        Ok(())
    }

    fn entries(&mut self, addresses: &BTreeSet<IpAddr>) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.link.ask(request(addresses), |kind, payload| {
            if kind == CT_NEW {
                entries.extend(Entry::of(payload, addresses));
            }
        })?;
        Ok(entries)
    }

    fn delete(&mut self, entry: &Entry) -> io::Result<()> {
        let mut request = Request::new(CT_DELETE, REQUEST_ACK, &[entry.family, 0, 0, 0])
            .attribute(CTA_TUPLE_ORIG | 0x8000, &entry.original);
        if let Some(zone) = &entry.zone {
            request = request.attribute(CTA_ZONE, zone);
        }
        if let Some(id) = &entry.id {
            request = request.attribute(CTA_ID, id);
        }
        match self.link.ask(request, |_, _| {}) {
            // It lapsed in the meantime.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            outcome => outcome,
        }
    }
}

/// What deleting an entry takes: its own words for itself.
struct Entry {
    family: u8,
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
}

impl Entry {
    fn of(payload: &[u8], addresses: &BTreeSet<IpAddr>) -> Option<Self> {
        let entry = payload.get(NFGEN_LEN..)?;
        let original = attribute(entry, CTA_TUPLE_ORIG)?;
        let reply = attribute(entry, CTA_TUPLE_REPLY)?;
        let ours = [original, reply]
            .into_iter()
            .flat_map(ends)
            .any(|end| addresses.contains(&end));
        ours.then(|| Self {
            family: payload.first().copied().unwrap_or_default(),
            original: original.to_vec(),
            zone: attribute(entry, CTA_ZONE).map(<[u8]>::to_vec),
            id: attribute(entry, CTA_ID).map(<[u8]>::to_vec),
        })
    }
}

/// Both addresses of a tuple: `CTA_IP_V4_SRC` 1, `V4_DST` 2, `V6_SRC` 3, `V6_DST` 4.
fn ends(tuple: &[u8]) -> Vec<IpAddr> {
    let ip = attribute(tuple, CTA_TUPLE_IP).unwrap_or_default();
    let v4 = |kind| attribute(ip, kind).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let v6 = |kind| attribute(ip, kind).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    let v4s = [v4(1), v4(2)].into_iter().flatten().map(IpAddr::from);
    let v6s = [v6(3), v6(4)].into_iter().flatten().map(IpAddr::from);
    v4s.chain(v6s).collect()
}

/// One walk of the kernel over its table, which costs the same for one address as for a thousand: 13 ms with
/// 262,144 buckets.
fn request(addresses: &BTreeSet<IpAddr>) -> Request {
    match addresses.first() {
        Some(only) if addresses.len() == 1 => of_address(*only),
        _ => Request::new(CT_GET, REQUEST_ACK | DUMP, &[0; NFGEN_LEN]),
    }
}

/// Has the kernel send only what may be of this address; [`Entry::of`] chooses among it. For IPv4 that is what the address
/// began, which all of a session's are (Linux 5.8; an older one sends all of the family). For IPv6 it is the whole
/// family: the same filter lets every address through there but the one that is asked for (`ctnetlink_filter_match_tuple`
/// takes `ipv6_addr_cmp` for true when equal, from 5.8 to at least 6.18).
fn of_address(address: IpAddr) -> Request {
    match address {
        IpAddr::V4(v4) => Request::new(CT_GET, REQUEST_ACK | DUMP, &[FAMILY4, 0, 0, 0])
            .nested(CTA_TUPLE_ORIG, |tuple| {
                tuple.nested(CTA_TUPLE_IP, |ip| ip.attribute(CTA_IP_V4_SRC, &v4.octets()))
            })
            .nested(CTA_FILTER, |filter| {
                filter.attribute(CTA_FILTER_ORIG_FLAGS, &FILTER_SOURCE.to_ne_bytes())
            }),
        IpAddr::V6(_) => Request::new(CT_GET, REQUEST_ACK | DUMP, &[FAMILY6, 0, 0, 0]),
    }
}
