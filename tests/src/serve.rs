//! What stands in the LAN, a tiny web server and a "database", and what a person does with it: fetch a page, watch a stream.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::Namespace;
use crate::wait::watch;

/// The page the web server gives.
pub const PAGE: &str = "the wiki's front page\n";
/// What the database greets with.
pub const GREETING: &str = "database ready\n";
/// How long a server may take to answer before it counts as gone, on a machine that compiles at the same time.
const ANSWER: Duration = Duration::from_millis(1500);
/// How often a stream says something.
const BEAT: Duration = Duration::from_millis(10);

/// A listener in a namespace. It ends with the process; its namespace can go before.
#[derive(Clone, Debug)]
pub struct Service {
    accepted: Arc<AtomicUsize>,
}

impl Service {
    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }
}

/// Serves one page, to anyone, for any request; `/stream` never ends.
///
/// # Errors
/// When the address is taken.
pub fn web(space: &Namespace, address: SocketAddr) -> anyhow::Result<Service> {
    listen(space, address, |mut stream| {
        let mut request = [0; 1024];
        let length = stream.read(&mut request).unwrap_or_default();
        if request[..length].starts_with(b"GET /stream") {
            let _ends_when_the_visitor_goes = watch(Duration::MAX, || {
                stream
                    .write_all(b"still here\n")
                    .err()
                    .or_else(|| watch(BEAT, || None))
            });
        } else if length > 0 {
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PAGE}",
                PAGE.len()
            );
            let _visitor_may_be_gone = stream.write_all(answer.as_bytes());
        }
    })
}

/// Greets and then sends back what it gets, until the other end goes.
///
/// # Errors
/// When the address is taken.
pub fn database(space: &Namespace, address: SocketAddr) -> anyhow::Result<Service> {
    listen(space, address, |mut stream| {
        if stream.write_all(GREETING.as_bytes()).is_err() {
            return;
        }
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    })
}

/// Fetches the page; what comes back is its body.
///
/// # Errors
/// When the server cannot be reached within `limit`, or gives something else.
pub fn fetch(space: &Namespace, address: SocketAddr, limit: Duration) -> anyhow::Result<String> {
    space.run(|| {
        let mut stream = reach(address, limit)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: wiki\r\n\r\n")?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .context("reading the page")?;
        match answer.split_once("\r\n\r\n") {
            Some((_, body)) => Ok(body.to_owned()),
            None => bail!("no page but {answer:?}"),
        }
    })?
}

/// An endless download that somebody watches: when did its last byte arrive?
#[derive(Clone, Debug)]
pub struct Stream {
    last: Arc<Mutex<(usize, Instant)>>,
}

impl Stream {
    /// Starts watching.
    ///
    /// # Errors
    /// When the server cannot be reached within `limit`.
    pub fn watch(space: &Namespace, address: SocketAddr, limit: Duration) -> anyhow::Result<Self> {
        let mut stream = connect(space, address, limit)?;
        stream.write_all(b"GET /stream HTTP/1.1\r\nHost: wiki\r\n\r\n")?;
        let last = Arc::new(Mutex::new((0, Instant::now())));
        let theirs = Arc::downgrade(&last);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A silent stream is not over for TCP; it is over when nobody watches any more.
            while let Some(last) = theirs.upgrade() {
                match stream.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => {
                        let mut last = last.lock().expect("no holder panics");
                        *last = (last.0 + length, Instant::now());
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        });
        Ok(Self { last })
    }

    /// Bytes so far, and when the last of them came.
    pub fn last(&self) -> (usize, Instant) {
        *self.last.lock().expect("no holder panics")
    }

    /// When the last byte came, once none has come for `span`; `None` when one still does after `limit`.
    pub fn stopped(&self, span: Duration, limit: Duration) -> Option<Instant> {
        watch(limit, || {
            let (_, last) = self.last();
            (last.elapsed() >= span).then_some(last)
        })
    }
}

/// What a server says by itself.
///
/// # Errors
/// When it says nothing in time.
pub fn greeting(mut stream: TcpStream) -> anyhow::Result<String> {
    let mut words = vec![0; GREETING.len()];
    stream.read_exact(&mut words).context("a greeting")?;
    Ok(String::from_utf8(words)?)
}

/// Whether a connection to the "database" still carries both ways: something is said, and comes back in a moment.
pub fn is_alive(stream: &mut TcpStream) -> bool {
    const WORD: &[u8] = b"still there?";
    let answered = |stream: &mut TcpStream| -> std::io::Result<bool> {
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(WORD)?;
        let mut heard = Vec::new();
        let mut buffer = [0; 1024];
        // A greeting may come first.
        while !heard.ends_with(WORD) {
            match stream.read(&mut buffer)? {
                0 => return Ok(false),
                length => heard.extend(&buffer[..length]),
            }
        }
        Ok(true)
    };
    answered(stream).unwrap_or(false)
}

/// Whether a machine answers an echo request of IPv4 within `limit`.
///
/// # Errors
/// When none can be sent.
pub fn ping(space: &Namespace, to: IpAddr, limit: Duration) -> anyhow::Result<bool> {
    space.sysctl("net/ipv4/ping_group_range", "0 65535")?;
    space.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4))?;
        socket.set_read_timeout(Some(limit))?;
        // Type, code, checksum and identifier (the kernel's to fill in), sequence number.
        let request = [8, 0, 0, 0, 0, 0, 0, 1];
        // Where there is no way at all, nothing answers either.
        let sent = socket.send_to(&request, &SocketAddr::new(to, 0).into());
        Ok(sent.is_ok() && (&socket).read(&mut [0; 64]).is_ok())
    })?
}

/// A TCP connection from a namespace.
///
/// # Errors
/// When there is none within `limit`.
pub fn connect(
    space: &Namespace,
    address: SocketAddr,
    limit: Duration,
) -> anyhow::Result<TcpStream> {
    space.run(|| reach(address, limit))?
}

fn reach(address: SocketAddr, limit: Duration) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, limit)
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

fn listen(
    space: &Namespace,
    address: SocketAddr,
    serve: impl Fn(TcpStream) + Send + Sync + 'static,
) -> anyhow::Result<Service> {
    let listener = space
        .run(|| TcpListener::bind(address))?
        .with_context(|| format!("listening on {address}"))?;
    let accepted = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&accepted);
    let serve = Arc::new(serve);
    // A socket stays in the namespace it was made in, so its thread need not enter it.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            theirs.fetch_add(1, Ordering::AcqRel);
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(Service { accepted })
}
