//! The wire: what passed an interface, captured without loss, and packets put on it.
//!
//! A capture filters in the kernel by interface and direction, so that counting is exact and a flood in the other direction costs nothing.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::net::Namespace;
use crate::packet::Packet;
use crate::wait::{wait_until, watch};

/// Receive buffer of a capture: 64 MiB holds 80,000 small packets, more than one probe of every port.
const BUFFER: usize = 64 << 20;
/// How soon a capture notices that it should stop.
const ATTENTION: Duration = Duration::from_millis(20);

/// Which way a captured packet went, as the interface sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From outside to this machine.
    Incoming,
    /// From this machine to outside.
    Outgoing,
}

/// One packet and when it was read.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// What.
    pub packet: Packet,
}

/// A running capture that keeps nothing: each packet is given away. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    /// Captures one direction of one interface, and gives the bytes of each packet from the IP header on. When this returns,
    /// nothing that follows is missed.
    ///
    /// # Errors
    /// When the interface does not exist or the socket is refused.
    pub fn start(
        space: &Namespace,
        interface: &str,
        direction: Direction,
        each: impl FnMut(&[u8]) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, opened) = mpsc::channel();
        let (space, interface) = (space.clone(), interface.to_owned());
        let their_stop = Arc::clone(&stop);
        let reader = std::thread::spawn(move || {
            let socket = match space.enter().and_then(|()| open(&interface, direction)) {
                Ok(socket) => {
                    let _asker_waits = ready.send(Ok(()));
                    socket
                }
                Err(error) => {
                    let _asker_waits = ready.send(Err(error));
                    return;
                }
            };
            read_all(&socket, each, &their_stop);
        });
        opened.recv().context("the capture thread died")??;
        Ok(Self {
            stop,
            reader: Some(reader),
        })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            let _a_panic_shows_in_the_lock = reader.join();
        }
    }
}

/// A running capture, and what it saw.
#[derive(Debug)]
pub struct Wire {
    seen: Arc<Mutex<Vec<Seen>>>,
    capture: Capture,
}

impl Wire {
    /// Captures one direction of one interface. When this returns, nothing that follows is missed.
    ///
    /// # Errors
    /// When the interface does not exist or the socket is refused.
    pub fn tap(space: &Namespace, interface: &str, direction: Direction) -> anyhow::Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let their_seen = Arc::clone(&seen);
        let keep = move |bytes: &[u8]| {
            if let Some(packet) = Packet::parse(bytes) {
                let at = Instant::now();
                let mut seen = their_seen.lock().expect("no holder panics");
                seen.push(Seen { at, packet });
            }
        };
        let capture = Capture::start(space, interface, direction, keep)?;
        Ok(Self { seen, capture })
    }

    /// What has been captured so far.
    pub fn so_far(&self) -> Vec<Seen> {
        self.seen.lock().expect("no reader panics").clone()
    }

    /// How many packets so far satisfy `which`.
    pub fn count(&self, which: impl Fn(&Packet) -> bool) -> usize {
        let seen = self.seen.lock().expect("no reader panics");
        seen.iter().filter(|seen| which(&seen.packet)).count()
    }

    /// Waits for a packet.
    ///
    /// # Errors
    /// When none comes within the limit.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        which: impl Fn(&Packet) -> bool,
    ) -> anyhow::Result<Seen> {
        wait_until(what, limit, || self.first(&which))
    }

    /// Watches for `span`: the first packet that satisfies `which`, if there is one, now or by then.
    pub fn watch_for(&self, span: Duration, which: impl Fn(&Packet) -> bool) -> Option<Seen> {
        watch(span, || self.first(&which))
    }

    /// Ends the capture and gives everything it saw.
    pub fn finish(self) -> Vec<Seen> {
        drop(self.capture);
        std::mem::take(&mut self.seen.lock().expect("no reader panics"))
    }

    fn first(&self, which: impl Fn(&Packet) -> bool) -> Option<Seen> {
        let seen = self.seen.lock().expect("no reader panics");
        seen.iter().find(|seen| which(&seen.packet)).cloned()
    }
}

/// Puts packets on the wire through the kernel's routing, with whatever source they name.
///
/// # Errors
/// When the socket is refused or there is no route.
pub fn send(space: &Namespace, packets: &[Packet]) -> anyhow::Result<()> {
    space.run(|| {
        let sender = Sender::open()?;
        packets.iter().try_for_each(|packet| sender.send(packet))
    })?
}

