//! The user `spa-tunnel` runs as, from `/etc/passwd` or as a number.

use std::fs;
use std::io;

/// A user and its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Why there is no such user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No line of that name.
    #[error(
        "user {0} does not exist: make it with `useradd --system {0}`, or name another as [process] tunnel-user"
    )]
    Unknown(String),
    /// No file.
    #[error("cannot read /etc/passwd: {0}")]
    Passwd(io::Error),
}

impl User {
    /// Looks a name or a number up; a number needs no line, and then is its own group.
    ///
    /// # Errors
    /// See [`UserError`].
    pub fn find(user: &str) -> Result<Self, UserError> {
        let number = user.parse::<u32>().ok();
        let passwd = match (fs::read_to_string("/etc/passwd"), number) {
            (Ok(passwd), _) => passwd,
            (Err(_), Some(_)) => String::new(),
            (Err(error), None) => return Err(UserError::Passwd(error)),
        };
        let line = passwd
            .lines()
            .filter_map(parse)
            .find(|(name, found)| match number {
                Some(uid) => found.uid == uid,
                None => *name == user,
            });
        match (line, number) {
            (Some((_, found)), _) => Ok(found),
            (None, Some(uid)) => Ok(Self { uid, gid: uid }),
            (None, None) => Err(UserError::Unknown(user.to_owned())),
        }
    }
}

/// `name:password:uid:gid:…`
fn parse(line: &str) -> Option<(&str, User)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some((name, User { uid, gid }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_number_are_found() {
        assert_eq!(User::find("root").expect("root"), User { uid: 0, gid: 0 });
        assert_eq!(User::find("0").expect("root"), User { uid: 0, gid: 0 });
        let unlisted = User::find("4000000001").expect("a number");
        assert_eq!(
            unlisted,
            User {
                uid: 4_000_000_001,
                gid: 4_000_000_001
            }
        );
    }

    #[test]
    fn a_missing_name_is_named() {
        let missing = User::find("no-such-user");
        assert!(matches!(missing, Err(UserError::Unknown(name)) if name == "no-such-user"));
    }
}
