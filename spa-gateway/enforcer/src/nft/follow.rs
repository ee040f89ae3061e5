//! Tables of others that ask what we opened: the administrator's (`mode = "sets"`), and OpenWrt's fw4 beside our own.
//!
//! Their owners load them anew whenever they like. Invariant: after a look at what was heard of such a table it has what is open,
//! and no element besides; and an administrator's table that does not guard the tunnel any more has one of ours before it that
//! shuts the tunnel.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use spa_order::{Flow, Opening, Protocol, Ttl};

use super::element::{self, Key};
use super::found::Found;
use super::guarded;
use super::memory::Place;
use super::message::{Element, TABLE};
use super::openings::{OpenError, Table, bare, content_sets};
use super::ruleset::{self, Test};
use super::sets::{FW4, FW4_SETS, Family, Set};
use super::shape::shape;
use super::table::{self, Mode, Plan};
use crate::netlink::{Heard, Link};
use crate::say::say;

/// How far from the end that is meant the end of an element may be: less is not worth a change.
const NEARLY: Duration = Duration::from_secs(1);
/// Every port. `nft` cannot ask for an echo's element as our own table does, so that it stands there with all.
const ALL_PORTS: (u16, u16) = (0, u16::MAX);
/// Where the shipped sets are unless they lie beside us.
const SHIPPED: &str = "/usr/share/spa/nftables/spa.nft";

/// Whether the tunnel is shut by a table of ours for want of the administrator's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shut {
    No,
    Yes,
}

/// What the administrator's table lacks, one line each; nothing in other modes.
///
/// # Errors
/// The kernel's errno.
pub fn unguarded(link: &mut Link, plan: &Plan) -> io::Result<Vec<String>> {
    missing(link, plan, &shipped())
}

fn missing(link: &mut Link, plan: &Plan, shipped: &str) -> io::Result<Vec<String>> {
    let Mode::Sets(table) = plan.mode else {
        return Ok(Vec::new());
    };
    let found = ruleset::read(link, table)?;
    let table = table.to_string_lossy();
    Ok(guarded::missing(&found, plan, &table, shipped))
}

/// The sets of ours that fw4 asks nowhere, one line each; nothing in other modes.
///
/// # Errors
/// The kernel's errno.
pub fn unasked(link: &mut Link, plan: &Plan) -> io::Result<Vec<String>> {
    if plan.mode != Mode::Fw4 {
        return Ok(Vec::new());
    }
    let found = ruleset::read(link, FW4)?;
    let is_asked = |name: &str| {
        let test = Test::In(name.to_owned());
        found.rules.iter().any(|rule| rule.tests.contains(&test))
    };
    let sets = FW4_SETS.iter().map(|(set, _)| set);
    let sets = sets.filter(|set| plan.address(set.family).is_some());
    let names = sets.map(|set| set.name.to_string_lossy().into_owned());
    let lines = names.filter(|name| !is_asked(name)).map(|name| {
        format!(
            "fw4 has no rule that asks set {name}, and so will reject what our table lets pass: run `/etc/init.d/spa-gateway restart`, which tells fw4 of its rules"
        )
    });
    Ok(lines.collect())
}

/// `PREFIX/share/spa` where we run from `PREFIX/sbin`. To be asked before the sandbox, which leaves no file to look for.
pub(super) fn shipped() -> String {
    let beside = || -> Option<PathBuf> {
        let prefix = std::env::current_exe().ok()?;
        let file = prefix
            .parent()?
            .parent()?
            .join("share/spa/nftables/spa.nft");
        file.exists().then_some(file)
    };
    beside().map_or(SHIPPED.to_owned(), |file| file.display().to_string())
}

impl Table {
    /// Whether what was heard tells of a table we follow, and of somebody else's doing.
    pub fn is_anothers(&self, heard: &Heard<'_>) -> bool {
        match self.plan.mode {
            Mode::Own => false,
            Mode::Fw4 => self.tells_of(heard, FW4),
            // The table that shuts the tunnel goes with a second `nft flush ruleset`.
            Mode::Sets(table) => {
                self.tells_of(heard, table) || self.shut == Shut::Yes && self.tells_of(heard, TABLE)
            }
        }
    }

