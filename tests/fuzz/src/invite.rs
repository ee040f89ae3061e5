//! The line a person copies: what is read writes the same line, byte for byte.

use spa_proto::Invite;

/// One invite has one spelling, but for the host's.
pub fn run(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(invite) = line.parse::<Invite>() else {
        return;
    };
    let again = invite.to_line();
    assert_eq!(again.parse::<Invite>().as_ref(), Ok(&invite));
    let key = |line: &str| line.rsplit('/').next().map(str::to_owned);
    assert_eq!(key(&again), key(line), "two spellings of one key");
}
