//! Opens many at once: one look at all, one transaction, one look back, instead of three calls and more for each.
//!
//! Invariant: what is given out as opened was shown by the kernel with the timeout that was ordered. Whatever is not as
//! simple as that (an interval, a published address, an opening that comes twice, a refused transaction) is opened by itself, by
//! [`Table::open`], which finds out and says why.

use std::collections::BTreeSet;
use std::io;

use spa_order::{Opening, Ttl};

use super::element::Key;
use super::found::{Found, elements};
use super::message::{Element, Message, Writer as _};
use super::openings::{OpenError, Table, bare};
use super::sets::{Set, sets_of};
use super::table::Batch;
use crate::netlink::{MOST_QUESTIONS, Questions};

/// One exact opening, ready to be written.
struct Exact {
    /// Its place among all that are wanted.
    place: usize,
    set: &'static Set,
    key: Key,
    ttl: Ttl,
}

impl Table {
    /// Opens all of these, or gives what is open a new ttl; the outcomes are in their order.
    pub fn open_all(&mut self, wanted: &[(Opening, Ttl)]) -> Vec<Result<(), OpenError>> {
        let mut opened = vec![false; wanted.len()];
        for exact in self.exact(wanted).chunks(MOST_QUESTIONS) {
            // A failure leaves all of them to be tried one by one, and each then has its own.
            for place in self.open_exact(exact).unwrap_or_default() {
                if let Some(opened) = opened.get_mut(place) {
                    *opened = true;
                }
            }
        }
        let each = wanted.iter().zip(opened);
        each.map(|((opening, ttl), opened)| {
            if opened {
                self.opened(self.key(opening), *ttl)
                    .map_err(OpenError::Kernel)
            } else {
                self.open(opening, *ttl)
            }
        })
        .collect()
    }

    /// Gives the places of those that the kernel shows as they were ordered.
    fn open_exact(&mut self, wanted: &[Exact]) -> io::Result<Vec<usize>> {
        let before = self.look_all(wanted)?;
        let home = self.home;
        let mut batch = Batch::new(&mut self.writer);
        for (one, before) in wanted.iter().zip(&before) {
            let shape = one.set.shape_in(home);
            let element = Element {
                timeout_ms: Some(u64::from(one.ttl.as_millis())),
                ..bare(&one.key)
            };
            // Deleted first: kernels before 6.12 take a second add for done and keep the old expiry.
            if before.is_some() {
                batch.push(&Message::DeleteElement(&shape, &bare(&one.key)));
            }
            batch.push(&Message::AddElements(
                &shape,
                std::slice::from_ref(&element),
            ));
        }
        batch.send(&mut self.link)?;
        for (one, before) in wanted.iter().zip(&before) {
            match before {
                Some(before) => self.passed.add(one.set, &one.key, before.counted()),
                None => self.passed.forget(one.set, &one.key),
            }
        }
        let shown = self.look_all(wanted)?;
        let as_ordered = wanted.iter().zip(shown).filter(|(one, shown)| {
            shown
                .as_ref()
                .is_some_and(|shown| shown.key == one.key && shown.has_timeout(one.ttl))
        });
        Ok(as_ordered.map(|(one, _)| one.place).collect())
    }

    /// Asks for all of them in one call.
    fn look_all(&mut self, wanted: &[Exact]) -> io::Result<Vec<Option<Found>>> {
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        let first = self.link.reserve(count);
        let mut questions = Questions::default();
        for (seq, one) in (first..).zip(wanted) {
            let shape = one.set.shape_in(self.home);
            let key = bare(&one.key);
            questions.ask(|bytes| {
                self.writer
                    .append(bytes, &Message::GetElement(&shape, &key), seq);
            });
        }
        let mut all: Vec<Option<Found>> = wanted.iter().map(|_| None).collect();
        self.link.gather(&questions, first, |place, payload| {
            if let Some(found) = all.get_mut(place) {
                *found = elements(payload).next();
            }
        })?;
        Ok(all)
    }

    /// Those that one element of a set without intervals stands for; of the same opening the first.
    fn exact(&self, wanted: &[(Opening, Ttl)]) -> Vec<Exact> {
        let mut seen = BTreeSet::new();
        let all = wanted.iter().enumerate();
        all.filter_map(|(place, (opening, ttl))| {
            if matches!(opening, Opening::Flow(flow) if flow.published.is_some()) {
                return None;
            }
            let (content, family, key) = self.key(opening);
            let set = sets_of(content, family).next()?;
            let is_first = key.last.is_none() && seen.insert((set.id, key.first.clone()));
            is_first.then_some(Exact {
                place,
                set,
                key,
                ttl: *ttl,
            })
        })
        .collect()
    }
}
