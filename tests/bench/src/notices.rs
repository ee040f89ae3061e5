//! What the kernel says of its nftables, the moment it changes: elements and rules as they come and go.
//!
//! The moment is the one at which the notification is read, so a figure made of it is never too good.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketType, bind, recv, socket};
use spa_tests::net::Namespace;
use spa_tests::wait::wait_until;

/// `NFNLGRP_NFTABLES` (7) as a bit of the mask of groups.
const NFTABLES: u32 = 1 << 6;
/// Holds some 100,000 notifications.
const BUFFER: usize = 64 << 20;
/// How soon a listener notices that it should stop.
const ATTENTION: Duration = Duration::from_millis(20);
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const SUBSYSTEM: u16 = 10;
/// `NFT_MSG_NEWRULE`
const NEW_RULE: u16 = 6;
/// `NFT_MSG_NEWSETELEM`
const NEW_ELEMENT: u16 = 12;
/// `NFTA_SET_ELEM_LIST_SET` and `NFTA_SET_ELEM_LIST_ELEMENTS`
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
/// Each first attribute of its nest: an element of the list, the key of the element, the value of the key.
const FIRST: u16 = 1;
/// netlink header, then the header of nfnetlink.
const HEADERS: usize = 16 + 4;

/// Something that changed.
#[derive(Clone, Debug)]
pub struct Notice {
    /// When it was read.
    pub at: Instant,
    /// What.
    pub change: Change,
}

/// What changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// An element is there; one for each element of a message.
    Element {
        /// Of which set.
        set: String,
        /// Its key.
        key: Vec<u8>,
    },
    /// A rule is there; all of its message, since what is in it depends on who made it.
    Rule(Vec<u8>),
}

/// Listens in one namespace.
#[derive(Debug)]
pub struct Notices {
    seen: Arc<Mutex<Vec<Notice>>>,
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Notices {
    /// Starts listening. When this returns, nothing that follows is missed.
    ///
    /// # Errors
    /// When the socket is refused.
    pub fn listen(space: &Namespace) -> anyhow::Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let [stop, lost] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (ready, opened) = mpsc::channel();
        let (their_space, their_seen, their_stop, their_lost) = (
            space.clone(),
            Arc::clone(&seen),
            Arc::clone(&stop),
            Arc::clone(&lost),
        );
        let reader = std::thread::spawn(move || {
            let socket = their_space.enter().and_then(|()| open());
            match socket {
                Ok(socket) => {
                    let _asker_waits = ready.send(Ok(()));
                    read_all(&socket, &their_seen, &their_stop, &their_lost);
                }
                Err(error) => {
                    let _asker_waits = ready.send(Err(error));
                }
            }
        });
        opened.recv().context("the listening thread died")??;
        Ok(Self {
            seen,
            stop,
            lost,
            reader: Some(reader),
        })
    }

    /// Takes out what has been heard so far.
    ///
    /// # Errors
    /// When the kernel had to drop notifications: figures made of the rest would be wrong.
    pub fn take(&self) -> anyhow::Result<Vec<Notice>> {
        if self.lost.load(Ordering::Acquire) {
            bail!("the kernel dropped notifications of its own tables");
        }
        Ok(std::mem::take(
            &mut self.seen.lock().expect("no reader panics"),
        ))
    }

    /// Waits for a change and tells when it came.
    ///
    /// # Errors
    /// When it does not come within the limit.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        which: impl Fn(&Change) -> bool,
    ) -> anyhow::Result<Instant> {
        wait_until(what, limit, || {
            let seen = self.seen.lock().expect("no reader panics");
            seen.iter()
                .find(|notice| which(&notice.change))
                .map(|notice| notice.at)
        })
    }

    /// How many changes so far are of this kind.
    pub fn count(&self, which: impl Fn(&Change) -> bool) -> usize {
        let seen = self.seen.lock().expect("no reader panics");
        seen.iter().filter(|notice| which(&notice.change)).count()
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            let _a_panic_shows_in_the_lock = reader.join();
        }
    }
}

impl Change {
    /// The source that a door of ours opens for, if this is such a door.
    pub fn door(&self) -> Option<SocketAddr> {
        let Self::Element { set, key } = self else {
            return None;
        };
        // address . port, each padded to four bytes.
        let [a, b, c, d, high, low, 0, 0] = **key else {
            return None;
        };
        let address = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        (set == "door4").then(|| SocketAddr::new(address, u16::from_be_bytes([high, low])))
    }
}

fn open() -> anyhow::Result<OwnedFd> {
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, Some(NETFILTER))?;
    set_socket_recv_buffer_size_force(&socket, BUFFER)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ATTENTION))?;
    bind(&socket, &SocketAddrNetlink::new(0, NFTABLES)).context("joining the group of nftables")?;
    Ok(socket)
}

fn read_all(socket: &OwnedFd, seen: &Mutex<Vec<Notice>>, stop: &AtomicBool, lost: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Acquire) {
        match recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => {
                let at = Instant::now();
                let changes = messages(&buffer[..length]).flat_map(changes_of);
                let mut seen = seen.lock().expect("no holder panics");
                seen.extend(changes.map(|change| Notice { at, change }));
            }
            Err(Errno::NOBUFS) => lost.store(true, Ordering::Release),
            // The timeout.
            Err(_) => {}
        }
    }
}

/// The messages of one datagram.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?);
        let length = usize::try_from(length).ok()?;
        let message = rest
            .get(..length)
            .filter(|message| message.len() >= HEADERS)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn changes_of(message: &[u8]) -> Vec<Change> {
    let kind = u16::from_ne_bytes([message[4], message[5]]);
    let body = &message[HEADERS..];
    match kind.checked_sub(SUBSYSTEM << 8) {
        Some(NEW_RULE) => vec![Change::Rule(message.to_vec())],
        Some(NEW_ELEMENT) => {
            let name = attribute(body, LIST_SET).unwrap_or_default();
            let name = name.strip_suffix(&[0]).unwrap_or(name);
            let set = String::from_utf8_lossy(name).into_owned();
            let elements = attribute(body, LIST_ELEMENTS).unwrap_or_default();
            let keys = attributes(elements)
                .filter_map(|(_, element)| attribute(attribute(element, FIRST)?, FIRST));
            keys.map(|key| Change::Element {
                set: set.clone(),
                key: key.to_vec(),
            })
            .collect()
        }
        Some(_) | None => Vec::new(),
    }
}

fn attribute(body: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(body)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

/// The attributes of a body, flags of their types off.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    })
}
