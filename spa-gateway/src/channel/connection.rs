//! One connection, from its first byte to its last: requests one after the other, or a stream of events.
//!
//! Invariant: requests and answers have their time ([`Patience`]), and nothing is read beyond what a call may be long.
//! So a client that says nothing, little or too much holds a place for a while and no more.

use std::io;
use std::time::Duration;

use spa_proto::channel::MAX_HEAD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroize;

use super::calls::{Outcome, Problem, Route};
use super::guests::Seat;
use super::http::{self, Head};
use super::{Called, Handed, Patience};

/// How long the core's thread may take.
const DECISION: Duration = Duration::from_secs(5);
/// How often a stream without events shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How long, and how much, of what nobody wants is taken after the last answer, so that the client gets to read it
/// before it hears that the rest was not.
const LINGER: (Duration, usize) = (Duration::from_millis(500), 256 * 1024);
/// How much is read at once.
const CHUNK: usize = 2048;

/// Serves a connection to its end.
pub async fn serve(stream: TcpStream, seat: Seat) {
    let mut connection = Connection {
        stream,
        patience: seat.desk.patience,
        seat,
        read: Vec::new(),
    };
    // A connection that breaks is over; there is nobody to tell.
    let _ = connection.run().await;
    connection.read.zeroize();
}

struct Connection {
    stream: TcpStream,
    patience: Patience,
    seat: Seat,
    /// What was read and not used yet.
    read: Vec<u8>,
}

/// What is left to do after a request.
enum Next {
    AnotherRequest,
    Close,
}

impl Connection {
    async fn run(&mut self) -> io::Result<()> {
        while self.is_spoken_to().await? {
            match self.serve_one().await? {
                Next::AnotherRequest => {}
                Next::Close => return self.linger().await,
            }
        }
        Ok(())
    }

    /// Waits for the first byte of a request.
    async fn is_spoken_to(&mut self) -> io::Result<bool> {
        if !self.read.is_empty() {
            return Ok(true);
        }
        // Nothing of the last request stays in memory while nothing is said.
        self.read = Vec::new();
        let mut first = [0];
        match timeout(self.patience.idle, self.stream.peek(&mut first)).await {
            Ok(seen) => seen.map(|seen| seen > 0),
            Err(_) => Ok(false),
        }
    }

    async fn serve_one(&mut self) -> io::Result<Next> {
        let deadline = Instant::now() + self.patience.request;
        let head = match timeout_at(deadline, self.head()).await {
            Ok(Ok(Ok(Some(head)))) => head,
            Ok(Ok(Ok(None))) => return Ok(Next::Close),
            Ok(Ok(Err(problem))) => return self.refuse(&problem).await,
            Ok(Err(error)) => return Err(error),
            Err(_) => return self.refuse(&Problem::TOO_SLOW).await,
        };
        let (route, length) = match self.admit(&head) {
            Ok(admitted) => admitted,
            Err(problem) => return self.refuse(&problem).await,
        };
        match timeout_at(deadline, self.fill(length)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Ok(Next::Close),
            Ok(Err(error)) => return Err(error),
            Err(_) => return self.refuse(&Problem::TOO_SLOW).await,
        }
        let close = head.close;
        let last_event = head.last_event;
        let outcome = self.ask(head, route, length).await;
        match outcome {
            Ok(Outcome::Json(body)) => {
                self.answer("200 OK", "", &body, close).await?;
                Ok(if close {
                    Next::Close
                } else {
                    Next::AnotherRequest
                })
            }
            Ok(Outcome::Events(session)) => {
                self.stream_events(session, last_event).await?;
                Ok(Next::Close)
            }
            Err(problem) => {
                let problem = Problem {
                    close: problem.close || close,
                    ..problem
                };
                self.refuse(&problem).await
            }
        }
    }

    /// Reads a head; `None`: the client has gone.
    async fn head(&mut self) -> io::Result<Result<Option<Head>, Problem>> {
        loop {
            match http::read(&self.read) {
                Ok(Some((_, length))) if length > MAX_HEAD => {
                    return Ok(Err(Problem::HEAD_TOO_LARGE));
                }
                Ok(Some((head, length))) => {
                    self.read.drain(..length);
                    return Ok(Ok(Some(head)));
                }
                Ok(None) if self.read.len() >= MAX_HEAD => {
                    return Ok(Err(Problem::HEAD_TOO_LARGE));
                }
                Ok(None) => {}
                Err(problem) => return Ok(Err(problem)),
            }
            if !self.read_more().await? {
                return Ok(Ok(None));
            }
        }
    }

