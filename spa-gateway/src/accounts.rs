//! Users and groups of the system, from `/etc/passwd` and `/etc/group`.
//!
//! Read directly: a gateway's service users are local, and a static binary has no NSS.

use std::io;
use std::path::Path;

use rustix::fs::{Gid, Uid};

use crate::config::UserRef;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Who may use the admin socket besides root.
pub const ADMIN_GROUP: &str = "spa-admin";

/// A user a process can become. Never root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    /// The user.
    pub uid: Uid,
    /// Its main group.
    pub gid: Gid,
}

/// Why a user cannot be used. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No such name.
    #[error(
        "user `{0}` does not exist; run `systemd-sysusers`, or name another under [process], a number will do"
    )]
    Unknown(String),
    /// Root keeps every privilege.
    #[error("[process] names root; name a user without privileges, a number like 64180 will do")]
    Root,
    /// The list itself.
    #[error("cannot read {PASSWD}: {0}; name users under [process] by number")]
    List(#[source] io::Error),
}

/// Finds the user a configuration names.
///
/// # Errors
/// A name that is not listed; root; an unreadable list.
pub fn find(user: &UserRef) -> Result<Account, AccountError> {
    let list = std::fs::read_to_string(PASSWD);
    let account = match user {
        // A number needs no entry; with one, its group is the entry's.
        UserRef::Number(uid) => find_uid(list.as_deref().unwrap_or(""), *uid),
        UserRef::Name(name) => {
            let list = list.map_err(AccountError::List)?;
            find_name(&list, name).ok_or_else(|| AccountError::Unknown(name.clone()))?
        }
    };
    if account.uid.is_root() || account.gid.is_root() {
        return Err(AccountError::Root);
    }
    Ok(account)
}

/// Finds the group of administrators, if the system has one.
#[must_use]
pub fn admin_group() -> Option<Gid> {
    let list = std::fs::read_to_string(GROUP).ok()?;
    group_in(&list, ADMIN_GROUP)
}

/// Tells whether the system lists a user of that name.
#[must_use]
pub fn exists(name: &str) -> bool {
    std::fs::read_to_string(Path::new(PASSWD)).is_ok_and(|list| find_name(&list, name).is_some())
}

fn find_uid(list: &str, uid: u32) -> Account {
    entries(list)
        .find(|(_, listed, _)| *listed == uid)
        .map_or(account(uid, uid), |(_, uid, gid)| account(uid, gid))
}

fn find_name(list: &str, name: &str) -> Option<Account> {
    if let Ok(uid) = name.parse() {
        return Some(find_uid(list, uid));
    }
    entries(list)
        .find(|(listed, _, _)| *listed == name)
        .map(|(_, uid, gid)| account(uid, gid))
}

/// `name:password:uid:gid:…`; a line of another shape is skipped, as the C library does.
fn entries(list: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    list.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((name, uid, gid))
    })
}

/// `name:password:gid:members`.
fn group_in(list: &str, name: &str) -> Option<Gid> {
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let listed = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        (listed == name).then(|| Gid::from_raw(gid))
    })
}

fn account(uid: u32, gid: u32) -> Account {
    Account {
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nspa:x:901:902::/:/bin/false\n";

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        assert_eq!(find_name(LIST, "spa"), Some(account(901, 902)));
        assert_eq!(find_name(LIST, "901"), Some(account(901, 902)));
        assert_eq!(find_name(LIST, "nobody-here"), None);
        assert_eq!(find_uid(LIST, 64_180), account(64_180, 64_180));
    }

    #[test]
    fn root_is_refused_by_name_and_by_number() {
        for root in [
            UserRef::Number(0),
            UserRef::Name("0".to_owned()),
            UserRef::Name("root".to_owned()),
        ] {
            assert!(matches!(find(&root), Err(AccountError::Root)), "{root}");
        }
    }

    #[test]
    fn a_group_is_found() {
        assert_eq!(
            group_in("a:x:5:\nspa-admin:x:77:ana\n", ADMIN_GROUP),
            Some(Gid::from_raw(77))
        );
        assert_eq!(group_in("", ADMIN_GROUP), None);
    }
}
