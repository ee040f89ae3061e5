//! Performs the owner's requests until the owner is gone.

use std::fmt;
use std::io;

use spa_wireguard::message::{Answer, Request, What};

use crate::confine;
use crate::device::Tun;
use crate::owner::{Owner, Received, Requests};
use crate::port::Port;
use crate::wireguard::Wireguard;

/// Why the tunnel ends before its owner.
#[derive(Debug)]
pub enum Stop {
    /// The first message was not [`Request::Start`], or a later one no request.
    Malformed,
    /// It could not set itself up; the owner has been told and says so.
    Told,
    /// The socket to the owner failed.
    Socket(io::Error),
    /// The TUN device is gone or failed.
    Device,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => {
                f.write_str("what its owner sent is no request: install both from one version")
            }
            Self::Told => f.write_str("could not begin"),
            Self::Socket(error) => write!(f, "the socket to its owner failed: {error}"),
            Self::Device => f.write_str("its TUN device is gone"),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

/// Serves one owner from its first message to its end.
pub async fn serve(owner: Owner) -> Result<(), Stop> {
    let Some((start, mut requests)) = owner.start()? else {
        return Err(Stop::Malformed);
    };
    let tun = told(&requests, What::Tun, Tun::take(start.device, start.mtu)).await?;
    let port = told(&requests, What::Port, Port::bind(start.port)).await?;
    told(&requests, What::Confine, confine::give_up_everything()).await?;
    requests.answer(Answer::Ready).await?;
    let Some(mut wireguard) = first_key(&mut requests, port, tun).await? else {
        return Ok(());
    };
    loop {
        let received = tokio::select! {
            received = requests.next() => received?,
            () = wireguard.failed() => return Err(Stop::Device),
        };
        let reply = match received {
            Received::End => break,
            Received::Malformed | Received::Request(Request::Start { .. }) => {
                return Err(Stop::Malformed);
            }
            Received::Request(request) => perform(&wireguard, request).await,
        };
        requests.answer_all(&reply.answers).await?;
        if let Some(key) = reply.greet {
            wireguard.greet(&key).await;
        }
    }
    wireguard.stop().await;
    Ok(())
}

/// Waits for the private key and brings WireGuard up with it; `None` when the owner is gone first.
async fn first_key(
    requests: &mut Requests,
    port: Port,
    tun: Tun,
) -> Result<Option<Wireguard>, Stop> {
    loop {
        let answer = match requests.next().await? {
            Received::End => return Ok(None),
            Received::Malformed | Received::Request(Request::Start { .. }) => {
                return Err(Stop::Malformed);
            }
            Received::Request(Request::Key(key)) => {
                let up = Wireguard::bring_up(&key, port, tun).await;
                let wireguard = told(requests, What::Key, up).await?;
                requests.answer(Answer::Done).await?;
                return Ok(Some(wireguard));
            }
            Received::Request(Request::Put(_)) => Answer::Failed {
                what: What::Order,
                errno: libc::EINVAL,
            },
            // Without a key there is no peer yet.
            Received::Request(Request::Remove(_) | Request::Psk(..)) => Answer::Done,
            Received::Request(Request::Read(_) | Request::List) => Answer::End,
        };
        requests.answer(answer).await?;
    }
}

/// What a request came to.
struct Reply {
    answers: Vec<Answer>,
    /// A peer to begin a handshake with, once the answer is out.
    greet: Option<[u8; spa_wireguard::KEY_LEN]>,
}

async fn perform(wireguard: &Wireguard, request: Request<'_>) -> Reply {
    let done = |result: io::Result<()>, what| match result {
        Ok(()) => Answer::Done,
        Err(error) => failure(what, &error),
    };
    let mut greet = None;
    let answers = match request {
        // Refused before this is reached.
        Request::Start { .. } => vec![Answer::Failed {
            what: What::Order,
            errno: libc::EINVAL,
        }],
        Request::Key(key) => vec![done(wireguard.set_key(&key).await, What::Key)],
        Request::Put(peer) => {
            greet = peer.endpoint.and(peer.keepalive).map(|_| peer.key);
            spa_failpoint::reach("tunnel", "before", "peer");
            let put = wireguard.put(&peer).await;
            spa_failpoint::reach("tunnel", "after", "peer");
            vec![done(put, What::Peer)]
        }
        Request::Remove(key) => {
            spa_failpoint::reach("tunnel", "before", "remove-peer");
            let removed = wireguard.remove(&key).await;
            spa_failpoint::reach("tunnel", "after", "remove-peer");
            vec![done(removed, What::Peer)]
        }
        Request::Psk(key, psk) => vec![done(wireguard.set_psk(&key, &psk).await, What::Peer)],
        Request::Read(key) => {
            let found = wireguard
                .peers()
                .await
                .into_iter()
                .find(|peer| peer.key == key);
            vec![found.map_or(Answer::End, Answer::Peer)]
        }
        Request::List => {
            let peers = wireguard.peers().await;
            peers
                .into_iter()
                .map(Answer::Peer)
                .chain([Answer::End])
                .collect()
        }
    };
    Reply { answers, greet }
}

/// Passes a result on; a failure is told to the owner first.
async fn told<T>(requests: &Requests, what: What, result: io::Result<T>) -> Result<T, Stop> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => {
            requests.answer(failure(what, &error)).await?;
            Err(Stop::Told)
        }
    }
}

fn failure(what: What, error: &io::Error) -> Answer {
    Answer::Failed {
        what,
        errno: error.raw_os_error().unwrap_or(0),
    }
}
