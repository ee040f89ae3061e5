//! Opens, closes, reads back and lists what is open in the table.
//!
//! Invariant: `open` returns `Ok` only after the kernel itself has shown the element with the timeout that
//! was ordered, and on any failure takes away what it added. In a table of ours the kernel is the only memory, so that nothing
//! can differ from it; what lies in tables of others is in `memory` too, and `follow` makes the two equal.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;

use spa_order::{Connections, Opening, Ttl, Usage};

mod names;

use super::Chosen;
use super::element::Key;
use super::follow::{Shut, shipped};
use super::found::{Found, elements, lists_keys};
use super::guarded::wanted;
use super::memory::Memory;
use super::message::{Element, FAMILY, Message, SetShape, TABLE, Writer as _};
use super::passed::Passed;
use super::sets::{Set, sets_of};
use super::shape::{Part, shape};
use super::table::{self, Batch, Mode, Plan};
use super::told;
use crate::netlink::{Heard, Link, attribute};

/// How often an element may vanish or appear under our hands before we give up.
const ATTEMPTS: usize = 4;

/// Why an opening is not there.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The sets are full, or more than four flows of a session overlap in part.
    #[error("no room for another opening")]
    Full,
    /// The kernel refused.
    #[error("cannot change the table: {0}")]
    Kernel(io::Error),
    /// The kernel took it and shows something else.
    #[error("the table does not show what was added")]
    ReadBack,
}

/// The table `inet spa`.
pub struct Table {
    pub(super) link: Link,
    pub(super) writer: Chosen,
    predecessor: Predecessor,
    pub(super) plan: Plan,
    /// The table the sets are in.
    pub(super) home: &'static CStr,
    /// What is open, where it is not ours alone to say.
    pub(super) memory: Memory,
    /// What went through before an opening got another end.
    pub(super) passed: Passed,
    /// The file to be included in the administrator's.
    pub(super) shipped: String,
    /// Whether a table of ours shuts the tunnel, because the administrator's rules do not guard it.
    pub(super) shut: Shut,
    /// The kernel's number for it.
    handle: Option<u64>,
    /// The kernel's name for the socket that changes it.
    port: u32,
    /// What it was made of.
    pub(super) made: Vec<Part>,
    names: Names,
}

/// Whether published addresses are translated: nobody's packets are looked at for that where there are none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Names {
    /// Not yet.
    None,
    /// There are maps, and a chain that asks them.
    Made,
}

/// Whether there was a table before ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Predecessor {
    /// The machine was guarded already, and stays so.
    Replaced,
    /// It was not.
    Nothing,
}

impl Table {
    /// Puts a new, closed table in the place of whatever `inet spa` there is.
    ///
    /// # Errors
    /// The kernel's errno; then nothing has changed.
    pub fn create(mut link: Link, plan: &Plan) -> io::Result<Self> {
        let mut writer = Chosen::new();
        let predecessor = match table::handle(&mut link)? {
            Some(_) => Predecessor::Replaced,
            None => Predecessor::Nothing,
        };
        let home = match plan.mode {
            Mode::Own | Mode::Fw4 => {
                table::create(&mut link, &mut writer, plan)?;
                TABLE
            }
            Mode::Sets(home) => home,
        };
        let handle = table::handle(&mut link)?;
        let port = link.port()?;
        let mut table = Self {
            port,
            link,
            writer,
            predecessor,
            plan: plan.clone(),
            home,
            memory: Memory::default(),
            passed: Passed::default(),
            shipped: shipped(),
            shut: Shut::No,
            handle,
            made: Vec::new(),
            names: Names::None,
        };
        table.begin()?;
        table.made = shape(&mut table.link)?;
        Ok(table)
    }

    /// Puts a closed table where there is none.
    ///
    /// # Errors
    /// The kernel's errno; then nothing has changed.
    pub fn create_if_absent(mut link: Link, plan: &Plan) -> io::Result<()> {
        match (plan.mode, table::handle(&mut link)?) {
            (Mode::Sets(_), _) | (_, Some(_)) => Ok(()),
            (Mode::Own | Mode::Fw4, None) => table::create(&mut link, &mut Chosen::new(), plan),
        }
    }

