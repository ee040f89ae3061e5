//! What others do to the ground we stand on: `nft flush ruleset`, an element put in or taken out by hand, an interface
//! that gets another name or is made anew, `wg set`.
//!
//! Each of these would leave the machine open, or deaf, and nobody told. Invariant: whatever is found, a closed
//! table is in place before the process ends; the daemon ends with it and, started again, finds the machine as it is.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use spa_order::{Flow, KnockInterfaces, Opening, Usage};
use spa_wireguard::Altered;

use crate::netlink::{Ear, Link, REQUEST_ACK, Request, attribute, string};
use crate::nft::Table;

// include/uapi/linux/rtnetlink.h, if_link.h
const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
// include/uapi/linux/netfilter/nf_tables.h: elements new and gone, and the generation that every change makes.
const OF_ELEMENTS: [u16; 3] = [NFNL_NFTABLES | 12, NFNL_NFTABLES | 14, NFNL_NFTABLES | 15];
const NFNL_NFTABLES: u16 = 10 << 8;
/// Bytes of `struct ifinfomsg` in front of the attributes, and where the index is in it.
const IFINFO_LEN: usize = 16;
const INDEX_AT: usize = 4;

/// How much longer than ordered the kernel may show an opening: its clock ticks some hundred times a second.
const INEXACT: Duration = Duration::from_secs(1);

/// What has changed under us; one line each.
#[derive(Debug, thiserror::Error)]
pub enum Changed {
    /// Somebody deleted the table.
    #[error(
        "somebody deleted or replaced table inet spa (`nft flush ruleset`, or a reload of nftables.service, does): it is in place again, nothing open; ending, since sessions went with it"
    )]
    TableGone,
    /// Somebody changed the table.
    #[error(
        "somebody changed table inet spa by hand (a rule or an element of it): it was made anew, nothing open; ending, to be made equal to the store by the next start"
    )]
    Meddled,
    /// A knock interface has another name.
    #[error(
        "knock interface {was} is called {is} now: {closed}; ending, write {is} to [knock] interfaces"
    )]
    Renamed {
        /// As configured.
        was: String,
        /// Now.
        is: String,
        /// Whether it is closed, as far as that is ours.
        closed: &'static str,
    },
    /// There is a new interface of the name, which we do not hear.
    #[error("knock interface {0} was made anew: ending, to be started again on the new one")]
    MadeAnew(String),
    /// The tunnel interface has another name, by which no rule knows it.
    #[error(
        "tunnel interface {was} was renamed to {is}: it was removed, for no rule knows that name; ending, to be made anew by the next start"
    )]
    TunnelRenamed {
        /// As configured.
        was: String,
        /// Now.
        is: String,
    },
    /// There is no tunnel interface any more.
    #[error("somebody removed tunnel interface {0}: ending, to be made anew by the next start")]
    TunnelGone(String),
    /// Somebody changed WireGuard itself.
    #[error(
        "somebody changed tunnel interface {name} by hand (`wg set`: {altered}): no peer is left that is not as it was made; ending, to be made equal to the store by the next start"
    )]
    Peers {
        /// The interface.
        name: String,
        /// What.
        altered: Altered,
    },
    /// The kernel does not say.
    #[error("cannot see whether the machine is still closed: {0}")]
    Blind(io::Error),
}

/// Ears, and what they compare.
#[derive(Debug)]
pub struct Watch {
    tables: Ear,
    interfaces: Ear,
    links: Link,
    /// The knock interfaces: name and index.
    knock: Vec<(String, u32)>,
    /// The same of the tunnel, once there is one.
    tunnel: Option<(String, u32)>,
}