    /// Whether there is one.
    pub fn follows(&self) -> bool {
        self.plan.mode != Mode::Own
    }

    /// Makes it equal to what is open.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn follow(&mut self) -> io::Result<()> {
        match self.plan.mode {
            Mode::Own => Ok(()),
            Mode::Fw4 => passing_over_what_is_gone(self.follow_fw4()),
            Mode::Sets(_) => self.follow_sets(),
        }
    }

    /// Shuts the tunnel where the administrator's table does not guard it.
    ///
    /// # Errors
    /// The kernel's errno; then nothing has changed.
    pub fn shut(mut link: Link, plan: &Plan) -> io::Result<()> {
        table::shut(&mut link, &mut super::Chosen::new(), plan)
    }

    /// Starts with nothing open in tables of others, whatever an earlier run left there.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        match self.plan.mode {
            Mode::Own => Ok(()),
            Mode::Fw4 => passing_over_what_is_gone(self.follow_fw4()),
            Mode::Sets(_) => {
                self.make_equal()?;
                // Of another mode, or because nothing guarded the tunnel: it is guarded now.
                match table::handle(&mut self.link)? {
                    Some(_) => table::remove(&mut self.link, &mut self.writer),
                    None => Ok(()),
                }
            }
        }
    }

    /// How an opening is written here.
    pub(super) fn key(&self, opening: &Opening) -> Place {
        match (self.plan.mode, opening) {
            (Mode::Sets(_), Opening::Flow(flow)) if flow.protocol == Protocol::Icmp => {
                element::key(&Opening::Flow(Flow {
                    ports: ALL_PORTS,
                    ..*flow
                }))
            }
            _ => element::key(opening),
        }
    }

    /// What an element here stands for.
    pub(super) fn opening(&self, set: &Set, key: &Key) -> Option<Opening> {
        match (self.plan.mode, element::opening(set, key)?) {
            (Mode::Sets(_), Opening::Flow(flow)) if flow.protocol == Protocol::Icmp => {
                Some(Opening::Flow(Flow {
                    ports: (0, 0),
                    ..flow
                }))
            }
            (_, opening) => Some(opening),
        }
    }

    /// Remembers what was opened, and opens it where else it is asked for.
    pub(super) fn opened(&mut self, place: Place, ttl: Ttl) -> io::Result<()> {
        let lasts = Duration::from_millis(ttl.as_millis().into());
        match self.plan.mode {
            Mode::Own => Ok(()),
            Mode::Sets(_) => {
                self.memory.keep(place, lasts);
                Ok(())
            }
            Mode::Fw4 => {
                self.memory.keep(place.clone(), lasts);
                // fw4 may be about to start: what is missing then is put there when it has.
                passing_over_what_is_gone(self.mirror(&place))
            }
        }
    }

    /// Forgets what was closed, and closes it where else it is asked for.
    pub(super) fn closed(&mut self, place: &Place) -> io::Result<()> {
        self.memory.forget(place);
        match self.plan.mode {
            Mode::Own | Mode::Sets(_) => Ok(()),
            Mode::Fw4 => passing_over_what_is_gone(self.mirror(place)),
        }
    }

    fn follow_sets(&mut self) -> io::Result<()> {
        let missing = missing(&mut self.link, &self.plan, &self.shipped)?;
        if let Some(line) = missing.first() {
            if self.shut == Shut::No || !self.is_as_made()? {
                table::shut(&mut self.link, &mut self.writer, &self.plan)?;
                self.made = shape(&mut self.link)?;
                self.shut = Shut::Yes;
                say(format_args!(
                    "warning: {line} (until then table inet spa shuts the tunnel)"
                ));
            }
            return Ok(());
        }
        // What is changed under our hands is heard of, and looked at again.
        passing_over_what_is_gone(self.make_equal())?;
        if self.shut == Shut::Yes {
            self.shut = Shut::No;
            if table::handle(&mut self.link)?.is_some() {
                table::remove(&mut self.link, &mut self.writer)?;
            }
            say("the administrator's table guards the tunnel again: what is open is in it");
        }
        Ok(())
    }

    /// Takes out of the administrator's sets what we did not open, and puts in what we did.
    fn make_equal(&mut self) -> io::Result<()> {
        let mut lacking = self.memory.alive();
        let sets: Vec<_> = guarded::wanted(&self.plan).collect();
        for set in sets {
            let shape = set.shape_in(self.home);
            self.empty_of_all(&shape)?;
            for found in self.dump(&shape)? {
                let is_it = |(content, family, key): &Place| {
                    *content == set.content && *family == set.family && *key == found.key
                };
                match lacking.iter().position(|(place, _)| is_it(place)) {
                    // With another end than ours it is one that somebody saved and loaded.
                    Some(at) if lacking.get(at).is_some_and(|(_, left)| found.lasts(*left)) => {
                        lacking.swap_remove(at);
                    }
                    Some(_) => {}
                    None => self.delete(&shape, &found.key)?,
                }
            }
        }
        for ((content, family, key), left) in lacking {
            let wanted = lasting(&key, left);
            match self.place(content_sets(content, family), &key, &wanted) {
                Ok(_) => {}
                Err(OpenError::Kernel(error)) => return Err(error),
                Err(error) => say(format_args!("warning: an opening is not put back: {error}")),
            }
        }
        Ok(())
    }

    /// Makes every address in fw4's sets one of ours, and the other way round.
    fn follow_fw4(&mut self) -> io::Result<()> {
        for (set, contents) in &FW4_SETS {
            let shape = set.shape_in(FW4);
            for found in self.dump(&shape)? {
                let ours = &found.key.first;
                if self.memory.longest(set.family, contents, ours).is_none() {
                    self.delete(&shape, &found.key)?;
                }
            }
        }
        for (place, _) in self.memory.alive() {
            self.mirror(&place)?;
        }
        Ok(())
    }

    /// Lets the address of an opening pass fw4 as long as any opening of it lasts.
    fn mirror(&mut self, (content, family, key): &Place) -> io::Result<()> {
        let width = match family {
            Family::V4 => 4,
            Family::V6 => 16,
        };
        let first = key.first.get(..width).unwrap_or_default().to_vec();
        let key = Key { first, last: None };
        let sets = FW4_SETS
            .iter()
            .filter(|(set, contents)| set.family == *family && contents.contains(content));
        for (set, contents) in sets {
            let shape = set.shape_in(FW4);
            let found = self.find(&shape, &key)?;
            let lasts = found.as_ref().and_then(|found| found.expires_ms);
            let lasts = lasts.map(Duration::from_millis);
            match self.memory.longest(*family, contents, &key.first) {
                None if found.is_some() => self.delete(&shape, &key)?,
                None => {}
                Some(left) if lasts.is_some_and(|lasts| lasts + NEARLY >= left) => {}
                Some(left) if found.is_some() => {
                    self.replace(&shape, &key, &lasting(&key, left))?
                }
                Some(left) => self.insert(&shape, &lasting(&key, left))?,
            }
        }
        Ok(())
    }
}

impl Found {
    /// Whether it lapses when this is over.
    fn lasts(&self, left: Duration) -> bool {
        let expires = self.expires_ms.map(Duration::from_millis);
        expires.is_some_and(|expires| expires.abs_diff(left) <= NEARLY)
    }
}

/// The element of a key, for the rest of its time.
fn lasting(key: &Key, left: Duration) -> Element {
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    Element {
        // A timeout of 0 is none.
        timeout_ms: Some(left.max(1)),
        ..bare(key)
    }
}

/// A table or set that is not there now is made equal when it is heard of.
fn passing_over_what_is_gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EEXIST)) => Ok(()),
        outcome => outcome,
    }
}
