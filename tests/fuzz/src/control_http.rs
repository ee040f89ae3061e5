//! What reaches the daemon from inside a tunnel: requests of the control channel (SPEC §12).

use spa_gateway::channel::read_request;

/// What is understood lies within the bytes, and more bytes behind it do not change how it is understood.
pub fn run(data: &[u8]) {
    let Some((call, used)) = read_request(data) else {
        return;
    };
    assert!(used <= data.len());
    let longer = [data, b"GET / HTTP/1.1\r\n\r\n"].concat();
    let (again, used_again) = read_request(&longer).expect("the same request");
    assert_eq!(used, used_again);
    assert_eq!(format!("{call:?}"), format!("{again:?}"));
}