/// Puts whole IP packets on the wire, fragments among them.
///
/// # Errors
/// When the socket is refused or there is no route.
pub fn send_bytes(
    space: &Namespace,
    destination: IpAddr,
    packets: &[Vec<u8>],
) -> anyhow::Result<()> {
    space.run(|| {
        let sender = Sender::open()?;
        packets
            .iter()
            .try_for_each(|packet| sender.send_bytes(destination, packet))
    })?
}

/// Raw sockets of the calling thread's namespace, for both families.
#[derive(Debug)]
pub struct Sender {
    v4: Socket,
    v6: Socket,
}

impl Sender {
    /// Opens both sockets.
    ///
    /// # Errors
    /// When the process may not.
    pub fn open() -> anyhow::Result<Self> {
        // IPPROTO_RAW (255): the packet brings its own header.
        let raw = Some(Protocol::from(255));
        Ok(Self {
            v4: Socket::new(Domain::IPV4, Type::RAW, raw).context("a raw IPv4 socket")?,
            v6: Socket::new(Domain::IPV6, Type::RAW, raw).context("a raw IPv6 socket")?,
        })
    }

    /// Sends one packet.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn send(&self, packet: &Packet) -> anyhow::Result<()> {
        self.send_bytes(packet.destination.ip(), &packet.to_bytes())
    }

    fn send_bytes(&self, destination: IpAddr, packet: &[u8]) -> anyhow::Result<()> {
        let socket = match destination {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        socket
            .send_to(packet, &SocketAddr::new(destination, 0).into())
            .with_context(|| format!("sending to {destination}"))?;
        Ok(())
    }
}

fn open(interface: &str, direction: Direction) -> anyhow::Result<Socket> {
    let index = rustix::net::netdevice::name_to_index(
        Socket::new(Domain::IPV4, Type::DGRAM, None)?,
        interface,
    )
    .with_context(|| format!("looking for interface {interface}"))?;
    // ETH_P_ALL, in network order; SOCK_DGRAM gives packets from the IP header on, whatever the link.
    let everything = Protocol::from(i32::from(0x0003_u16.to_be()));
    let socket =
        Socket::new(Domain::PACKET, Type::DGRAM, Some(everything)).context("a packet socket")?;
    set_socket_recv_buffer_size_force(&socket, BUFFER)?;
    socket.attach_filter(&filter(index, direction))?;
    // What came between making the socket and the filter is not ours.
    socket.set_nonblocking(true)?;
    while (&socket).read(&mut [0; 64]).is_ok() {}
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(ATTENTION))?;
    Ok(socket)
}

/// A classic BPF program: this interface, this direction, IPv4 or IPv6 (linux/filter.h: ancillary loads).
fn filter(index: u32, direction: Direction) -> [SockFilter; 9] {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const ANCILLARY: u32 = 0xffff_f000; // SKF_AD_OFF
    const OUTGOING: u32 = 4; // PACKET_OUTGOING
    let (if_out, if_in) = match direction {
        Direction::Outgoing => (0, 4),
        Direction::Incoming => (4, 0),
    };
    [
        SockFilter::new(LOAD, 0, 0, ANCILLARY + 8), // SKF_AD_IFINDEX
        SockFilter::new(EQUAL, 0, 6, index),
        SockFilter::new(LOAD, 0, 0, ANCILLARY + 4), // SKF_AD_PKTTYPE
        SockFilter::new(EQUAL, if_out, if_in, OUTGOING),
        SockFilter::new(LOAD, 0, 0, ANCILLARY), // SKF_AD_PROTOCOL
        SockFilter::new(EQUAL, 1, 0, 0x0800),
        SockFilter::new(EQUAL, 0, 1, 0x86dd),
        SockFilter::new(RETURN, 0, 0, 0xffff),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn read_all(socket: &Socket, mut each: impl FnMut(&[u8]), stop: &AtomicBool) {
    let mut buffer = vec![0; 65536];
    loop {
        // What is queued when the stop comes is still taken; what comes later is not waited for.
        let stopping = stop.load(Ordering::Acquire);
        if stopping && socket.set_nonblocking(true).is_err() {
            return;
        }
        match (&*socket).read(&mut buffer) {
            Ok(length) => each(&buffer[..length]),
            Err(_) if stopping => return,
            // A timeout, or the interface went down for a moment.
            Err(_) => {}
        }
    }
}