    /// Takes the table away, whoever made it. None is taken away already.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn remove_if_there(mut link: Link) -> io::Result<()> {
        match table::handle(&mut link)? {
            Some(_) => table::remove(&mut link, &mut Chosen::new()),
            None => Ok(()),
        }
    }

    /// Whether what was heard tells of our table, and of somebody else's doing.
    pub fn is_meddling(&self, heard: &Heard<'_>) -> bool {
        match self.plan.mode {
            Mode::Own | Mode::Fw4 => self.tells_of(heard, TABLE),
            Mode::Sets(_) => false,
        }
    }

    /// Whether what was heard tells of this table, and of somebody else's doing.
    pub(super) fn tells_of(&self, heard: &Heard<'_>, table: &CStr) -> bool {
        /// `NFT_MSG_NEWGEN` of nf_tables: every change makes one, of whatever table.
        const NEW_GENERATION: u16 = (10 << 8) | 15;
        /// Bytes of `struct nfgenmsg`, the family first; then attributes, of which the table is the first of every kind.
        const NFGEN_LEN: usize = 4;
        const TABLE_NAME: u16 = 1;
        let body = heard.payload.get(NFGEN_LEN..).unwrap_or_default();
        let name = attribute(body, TABLE_NAME);
        heard.kind != NEW_GENERATION
            && heard.payload.first() == Some(&FAMILY)
            && name == Some(table.to_bytes_with_nul())
            && heard.port != self.port
            && heard.port != 0
    }

    /// Whether the table is still the one we made.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn is_there(&mut self) -> io::Result<bool> {
        if let Mode::Sets(_) = self.plan.mode {
            return Ok(true);
        }
        let handle = table::handle(&mut self.link)?;
        Ok(handle.is_some() && handle == self.handle)
    }

    /// Whether nobody else has a say in it.
    pub const fn is_ours_alone(&self) -> bool {
        match self.plan.mode {
            Mode::Own | Mode::Fw4 => true,
            Mode::Sets(_) => false,
        }
    }

    /// Whether every chain and rule of it is the one we made.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn is_as_made(&mut self) -> io::Result<bool> {
        Ok(shape(&mut self.link)? == self.made)
    }

    /// Makes it anew, closed, for the same interfaces and these.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn restore(&mut self, also: &[String]) -> io::Result<()> {
        let new = also.iter().filter(|name| !self.plan.knock.contains(name));
        let new: Vec<_> = new.cloned().collect();
        self.plan.knock.extend(new);
        if let Mode::Sets(_) = self.plan.mode {
            return Ok(());
        }
        table::create(&mut self.link, &mut self.writer, &self.plan)?;
        self.names = Names::None;
        self.passed.clear();
        self.handle = table::handle(&mut self.link)?;
        self.made = shape(&mut self.link)?;
        Ok(())
    }

    /// Takes the table away again, if there was none before: a failed start changes nothing, and a failed
    /// restart leaves the machine closed.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn undo(&mut self) -> io::Result<()> {
        match (self.plan.mode, self.predecessor) {
            (Mode::Sets(_), _) | (_, Predecessor::Replaced) => Ok(()),
            (Mode::Own | Mode::Fw4, Predecessor::Nothing) => {
                table::remove(&mut self.link, &mut self.writer)
            }
        }
    }

    /// Opens, or gives what is open a new ttl.
    ///
    /// # Errors
    /// See [`OpenError`]; then it is not open, or open as it was.
    pub fn open(&mut self, opening: &Opening, ttl: Ttl) -> Result<(), OpenError> {
        self.name(opening, ttl)?;
        let (content, family, key) = self.key(opening);
        let opened = self
            .put(content_sets(content, family), &key, None, ttl)
            .and_then(|()| {
                self.opened((content, family, key), ttl)
                    .map_err(OpenError::Kernel)
            });
        if opened.is_err() {
            // Its error changes nothing about the answer, and a name alone opens nothing.
            let _ = self.unname(opening);
        }
        opened
    }

    /// Puts an element into one of the sets and looks whether it is there.
    fn put(
        &mut self,
        sets: Vec<&'static Set>,
        key: &Key,
        data: Option<Vec<u8>>,
        ttl: Ttl,
    ) -> Result<(), OpenError> {
        let wanted = Element {
            key: key.first.clone(),
            key_end: key.last.clone(),
            timeout_ms: Some(u64::from(ttl.as_millis())),
            data,
        };
        let set = self.place(sets, key, &wanted)?;
        let set = set.shape_in(self.home);
        match self.find(&set, key).map_err(OpenError::Kernel)? {
            Some(found) if found.has_timeout(ttl) && found.data == wanted.data => Ok(()),
            _ => {
                // Its absence or its error changes nothing about the answer.
                let _ = self.delete(&set, key);
                Err(OpenError::ReadBack)
            }
        }
    }

    /// Closes; what is not open is closed.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn close(&mut self, opening: &Opening) -> io::Result<()> {
        let (content, family, key) = self.key(opening);
        for set in sets_of(content, family) {
            // Looked at first. A refused batch makes the kernel wait for every processor, 7 to 35 ms, and at
            // its deadline an opening has mostly lapsed already: a thousand sessions that end together would
            // hold the next door up for a minute. And deleting from an interval set asks for the first key
            // only, so that it would take a wider element that begins there.
            self.passed.forget(set, &key);
            let set = set.shape_in(self.home);
            if self.find(&set, &key)?.is_some() {
                self.delete(&set, &key)?;
            }
        }
        self.closed(&(content, family, key))?;
        self.unname(opening)
    }

    /// Lists everything open.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn list(&mut self) -> io::Result<Vec<(Opening, Usage)>> {
        let names = self.named()?;
        let mut all = Vec::new();
        let mut open = BTreeSet::new();
        let sets: Vec<_> = wanted(&self.plan).collect();
        for set in sets {
            for found in self.dump(&set.shape_in(self.home))? {
                let usage = found.usage(self.passed.of(set, &found.key));
                open.insert((set.id, found.key.clone()));
                let opening = self.opening(set, &found.key);
                all.extend(opening.map(|opening| (names::known_as(opening, &names), usage)));
            }
        }
        self.passed.retain(|of| open.contains(of));
        Ok(all)
    }

    /// Counts the connections of sessions, and those of them that were told to the access log.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn connections(&mut self) -> io::Result<Connections> {
        told::connections(&mut self.link)
    }

    /// All elements of a set.
    pub(super) fn dump(&mut self, shape: &SetShape) -> io::Result<Vec<Found>> {
        let mut all = Vec::new();
        self.ask(&Message::DumpElements(shape), |payload| {
            all.extend(elements(payload));
        })?;
        Ok(all)
    }

    /// Takes everything out of a set that has the element `*`, which has no key and stands for whatever is not there.
    pub(super) fn empty_of_all(&mut self, set: &SetShape) -> io::Result<()> {
        let mut keyless = false;
        self.ask(&Message::DumpElements(set), |payload| {
            keyless |= !lists_keys(payload);
        })?;
        if !keyless {
            return Ok(());
        }
        let mut batch = Batch::new(&mut self.writer);
        batch.push(&Message::EmptySet(set));
        batch.send(&mut self.link)
    }

    /// Adds the element where it fits, or replaces it where it is.
    pub(super) fn place(
        &mut self,
        sets: Vec<&'static Set>,
        key: &Key,
        wanted: &Element,
    ) -> Result<&'static Set, OpenError> {
        for _ in 0..ATTEMPTS {
            let mut home = None;
            for set in &sets {
                let shape = set.shape_in(self.home);
                if let Some(found) = self.find(&shape, key).map_err(OpenError::Kernel)? {
                    home = Some((*set, found.counted()));
                }
            }
            let attempt = match home {
                Some((set, _)) => self
                    .replace(&set.shape_in(self.home), key, wanted)
                    .map(|()| Some(set)),
                None => self.add(&sets, key, wanted),
            };
            match attempt.map_err(|error| error.raw_os_error().ok_or(error)) {
                Ok(Some(set)) => {
                    match home {
                        Some((_, counted)) => self.passed.add(set, key, counted),
                        None => self.passed.forget(set, key),
                    }
                    return Ok(set);
                }
                Ok(None) | Err(Ok(libc::ENFILE)) => return Err(OpenError::Full),
                // It lapsed, or was added, between the look and the change: look again.
                Err(Ok(libc::ENOENT | libc::EEXIST)) => {}
                Err(Ok(code)) => return Err(OpenError::Kernel(io::Error::from_raw_os_error(code))),
                Err(Err(error)) => return Err(OpenError::Kernel(error)),
            }
        }
        Err(OpenError::ReadBack)
    }

    /// Delete and add in one batch: kernels before 6.12 take a second add for done and keep the old expiry.
    pub(super) fn replace(
        &mut self,
        set: &SetShape,
        key: &Key,
        wanted: &Element,
    ) -> io::Result<()> {
        let old = bare(key);
        let mut batch = Batch::new(&mut self.writer);
        batch.push(&Message::DeleteElement(set, &old));
        batch.push(&Message::AddElements(set, std::slice::from_ref(wanted)));
        batch.send(&mut self.link)
    }

    /// Adds an element that is not there.
    pub(super) fn insert(&mut self, set: &SetShape, wanted: &Element) -> io::Result<()> {
        let mut batch = Batch::new(&mut self.writer);
        batch.push(&Message::AddElements(set, std::slice::from_ref(wanted)));
        batch.send(&mut self.link)
    }

    /// `None` when it overlaps something in every set.
    fn add(
        &mut self,
        sets: &[&'static Set],
        key: &Key,
        wanted: &Element,
    ) -> io::Result<Option<&'static Set>> {
        for set in sets {
            let shape = set.shape_in(self.home);
            // Asked first: a refused batch makes the kernel wait for every processor, 7 to 35 ms.
            if key.last.is_some() && self.overlaps(&shape, key)? {
                continue;
            }
            match self.insert(&shape, wanted) {
                Ok(()) => return Ok(Some(set)),
                Err(error) if overlapped(&error, wanted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    pub(super) fn delete(&mut self, set: &SetShape, key: &Key) -> io::Result<()> {
        let old = bare(key);
        let mut batch = Batch::new(&mut self.writer);
        batch.push(&Message::DeleteElement(set, &old));
        match batch.send(&mut self.link) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            outcome => outcome,
        }
    }

    /// Whether the first or the last key lies in an element: what the kernel refuses an interval for.
    fn overlaps(&mut self, set: &SetShape, key: &Key) -> io::Result<bool> {
        for end in [Some(&key.first), key.last.as_ref()].into_iter().flatten() {
            let end = Key {
                first: end.clone(),
                last: Some(end.clone()),
            };
            if self.look(set, &end)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Asks for exactly this element.
    pub(super) fn find(&mut self, set: &SetShape, key: &Key) -> io::Result<Option<Found>> {
        Ok(self.look(set, key)?.filter(|found| found.key == *key))
    }

    /// Asks for the element the first key lies in.
    fn look(&mut self, set: &SetShape, key: &Key) -> io::Result<Option<Found>> {
        let mut found = None;
        let wanted = bare(key);
        let asked = self.ask(&Message::GetElement(set, &wanted), |payload| {
            found = elements(payload).next();
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    fn ask(&mut self, message: &Message<'_>, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let seq = self.link.reserve(1);
        let mut bytes = Vec::with_capacity(256);
        self.writer.append(&mut bytes, message, seq);
        self.link
            .exchange(&bytes, seq, 1, |_, payload| each(payload))
    }
}

pub(super) fn content_sets(
    content: super::sets::Content,
    family: super::sets::Family,
) -> Vec<&'static Set> {
    sets_of(content, family).collect()
}

/// The element without its timeout, as the kernel wants it for looking and deleting.
pub(super) fn bare(key: &Key) -> Element {
    Element {
        key: key.first.clone(),
        key_end: key.last.clone(),
        timeout_ms: None,
        data: None,
    }
}

/// `ENOTEMPTY`: overlaps in part. `EEXIST` for an interval: the same first key with another last one.
fn overlapped(error: &io::Error, wanted: &Element) -> bool {
    match error.raw_os_error() {
        Some(libc::ENOTEMPTY) => true,
        Some(libc::EEXIST) => wanted.key_end.is_some(),
        _ => false,
    }
}
