//! Published addresses: a session knows one host by another address, as one address stands for several resources.
//!
//! What is translated is where a packet out of the tunnel goes, before the guard looks at it; so a name opens nothing, and what
//! it stands for must be granted as if there were no name. It lives and ends with its flow, by the same timeout.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use spa_order::{Flow, Opening, Ttl};

use super::super::element;
use super::super::message::Message;
use super::super::sets::{NAMES, names_of};
use super::super::table::{self, Batch, Mode};
use super::{Names, OpenError, Table, elements};

impl Table {
    /// Lets the address a flow is published by lead to its destination.
    pub(super) fn name(&mut self, opening: &Opening, ttl: Ttl) -> Result<(), OpenError> {
        let Some((family, key, leads_to)) = name_key(opening) else {
            return Ok(());
        };
        if let Mode::Sets(_) = self.plan.mode {
            // The administrator's rules translate, or nobody's.
            return Err(OpenError::Kernel(io::ErrorKind::Unsupported.into()));
        }
        self.make_maps().map_err(OpenError::Kernel)?;
        self.put(vec![names_of(family)], &key, Some(leads_to), ttl)
    }

    /// Takes that back, if it still leads there.
    pub(super) fn unname(&mut self, opening: &Opening) -> io::Result<()> {
        let Some((family, key, leads_to)) = name_key(opening) else {
            return Ok(());
        };
        if self.names == Names::None {
            return Ok(());
        }
        let map = names_of(family).shape();
        match self.find(&map, &key)? {
            Some(found) if found.data == Some(leads_to) => self.delete(&map, &key),
            _ => Ok(()),
        }
    }

    /// Which flow is published by which address.
    pub(super) fn named(&mut self) -> io::Result<BTreeMap<Flow, IpAddr>> {
        let mut all = BTreeMap::new();
        if self.names == Names::None {
            return Ok(all);
        }
        for map in &NAMES {
            self.ask(&Message::DumpElements(&map.shape()), |payload| {
                let found = elements(payload).filter_map(|found| {
                    element::named(map.family, &found.key.first, found.data.as_deref()?)
                });
                all.extend(found);
            })?;
        }
        Ok(all)
    }

    fn make_maps(&mut self) -> io::Result<()> {
        if self.names == Names::Made {
            return Ok(());
        }
        let mut batch = Batch::new(&mut self.writer);
        table::naming(&self.plan, |message| batch.push(message));
        batch.send(&mut self.link)?;
        self.names = Names::Made;
        self.made = super::super::shape::shape(&mut self.link)?;
        Ok(())
    }
}

/// The opening with the address it is published by.
pub(super) fn known_as(opening: Opening, names: &BTreeMap<Flow, IpAddr>) -> Opening {
    match opening {
        Opening::Flow(flow) => Opening::Flow(Flow {
            published: names.get(&flow).copied(),
            ..flow
        }),
        Opening::Door(_) => opening,
    }
}

fn name_key(opening: &Opening) -> Option<(super::super::sets::Family, element::Key, Vec<u8>)> {
    match opening {
        Opening::Flow(flow) => element::name_key(flow),
        Opening::Door(_) => None,
    }
}
