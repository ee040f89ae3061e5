//! The administrators' socket: takes requests, hands them to the core's thread, gives its answers.
//!
//! Also the ear for signals, since this thread has an event loop. Invariant: nothing is
//! decided here, and an answer that says "done" comes from the core's thread, after its
//! record is on disk.

pub mod protocol;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::IncomingStream;
use rustix::fs::Uid;
use serde::Serialize;
use tokio::net::unix::UCred;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::accounts;
use protocol::{MAX_REQUEST, PATH, Refused, Request};

/// How long an answer may take before the administrator is told so.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long to wait when the core's thread has no room for another event.
const ROOM: Duration = Duration::from_millis(2);

/// One request on its way to the core's thread.
#[derive(Debug)]
pub struct Asked {
    /// What.
    pub request: Request,
    /// The user that asks.
    pub by: u32,
    /// When the request came in, for what is measured from here.
    pub at: Instant,
    /// Where the answer goes; whoever asked may be gone.
    pub answer: oneshot::Sender<Result<Written, String>>,
}

/// An answer as JSON, written where it is known: as a tree of values a list of a thousand sessions takes megabytes.
#[derive(Debug)]
pub struct Written(String);

impl Written {
    /// Writes an answer.
    ///
    /// # Panics
    /// For what is no JSON: a map whose keys are no text.
    #[must_use]
    pub fn of(answer: &impl Serialize) -> Self {
        Self(serde_json::to_string(answer).expect("the protocol is JSON"))
    }

    /// Writes a list, each of its lines as it comes.
    #[must_use]
    pub fn list<T: Serialize>(lines: impl Iterator<Item = T>) -> Self {
        let mut text = String::from("[");
        for (at, line) in lines.enumerate() {
            if at > 0 {
                text.push(',');
            }
            text.push_str(&Self::of(&line).0);
        }
        text.push(']');
        Self(text)
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a signal means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signalled {
    /// End in order: SIGTERM, SIGINT.
    Stop,
    /// Read the policy again: SIGHUP.
    Reload,
}

/// Something the core's thread should hear of.
#[derive(Debug)]
pub enum Message {
    /// A request.
    Asked(Asked),
    /// A signal.
    Signalled(Signalled),
}

/// What became of a message that was handed on.
#[derive(Debug)]
pub enum Handed {
    /// It is taken.
    Taken,
    /// There is no room now; here it is again.
    Full(Message),
    /// Nobody listens any more.
    Closed,
}

/// Hands a message to the core's thread. Must not block.
pub trait HandOn: Fn(Message) -> Handed + Clone + Send + Sync + 'static {}
impl<T: Fn(Message) -> Handed + Clone + Send + Sync + 'static> HandOn for T {}

/// Why the socket cannot be had. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A gateway lives there.
    #[error("another gateway answers on {}; stop it first, one runs at a time", .0.display())]
    Alive(PathBuf),
    /// The system refused.
    #[error("cannot {action} {}: {source}; see [paths] runtime", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Makes the socket, as root: for root, and for the group of administrators if the system has one.
///
/// # Errors
/// A living gateway on the same socket; what the system refuses.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let refused = |action| {
        move |source| SocketError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(refused("make the directory of"))?;
    }
    match UnixStream::connect(path) {
        Ok(_) => return Err(SocketError::Alive(path.to_owned())),
        // The rest of a gateway that was killed.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(refused("remove the stale"))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused("look at")(error)),
    }
    let listener = UnixListener::bind(path).map_err(refused("make"))?;
    let group = accounts::admin_group();
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    chown(path, Some(0), group.map(rustix::fs::Gid::as_raw)).map_err(refused("give away"))?;
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, permissions).map_err(refused("protect"))?;
    listener.set_nonblocking(true).map_err(refused("use"))?;
    Ok(listener)
}

/// Starts the thread. `ours` are the users of our own processes: they never administer.
///
/// # Errors
/// What the kernel refuses while the thread is made.
pub fn start(
    listener: UnixListener,
    ours: [Uid; 2],
    hand_on: impl HandOn,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    thread::Builder::new()
        .name("control".to_owned())
        // Requests are small and handled one poll at a time.
        .stack_size(256 * 1024)
        .spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, ours, hand_on)) {
                warn!(%error, "the admin socket is closed");
            }
        })
}

async fn serve(listener: UnixListener, ours: [Uid; 2], hand_on: impl HandOn) -> io::Result<()> {
    for (kind, meaning) in [
        (SignalKind::terminate(), Signalled::Stop),
        (SignalKind::interrupt(), Signalled::Stop),
        (SignalKind::hangup(), Signalled::Reload),
    ] {
        let mut signals = signal(kind)?;
        let hand_on = hand_on.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                deliver(&hand_on, Message::Signalled(meaning)).await;
            }
        });
    }
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let desk = Desk { ours, hand_on };
    let router = Router::new()
        .route(PATH, post(answer))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(desk);
    axum::serve(
        listener,
        router.into_make_service_with_connect_info::<Peer>(),
    )
    .await
}

#[derive(Clone)]
struct Desk<F> {
    ours: [Uid; 2],
    hand_on: F,
}

/// Who is at the other end, as the kernel says.
#[derive(Clone, Debug)]
struct Peer(Option<UCred>);

