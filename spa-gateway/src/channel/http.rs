//! The head of a request, read strictly: only what a call of SPEC §12 needs, and no way to say it twice.
//!
//! Bytes from a client: no indexing, no allocation they can choose the size of.

use zeroize::Zeroizing;

use super::calls::Problem;

/// The most header lines of a request. A client sends five.
const MAX_HEADERS: usize = 32;

/// What the head of a request says.
#[derive(Debug)]
pub struct Head {
    /// GET, POST or another.
    pub method: Method,
    /// The path as it stands there.
    pub path: String,
    /// What stands behind `Authorization: Bearer`; empty if nothing does.
    pub bearer: Zeroizing<Vec<u8>>,
    /// How many bytes follow; `None` if it does not say.
    pub length: Option<usize>,
    /// The last event its client has seen.
    pub last_event: u64,
    /// The client wants no further request on this connection.
    pub close: bool,
}

/// How it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// GET.
    Get,
    /// POST.
    Post,
    /// Any other.
    Other,
}

/// Reads a head and gives how long it is; `None` if more of it is to come.
///
/// # Errors
/// What the client is told.
pub fn read(bytes: &[u8]) -> Result<Option<(Head, usize)>, Problem> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Problem::HEAD_TOO_LARGE),
        Err(_) => return Err(Problem::NO_REQUEST),
    };
    let (Some(method), Some(path), Some(1)) = (request.method, request.path, request.version)
    else {
        return Err(Problem::NO_REQUEST);
    };
    let mut head = Head {
        method: match method {
            "GET" => Method::Get,
            "POST" => Method::Post,
            _ => Method::Other,
        },
        path: path.to_owned(),
        bearer: Zeroizing::default(),
        length: None,
        last_event: 0,
        close: false,
    };
    for header in request.headers.iter() {
        head.take(header)?;
    }
    Ok(Some((head, length)))
}

impl Head {
    fn take(&mut self, header: &httparse::Header<'_>) -> Result<(), Problem> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("transfer-encoding") {
            return Err(Problem::LENGTH_MISSING);
        }
        if is("content-length") {
            // Twice could mean two lengths to two readers.
            let once = self.length.is_none();
            let length = number(header.value).filter(|_| once);
            self.length = Some(length.ok_or(Problem::NO_REQUEST)?);
        }
        if is("authorization") {
            let value = header.value.split_at_checked(7);
            let bearer = value.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
            let (_, bearer) = bearer
                .filter(|_| self.bearer.is_empty())
                .ok_or(Problem::NO_REQUEST)?;
            self.bearer = Zeroizing::new(bearer.to_vec());
        }
        if is("last-event-id") {
            self.last_event = number(header.value).map_or(0, |id: usize| id as u64);
        }
        if is("connection") {
            self.close = header.value.eq_ignore_ascii_case(b"close");
        }
        Ok(())
    }
}

/// Reads decimal digits and nothing else: no sign, no space, no list.
fn number(value: &[u8]) -> Option<usize> {
    let digits = !value.is_empty() && value.len() <= 9 && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<(Head, usize)>, Problem> {
        read(text.as_bytes())
    }

    #[test]
    fn a_head_says_what_a_call_needs() {
        let text = "POST /v1/renew HTTP/1.1\r\nHost: x\r\nauthorization: bearer 00ff\r\nContent-Length: 14\r\nlast-event-id: 7\r\nConnection: close\r\n\r\n{}";
        let (head, length) = head(text).expect("sound").expect("whole");
        assert_eq!(
            (head.method, head.path.as_str()),
            (Method::Post, "/v1/renew")
        );
        assert_eq!(head.bearer.as_slice(), b"00ff");
        assert_eq!(
            (head.length, head.last_event, head.close),
            (Some(14), 7, true)
        );
        assert_eq!(length, text.len() - 2);
    }

    #[test]
    fn less_than_a_head_is_waited_for() {
        let text = "GET /v1/grants HTTP/1.1\r\nHost: x\r\n\r\n";
        for end in 0..text.len() {
            assert!(head(&text[..end]).expect("sound").is_none(), "{end}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_request() {
        for bad in [
            "GET /v1/grants HTTP/1.0\r\n\r\n",
            "GET /v1/grants\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length : 1\r\n\r\n",
            "GET / HTTP/1.1\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
            "GET / HTTP/1.1\r\nAuthorization: Basic YTpi\r\n\r\n",
            "GET / HTTP/1.1\r\nAuthorization: B\r\n\r\n",
            "\0\0\0\0\r\n\r\n",
        ] {
            assert_eq!(head(bad).expect_err(bad).status, 400, "{bad}");
        }
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(head(chunked).expect_err("chunked").status, 411);
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_HEADERS + 1)
        );
        assert_eq!(head(&many).expect_err("too many").status, 431);
    }
}
