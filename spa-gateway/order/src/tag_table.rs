//! The table by which the kernel's filter knows the tag of a knock (SPEC §8 step 0): where a tag stands in it.
//!
//! The enforcer makes it and the program that looks into it; the daemon alone writes it, through memory both
//! share. Invariant: whoever reads slot by slot while the daemon writes finds every tag that was in the table
//! before and after, for a tag keeps its slot. Words are of 32 bits, so that each is written whole on any machine.

use core::sync::atomic::{AtomicU32, Ordering};

/// Words before the first bucket: the first counts strangers, the rest keeps it off the buckets' cache line.
pub const HEADER_WORDS: usize = 16;
/// Tags a bucket holds.
pub const SLOTS: usize = 8;
/// In the first slot of a bucket: more tags belong here than it holds, so all of them pass. No tag's
/// word is even.
pub const ALL_PASS: u32 = 2;
/// The fewest buckets: 64 kB of memory, half full with the five tags each of 1,600 credentials.
const FEWEST: u32 = 2_048;
/// The most: half a megabyte.
const MOST: u32 = 16_384;

/// How large a table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TagTable {
    buckets: u32,
}

impl TagTable {
    /// A table for a gateway that starts with so many credentials. More fit: then some buckets let all pass,
    /// and user space looks at a little more, until the next start.
    #[must_use]
    pub fn for_credentials(credentials: u32) -> Self {
        let buckets = credentials
            .saturating_mul(2)
            .clamp(FEWEST, MOST)
            .next_power_of_two();
        Self { buckets }
    }

    /// Takes a number of buckets; `None` if no table has so many.
    #[must_use]
    pub fn from_buckets(buckets: u32) -> Option<Self> {
        let is_one = buckets.is_power_of_two() && (FEWEST..=MOST).contains(&buckets);
        is_one.then_some(Self { buckets })
    }

    /// Gives the number of buckets, a power of two.
    #[must_use]
    pub const fn buckets(self) -> u32 {
        self.buckets
    }

    /// Gives the number of words.
    #[must_use]
    pub const fn words(self) -> usize {
        HEADER_WORDS + self.buckets as usize * SLOTS
    }

    /// Says in which bucket a tag belongs, and by which word it is known there.
    #[must_use]
    pub const fn place(self, tag: [u8; 8]) -> (u32, u32) {
        let [a, b, c, d, e, f, g, h] = tag;
        let bucket = u32::from_be_bytes([a, b, c, d]) & (self.buckets - 1);
        (bucket, u32::from_be_bytes([e, f, g, h]) | 1)
    }

    /// Says whether a packet with this tag is to be looked at, as the filter in the kernel does: the first slot first.
    #[must_use]
    pub fn passes(self, words: &[AtomicU32], tag: [u8; 8]) -> bool {
        let (bucket, word) = self.place(tag);
        let at = HEADER_WORDS + bucket as usize * SLOTS;
        let slots = words.get(at..at + SLOTS).unwrap_or_default();
        slots.iter().enumerate().any(|(at, slot)| {
            let found = slot.load(Ordering::Acquire);
            found == word || (at == 0 && found == ALL_PASS)
        })
    }

    /// Makes the table hold the tags of `places`, which are sorted, and no other.
    pub fn write(self, words: &[AtomicU32], places: &[(u32, u32)]) {
        let (buckets, _) = words
            .get(HEADER_WORDS..)
            .unwrap_or_default()
            .as_chunks::<SLOTS>();
        let mut rest = places;
        for (bucket, slots) in (0_u32..).zip(buckets) {
            let here = rest.partition_point(|(of, _)| *of <= bucket);
            let (wanted, others) = rest.split_at(here);
            rest = others;
            write_bucket(slots, wanted);
        }
    }
}