impl Connected<IncomingStream<'_, tokio::net::UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, tokio::net::UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok())
    }
}

async fn answer<F: HandOn>(
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    State(desk): State<Desk<F>>,
    body: Bytes,
) -> Response {
    let at = Instant::now();
    let Some(peer) = peer else {
        return refusal(
            StatusCode::FORBIDDEN,
            "the kernel does not say who asks".to_owned(),
        );
    };
    // The socket's mode lets root and the administrators in; our own processes are neither.
    if desk.ours.iter().any(|uid| uid.as_raw() == peer.uid()) {
        return refusal(
            StatusCode::FORBIDDEN,
            "the gateway's own processes do not administer it".to_owned(),
        );
    }
    let request = match serde_json::from_slice::<Request>(&body) {
        Ok(request) => request,
        Err(error) => {
            let line = format!(
                "not a request of this version: {error}; install spa-admin and spa-gateway together"
            );
            return refusal(StatusCode::BAD_REQUEST, line);
        }
    };
    debug!(uid = peer.uid(), ?request, "asked");
    let (sender, receiver) = oneshot::channel();
    let asked = Asked {
        request,
        by: peer.uid(),
        at,
        answer: sender,
    };
    deliver(&desk.hand_on, Message::Asked(asked)).await;
    match tokio::time::timeout(PATIENCE, receiver).await {
        Ok(Ok(Ok(Written(body)))) => json(StatusCode::OK, body),
        Ok(Ok(Err(line))) => refusal(StatusCode::CONFLICT, line),
        Ok(Err(_)) => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "the gateway is ending; ask again when it runs".to_owned(),
        ),
        Err(_) => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "the gateway is busy; ask again".to_owned(),
        ),
    }
}

/// Waits for room. The core's thread makes some within milliseconds, even under a flood.
async fn deliver(hand_on: &impl HandOn, message: Message) {
    let mut message = message;
    while let Handed::Full(back) = hand_on(message) {
        message = back;
        tokio::time::sleep(ROOM).await;
    }
}

fn refusal(status: StatusCode, refused: String) -> Response {
    json(status, Written::of(&Refused { refused }).0)
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use serde_json::Value;

    use super::*;
    use crate::admin::client::{AskError, Client};

    /// A socket whose requests are answered by `core`.
    fn socket(
        core: impl Fn(Request) -> Result<Value, String> + Send + 'static,
        ours: [u32; 2],
    ) -> (tempfile::TempDir, Client) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        listener.set_nonblocking(true).expect("nonblocking");
        let (sender, receiver) = mpsc::sync_channel(4);
        let hand_on = move |message| match sender.try_send(message) {
            Ok(()) => Handed::Taken,
            Err(mpsc::TrySendError::Full(message)) => Handed::Full(message),
            Err(mpsc::TrySendError::Disconnected(_)) => Handed::Closed,
        };
        start(listener, ours.map(Uid::from_raw), hand_on).expect("started");
        thread::spawn(move || {
            for message in receiver {
                if let Message::Asked(asked) = message {
                    let answer = core(asked.request).map(|value| Written::of(&value));
                    let _ = asked.answer.send(answer);
                }
            }
        });
        (dir, Client { socket: path })
    }

    const NOBODY: [u32; 2] = [64_180, 64_181];

    #[test]
    fn an_answer_goes_back_to_whoever_asked() {
        let (_dir, client) = socket(
            |request| Ok(serde_json::to_value(request).expect("JSON")),
            NOBODY,
        );
        let back: Request = client.ask(&Request::Users).expect("answered");
        assert_eq!(back, Request::Users);
    }

    #[test]
    fn a_list_is_the_list_that_was_meant() {
        for lines in [&[][..], &["a"], &["a", "\",b"]] {
            let back: Vec<String> =
                serde_json::from_str(&Written::list(lines.iter()).to_string()).expect("JSON");
            assert_eq!(back, lines);
        }
    }

    #[test]
    fn a_refusal_is_one_line() {
        let (_dir, client) = socket(|_| Err("no; because; do that".to_owned()), NOBODY);
        let refused = client.ask::<Value>(&Request::Status).expect_err("refused");
        assert_eq!(refused.to_string(), "no; because; do that");
    }

    #[test]
    fn our_own_processes_do_not_administer() {
        let me = rustix::process::getuid().as_raw();
        let (_dir, client) = socket(|_| Ok(Value::Null), [me, 64_181]);
        assert!(matches!(
            client.ask::<Value>(&Request::Status),
            Err(AskError::Refused(_))
        ));
    }

    #[test]
    fn a_request_that_is_too_long_is_refused() {
        let (_dir, client) = socket(|_| Ok(Value::Null), NOBODY);
        let user = "a".repeat(MAX_REQUEST);
        assert!(client.ask::<Value>(&Request::RemoveUser { user }).is_err());
    }

    #[test]
    fn a_living_gateway_is_not_pushed_aside_and_a_dead_one_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run").join("admin.sock");
        let alive = bind(&path).expect("bound");
        assert!(matches!(bind(&path), Err(SocketError::Alive(_))));
        drop(alive);
        bind(&path).expect("the stale socket is replaced");
    }
}