impl Watch {
    /// Begins to listen: before the table is made, so that nothing is missed.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn begin(names: &[String], indices: &KnockInterfaces) -> io::Result<Self> {
        let indices = indices.indices().iter().copied();
        Ok(Self {
            tables: Ear::tables()?,
            interfaces: Ear::interfaces()?,
            links: Link::route()?,
            knock: names.iter().cloned().zip(indices).collect(),
            tunnel: None,
        })
    }

    /// Watches over the tunnel interface too, which was made meanwhile.
    pub fn tunnel(&mut self, name: &str, index: u32) {
        self.tunnel = Some((name.to_owned(), index));
    }

    /// What to wait for.
    pub fn poll(&self) -> [PollFd<'_>; 2] {
        [&self.tables, &self.interfaces].map(|ear| PollFd::new(ear, PollFlags::IN))
    }

    /// Looks whether all is as it was, after something was heard.
    ///
    /// # Errors
    /// What is not.
    pub fn look(
        &mut self,
        table: &mut Table,
        opened: &BTreeMap<Opening, Instant>,
    ) -> Result<(), Changed> {
        // Our own orders are heard too, hundreds in a moment, and none of them is a reason to look.
        let (mut meddled, mut others) = (false, false);
        let tables = self.tables.heard(|message| {
            meddled |= table.is_meddling(message);
            others |= table.is_anothers(message);
            meddled || others || !OF_ELEMENTS.contains(&message.kind)
        });
        let interfaces = self.interfaces.heard(|_| true);
        let (tables, interfaces) = (
            tables.map_err(Changed::Blind)?,
            interfaces.map_err(Changed::Blind)?,
        );
        if ![tables, interfaces]
            .iter()
            .any(|heard| heard.matters || heard.lost)
        {
            return Ok(());
        }
        // What was lost may have been of such a table.
        if table.follows() && (others || tables.lost) {
            table.follow().map_err(Changed::Blind)?;
        }
        if !table.is_there().map_err(Changed::Blind)? {
            table.restore(&[]).map_err(Changed::Blind)?;
            return Err(Changed::TableGone);
        }
        // A ruleset of a hundred thousand lines, loaded by somebody, is more than is kept for us to hear.
        meddled = meddled || tables.lost && !is_as_it_was(table, opened).map_err(Changed::Blind)?;
        if meddled {
            table.restore(&[]).map_err(Changed::Blind)?;
            return Err(Changed::Meddled);
        }
        self.look_at_tunnel()?;
        for (name, index) in self.knock.clone() {
            let found = self.name_of(index).map_err(Changed::Blind)?;
            if let Some(is) = found.filter(|is| *is != name) {
                table
                    .restore(std::slice::from_ref(&is))
                    .map_err(Changed::Blind)?;
                let closed = match table.is_ours_alone() {
                    true => "closed under both names",
                    false => "whether it is closed is up to your own ruleset, which may name it",
                };
                return Err(Changed::Renamed {
                    was: name,
                    is,
                    closed,
                });
            }
            let now = self.index_of(&name).map_err(Changed::Blind)?;
            if now.is_some_and(|now| now != index) {
                return Err(Changed::MadeAnew(name));
            }
        }
        Ok(())
    }

    /// What the rules say of the tunnel they say of its name: under another one it would be guarded by nothing.
    fn look_at_tunnel(&mut self) -> Result<(), Changed> {
        let Some((was, index)) = self.tunnel.clone() else {
            return Ok(());
        };
        match self.name_of(index).map_err(Changed::Blind)? {
            None => Err(Changed::TunnelGone(was)),
            Some(is) if is == was => Ok(()),
            Some(is) => Err(Changed::TunnelRenamed { was, is }),
        }
    }

    fn name_of(&mut self, index: u32) -> io::Result<Option<String>> {
        let mut header = [0; IFINFO_LEN];
        header[INDEX_AT..INDEX_AT + 4].copy_from_slice(&index.to_ne_bytes());
        let request = Request::new(RTM_GETLINK, REQUEST_ACK, &header);
        let mut name = None;
        self.ask(request, |link| {
            let attributes = link.get(IFINFO_LEN..).unwrap_or_default();
            name = attribute(attributes, IFLA_IFNAME).map(string);
        })?;
        Ok(name)
    }

    fn index_of(&mut self, name: &str) -> io::Result<Option<u32>> {
        let mut zero_terminated = name.as_bytes().to_vec();
        zero_terminated.push(0);
        let request = Request::new(RTM_GETLINK, REQUEST_ACK, &[0; IFINFO_LEN])
            .attribute(IFLA_IFNAME, &zero_terminated);
        let mut index = None;
        self.ask(request, |link| {
            let bytes = link.get(INDEX_AT..).and_then(|rest| rest.first_chunk());
            index = bytes.map(|bytes| u32::from_ne_bytes(*bytes));
        })?;
        Ok(index)
    }

    /// An interface that is not there is no answer.
    fn ask(&mut self, request: Request, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        match self.links.ask(request, |_, payload| each(payload)) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            outcome => outcome,
        }
    }
}

/// Whether the table is made as we made it, with nothing open in it but what we opened, and for no longer.
fn is_as_it_was(table: &mut Table, opened: &BTreeMap<Opening, Instant>) -> io::Result<bool> {
    if !table.is_ours_alone() {
        return Ok(true);
    }
    let now = Instant::now();
    let ours = |(opening, usage): &(Opening, Usage)| {
        let left = Duration::from_millis(usage.remaining_ms.into());
        opened
            .get(&unpublished(*opening))
            .is_some_and(|until| left <= until.saturating_duration_since(now) + INEXACT)
    };
    Ok(table.is_as_made()? && table.list()?.iter().all(ours))
}

/// An opening without the address it is published by, which may lapse a moment before it does.
pub fn unpublished(opening: Opening) -> Opening {
    match opening {
        Opening::Flow(flow) => Opening::Flow(Flow {
            published: None,
            ..flow
        }),
        Opening::Door(_) => opening,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_name_and_index() {
        let none = KnockInterfaces::new(&[1]).expect("one interface");
        let mut watch = Watch::begin(&["lo".to_owned()], &none).expect("sockets");
        assert_eq!(watch.name_of(1).expect("an answer").as_deref(), Some("lo"));
        assert_eq!(watch.index_of("lo").expect("an answer"), Some(1));
        assert_eq!(watch.index_of("not-there").expect("an answer"), None);
    }
}