/// One bucket; what stays in it is not touched.
fn write_bucket(slots: &[AtomicU32; SLOTS], wanted: &[(u32, u32)]) {
    let wants = |word: u32| wanted.iter().any(|(_, wanted)| *wanted == word);
    let [first, others @ ..] = slots;
    let distinct = wanted.chunk_by(|one, other| one == other).count();
    if distinct > SLOTS {
        // The others stay: who has looked at the first slot already still finds there what was known.
        first.store(ALL_PASS, Ordering::Release);
        return;
    }
    for slot in others {
        let word = slot.load(Ordering::Relaxed);
        if word != 0 && !wants(word) {
            slot.store(0, Ordering::Relaxed);
        }
    }
    // The first slot is written last: as long as it says that all pass, nothing is missed.
    let mut last = first.load(Ordering::Relaxed);
    if !wants(last) {
        last = 0;
    }
    for (_, word) in wanted {
        let stands = last == *word
            || others
                .iter()
                .any(|slot| slot.load(Ordering::Relaxed) == *word);
        if stands {
            continue;
        }
        match others.iter().find(|slot| slot.load(Ordering::Relaxed) == 0) {
            Some(free) => free.store(*word, Ordering::Release),
            None => last = *word,
        }
    }
    first.store(last, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn words(table: TagTable) -> Vec<AtomicU32> {
        (0..table.words()).map(|_| AtomicU32::new(0)).collect()
    }

    /// Bytes that look random and are the same in every run.
    fn tag(number: u64) -> [u8; 8] {
        let mut x = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)).to_be_bytes()
    }

    fn places(table: TagTable, tags: impl Iterator<Item = u64>) -> Vec<(u32, u32)> {
        let mut places: Vec<_> = tags.map(|number| table.place(tag(number))).collect();
        places.sort_unstable();
        places
    }

    #[test]
    fn what_is_written_passes_and_what_was_taken_out_does_not() {
        let table = TagTable::for_credentials(0);
        let words = words(table);
        for round in 0..40_u64 {
            let held = round * 100..round * 100 + 300;
            table.write(&words, &places(table, held.clone()));
            assert!(held.clone().all(|number| table.passes(&words, tag(number))));
            let strangers =
                (1_000_000..1_010_000).filter(|number| table.passes(&words, tag(*number)));
            assert_eq!(strangers.count(), 0);
            assert!(!table.passes(&words, tag(held.start.wrapping_sub(1))));
        }
        table.write(&words, &[]);
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_bucket_that_overflows_keeps_what_a_reader_is_about_to_look_at() {
        let slots: [AtomicU32; SLOTS] = Default::default();
        let loads = || slots.each_ref().map(|slot| slot.load(Ordering::Relaxed));
        let wanted = |most: u32| (0..most).map(|word| (0, 2 * word + 1)).collect::<Vec<_>>();
        write_bucket(&slots, &wanted(8));
        let before = loads();
        write_bucket(&slots, &wanted(9));
        let [first, others @ ..] = loads();
        assert_eq!((first, &others[..]), (ALL_PASS, &before[1..]));
        write_bucket(&slots, &wanted(1));
        let mut left = loads();
        left.sort_unstable();
        assert_eq!(left, [0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_tag_that_stays_keeps_its_slot() {
        let table = TagTable::for_credentials(0);
        let words = words(table);
        let at = |number: u64| {
            let (bucket, word) = table.place(tag(number));
            let begin = HEADER_WORDS + bucket as usize * SLOTS;
            (begin..begin + SLOTS).find(|at| words[*at].load(Ordering::Relaxed) == word)
        };
        table.write(&words, &places(table, 0..3_000));
        let before: Vec<_> = (1_500..3_000).map(at).collect();
        table.write(&words, &places(table, 1_500..4_500));
        assert!(before.iter().all(Option::is_some));
        assert_eq!(before, (1_500..3_000).map(at).collect::<Vec<_>>());
    }

    #[test]
    fn a_bucket_with_too_many_lets_all_pass_until_they_fit_again() {
        let table = TagTable::for_credentials(0);
        let words = words(table);
        let crowd = |count: u32| (0..count).map(|word| (7, 2 * word + 1)).collect::<Vec<_>>();
        let stranger = [0, 0, 0, 7, 0xFF, 0xFF, 0xFF, 0xFF];
        let member = |word: u32| {
            let [e, f, g, h] = (2 * word).to_be_bytes();
            [0, 0, 0, 7, e, f, g, h]
        };
        for (count, all) in [
            (8, false),
            (9, true),
            (30, true),
            (8, false),
            (1, false),
            (9, true),
            (0, false),
        ] {
            table.write(&words, &crowd(count));
            assert_eq!(table.passes(&words, stranger), all, "{count}");
            assert!(
                (0..count).all(|word| table.passes(&words, member(word))),
                "{count}"
            );
        }
    }

    #[test]
    fn tags_that_are_the_same_take_one_slot() {
        let table = TagTable::for_credentials(0);
        let words = words(table);
        let same = [(3, 5); 20];
        table.write(&words, &same);
        let full = words
            .iter()
            .filter(|word| word.load(Ordering::Relaxed) != 0);
        assert_eq!(full.count(), 1);
    }

    #[test]
    fn a_table_grows_with_the_credentials_and_has_an_end() {
        for (credentials, buckets) in [
            (0, 2_048),
            (1_500, 4_096),
            (10_000, 16_384),
            (u32::MAX, 16_384),
        ] {
            let table = TagTable::for_credentials(credentials);
            assert_eq!(table.buckets(), buckets);
            assert_eq!(TagTable::from_buckets(buckets), Some(table));
        }
        for buckets in [0, 1, 1_024, 3_000, 32_768, u32::MAX] {
            assert_eq!(TagTable::from_buckets(buckets), None);
        }
    }
}