    /// Counts a request and finds its call, before any of its body is read.
    fn admit(&self, head: &Head) -> Result<(Route, usize), Problem> {
        // Nobody reads the body of a request that is refused here.
        let has_body = head.close || head.length.unwrap_or(0) > 0;
        self.seat.request().map_err(|wait| Problem {
            close: has_body,
            ..Problem::too_many(wait)
        })?;
        let route = Route::of(head.method, &head.path).map_err(|problem| Problem {
            close: problem.close || has_body,
            ..problem
        })?;
        let length = route.body_length(head)?;
        Ok((route, length))
    }

    /// Reads until `length` bytes are there; whether they came.
    async fn fill(&mut self, length: usize) -> io::Result<bool> {
        while self.read.len() < length {
            if !self.read_more().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn read_more(&mut self) -> io::Result<bool> {
        let before = self.read.len();
        self.read.reserve_exact(CHUNK);
        let mut room = (&mut self.stream).take(CHUNK as u64);
        let read = room.read_buf(&mut self.read).await?;
        Ok(read > 0 && self.read.len() > before)
    }

    /// Has the core's thread decide.
    async fn ask(&mut self, head: Head, route: Route, length: usize) -> Result<Outcome, Problem> {
        let call = route.call(self.read.get(..length).unwrap_or_default());
        if let Some(body) = self.read.get_mut(..length) {
            // A key or a code may be in it.
            body.zeroize();
        }
        self.read.drain(..length.min(self.read.len()));
        let call = call?;
        let (sender, receiver) = oneshot::channel();
        let called = Called {
            source: self.seat.source,
            bearer: head.bearer,
            call,
            answer: sender,
        };
        let desk = &self.seat.desk;
        let answered = async {
            let _turn = desk.with_the_core.acquire().await.ok()?;
            match (desk.hand_on)(called) {
                Handed::Taken => receiver.await.ok(),
                Handed::Refused => None,
            }
        };
        match timeout(DECISION, answered).await {
            Ok(Some(Ok(answer))) => Ok(answer.into()),
            Ok(Some(Err(refusal))) => Err(refusal.into()),
            Ok(None) | Err(_) => Err(Problem::BUSY),
        }
    }

    async fn refuse(&mut self, problem: &Problem) -> io::Result<Next> {
        let status = format!("{} {}", problem.status, problem.phrase());
        let wait = problem.retry_after.map_or_else(String::new, |wait| {
            // Whole seconds, and never "at once".
            format!("Retry-After: {}\r\n", wait.as_secs().saturating_add(1))
        });
        self.answer(&status, &wait, &problem.to_json(), problem.close)
            .await?;
        Ok(if problem.close {
            Next::Close
        } else {
            Next::AnotherRequest
        })
    }

    async fn answer(
        &mut self,
        status: &str,
        more: &str,
        body: &str,
        close: bool,
    ) -> io::Result<()> {
        let close = if close { "Connection: close\r\n" } else { "" };
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: {}\r\n{more}{close}\r\n{body}",
            body.len()
        );
        self.write(&text).await
    }

    async fn write(&mut self, text: &str) -> io::Result<()> {
        in_time(self.patience.write, self.stream.write_all(text.as_bytes())).await
    }

    /// Streams what a session is told until it is over, a newer stream begins, or the client hangs up.
    async fn stream_events(
        &mut self,
        session: spa_proto::SessionId,
        mut seen: u64,
    ) -> io::Result<()> {
        let desk = std::rc::Rc::clone(&self.seat.desk);
        let Some(ring) = desk.rings.read(session) else {
            return self.refuse(&Problem::BUSY).await.map(drop);
        };
        let stream = ring.stream();
        self.write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        )
        .await?;
        loop {
            // Before the ring is read, so that nothing is told in between.
            let bell = ring.wait();
            let (text, last) = ring.after(seen);
            seen = last;
            if !text.is_empty() {
                self.write(&text).await?;
            }
            if ring.is_over() || ring.stream() != stream {
                return Ok(());
            }
            let mut byte = [0];
            tokio::select! {
                () = bell => {}
                read = self.stream.read(&mut byte) => {
                    // Hung up, or said something: neither belongs to a stream of events.
                    return read.map(drop);
                }
                () = tokio::time::sleep(HEARTBEAT) => self.write(": here\n\n").await?,
            }
        }
    }

    /// Says that nothing more is sent, and takes some of what is still on its way.
    async fn linger(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let (patience, most) = LINGER;
        let swallow = async {
            let mut left = most;
            let mut sink = [0; CHUNK];
            while left > 0 {
                match self.stream.read(&mut sink).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => left = left.saturating_sub(read),
                }
            }
        };
        // Whatever came or did not: the connection is over.
        let _ = timeout(patience, swallow).await;
        Ok(())
    }
}

async fn in_time<T>(
    patience: Duration,
    doing: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match timeout(patience, doing).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
