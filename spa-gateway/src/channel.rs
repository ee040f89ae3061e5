//! The control channel on the network: HTTP/1.1 and JSON inside the tunnel (SPEC §12).
//!
//! A thread of its own reads requests, hands each to the core's thread and writes its answer; it decides
//! nothing and knows no secret. Invariant: whatever a session does here costs the other sessions, the knocks and
//! our memory no more than its own limits: connections, requests, bytes, seconds.
//!
//! | question | file |
//! |---|---|
//! | what do these bytes ask? | `http.rs` |
//! | which call is that, and how is it answered? | `calls.rs` |
//! | one connection from its first byte to its last | `connection.rs` |
//! | how much may this session? | `guests.rs` |
//! | what was it told? | `events.rs` |

mod calls;
mod connection;
mod events;
mod guests;
mod http;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use spa_gateway_core::{Call, CallAnswer, CallRefusal};
use spa_proto::SessionId;
use spa_proto::channel::Event;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::LocalSet;
use tracing::{debug, warn};

use events::Rings;
use guests::Guests;

/// How many events may wait for this thread, which does nothing that takes long.
const TOLD: usize = 4096;
/// How many calls may be with the core's thread at once, so that they never fill its intake: knocks come first.
const WITH_THE_CORE: usize = 64;
/// How many connections may wait to be taken.
const BACKLOG: i32 = 256;
/// How long to wait after the system had no room for another connection.
const NO_ROOM: Duration = Duration::from_millis(100);
/// How long what was sent may stay unacknowledged before a connection is given up.
const UNANSWERED: Duration = Duration::from_secs(60);

/// One call on its way to the core's thread.
#[derive(Debug)]
pub struct Called {
    /// The address at the other end.
    pub source: IpAddr,
    /// What stands behind `Authorization: Bearer`.
    pub bearer: zeroize::Zeroizing<Vec<u8>>,
    /// What is asked.
    pub call: Call,
    /// Where the answer goes; whoever asked may be gone.
    pub answer: oneshot::Sender<Result<CallAnswer, CallRefusal>>,
}

/// What became of a call that was handed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handed {
    /// It is taken.
    Taken,
    /// There is no room now, or nobody listens any more.
    Refused,
}

/// Hands a call to the core's thread. Must not block.
pub trait HandOn: Fn(Called) -> Handed + Send + 'static {}
impl<T: Fn(Called) -> Handed + Send + 'static> HandOn for T {}

/// Where the core's thread puts what sessions are to be told.
#[derive(Clone, Debug)]
pub struct Teller(mpsc::Sender<(SessionId, Event)>);

impl Teller {
    /// Tells a session. What there is no room for is lost, as a lost packet is.
    pub fn tell(&self, session: SessionId, event: Event) {
        if self.0.try_send((session, event)).is_err() {
            debug!(%session, "event lost");
        }
    }
}

/// Reads one request as a connection does, for those who check how: its call, and how many bytes it took. `None`: it
/// is refused, or more of it is to come.
#[must_use]
pub fn read_request(bytes: &[u8]) -> Option<(Call, usize)> {
    let (head, length) = http::read(bytes).ok()??;
    let route = calls::Route::of(head.method, &head.path).ok()?;
    let body = route.body_length(&head).ok()?;
    let end = length.checked_add(body)?;
    let call = route.call(bytes.get(length..end)?).ok()?;
    Some((call, end))
}

/// Listens on the tunnel addresses, through the WireGuard interface only. To be called with privilege and before
/// the sandbox, which lets nobody bind. An address need not be there yet.
///
/// # Errors
/// What the system refuses: a port that is taken.
pub fn bind(
    addresses: impl IntoIterator<Item = IpAddr>,
    port: u16,
    interface: &str,
) -> io::Result<Vec<TcpListener>> {
    addresses
        .into_iter()
        .map(|address| {
            let at = SocketAddr::new(address, port);
            let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), None)?;
            match address {
                IpAddr::V4(_) => socket.set_freebind_v4(true)?,
                IpAddr::V6(_) => {
                    socket.set_only_v6(true)?;
                    socket.set_freebind_v6(true)?;
                }
            }
            // A gateway that was just stopped leaves connections in TIME_WAIT.
            socket.set_reuse_address(true)?;
            // Whoever is on another interface is none of its callers.
            socket.bind_device(Some(interface.as_bytes()))?;
            socket.bind(&at.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without a request.
    pub idle: Duration,
    /// For a request, from its first byte to its last.
    pub request: Duration,
    /// To take what it is sent.
    pub write: Duration,
}

impl Patience {
    /// That of SPEC §12.
    pub const OURS: Self = Self {
        idle: Duration::from_secs(75),
        request: Duration::from_secs(10),
        write: Duration::from_secs(10),
    };
}

/// Starts the thread. At most `connections` are open at once.
///
/// # Errors
/// What the kernel refuses while the thread is made.
pub fn start(
    listeners: Vec<TcpListener>,
    connections: usize,
    patience: Patience,
    hand_on: impl HandOn,
) -> io::Result<Teller> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let (sender, told) = mpsc::channel(TOLD);
    thread::Builder::new()
        .name("channel".to_owned())
        // Requests are small and handled one poll at a time.
        .stack_size(256 * 1024)
        .spawn(move || {
            let desk = Rc::new(Desk {
                guests: Guests::new(connections),
                rings: Rings::default(),
                with_the_core: Semaphore::new(WITH_THE_CORE),
                patience,
                hand_on: Box::new(hand_on),
            });
            LocalSet::new().block_on(&runtime, serve(listeners, told, desk));
        })?;
    Ok(Teller(sender))
}

/// What all connections share.
struct Desk {
    guests: Guests,
    rings: Rings,
    with_the_core: Semaphore,
    patience: Patience,
    hand_on: Box<dyn Fn(Called) -> Handed>,
}

async fn serve(
    listeners: Vec<TcpListener>,
    mut told: mpsc::Receiver<(SessionId, Event)>,
    desk: Rc<Desk>,
) {
    for listener in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                tokio::task::spawn_local(accept(listener, Rc::clone(&desk)));
            }
            Err(error) => warn!(%error, "the control channel is not served"),
        }
    }
    // Ends with the daemon, which holds the sender.
    while let Some((session, event)) = told.recv().await {
        desk.rings.tell(session, &event);
    }
}

async fn accept(listener: tokio::net::TcpListener, desk: Rc<Desk>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let source = from.ip().to_canonical();
                let Some(seat) = Guests::seat(&desk, source) else {
                    // Dropped, so reset: whoever holds that many connections knows why.
                    continue;
                };
                let _ = stream.set_nodelay(true);
                let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNANSWERED));
                tokio::task::spawn_local(connection::serve(stream, seat));
            }
            Err(error) => {
                debug!(%error, "no connection taken");
                tokio::time::sleep(NO_ROOM).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
