//! Asks the daemon through its admin socket: one HTTP/1.1 request, one answer, closed.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::service::Keeper;
use crate::control::protocol::{PATH, Refused, Request};

/// The longest answer, bytes: 65,536 sessions are far below it.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// How long the daemon may take: ending a thousand sessions takes a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where to ask.
#[derive(Clone, Debug)]
pub struct Client {
    /// The admin socket.
    pub socket: PathBuf,
}

/// Why there is no answer. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("the gateway is not running (nobody answers on {}); start it with {}", .0.display(), Keeper::here().start())]
    NotRunning(PathBuf),
    /// We may not ask.
    #[error("may not use {}; run this as root or as a member of group spa-admin", .0.display())]
    NotAllowed(PathBuf),
    /// The connection broke.
    #[error("no answer from the gateway on {}: {source}; its log says more", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Something else answered.
    #[error("what answered on {} is no gateway of this version; install spa-admin and spa-gateway together", .0.display())]
    Foreign(PathBuf),
    /// The daemon refused.
    #[error("{0}")]
    Refused(String),
}

impl Client {
    /// Asks, and takes the answer.
    ///
    /// # Errors
    /// A refusal of the daemon, or no daemon.
    pub fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, AskError> {
        let body = serde_json::to_vec(request).expect("requests are JSON");
        let answer = self.exchange(&body)?;
        let (status, body) = parse(&answer).ok_or_else(|| self.foreign())?;
        if status == 200 {
            return serde_json::from_slice(body).map_err(|_| self.foreign());
        }
        let refused: Refused = serde_json::from_slice(body).map_err(|_| self.foreign())?;
        Err(AskError::Refused(refused.refused))
    }

    fn foreign(&self) -> AskError {
        AskError::Foreign(self.socket.clone())
    }

    fn exchange(&self, body: &[u8]) -> Result<Vec<u8>, AskError> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|source| {
            let socket = self.socket.clone();
            match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    AskError::NotRunning(socket)
                }
                io::ErrorKind::PermissionDenied => AskError::NotAllowed(socket),
                _ => AskError::Broken { socket, source },
            }
        })?;
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nHost: spa\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut answer = Vec::new();
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.write_all(head.as_bytes()))
            .and_then(|()| stream.write_all(body))
            .and_then(|()| stream.take(MAX_ANSWER).read_to_end(&mut answer))
            .map_err(|source| AskError::Broken {
                socket: self.socket.clone(),
                source,
            })?;
        Ok(answer)
    }
}

/// Gives the status and the body. The daemon names its length and closes, so the body is all the rest.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end.checked_add(4)?)?;
    let head = std::str::from_utf8(head).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_status_and_body() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(answer), Some((200, &b"{}"[..])));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n"), None);
        assert_eq!(parse(b"\r\n\r\n"), None);
    }

    #[test]
    fn nobody_listening_is_said_as_such() {
        let socket = PathBuf::from("/nowhere/admin.sock");
        let asked = Client { socket }.ask::<()>(&Request::Status);
        let refusal = asked.expect_err("nobody").to_string();
        assert!(
            refusal.starts_with("the gateway is not running"),
            "{refusal}"
        );
    }
}
