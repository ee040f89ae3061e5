//! Every set of the table. What is open is an element of one of these and nothing else is.
//!
//! An exact flow (one address, one port) sits in a hash set; one with a network or a range of ports in
//! interval sets. The kernel refuses elements of an interval set that overlap in part, and two resources
//! of one session may well do so: so there are four of them, and such a flow goes into the next.

use std::ffi::CStr;

use spa_order::MAX_FLOWS;

use super::message::{CONCAT, CONSTANT, DataShape, INTERVAL, MAP, SetShape, TABLE, TIMEOUT};

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a set's elements say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Content {
    /// source . source port
    Door,
    /// source
    WideDoor,
    /// tunnel . destination . protocol . port, through the gateway
    Flow,
    /// the same with ranges
    FlowRange,
    /// tunnel . destination . protocol . port, to the gateway itself
    Own,
    /// the same with ranges
    OwnRange,
    /// tunnel . published . protocol . port, and the address it stands for
    Name,
}

/// One set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Set {
    /// What its elements say.
    pub content: Content,
    /// Of which family.
    pub family: Family,
    /// Its name.
    pub name: &'static CStr,
    /// Its number in the batch that makes it.
    pub id: u32,
}

const fn set(content: Content, family: Family, name: &'static CStr, id: u32) -> Set {
    Set {
        content,
        family,
        name,
        id,
    }
}

/// Number of the set of knock interfaces.
pub const KNOCK_ID: u32 = 1;
/// Number of the set of ports kept open.
pub const KEEP_OPEN_ID: u32 = 2;

/// All sets of openings.
pub const SETS: [Set; 24] = [
    set(Content::Door, Family::V4, c"door4", 10),
    set(Content::Door, Family::V6, c"door6", 11),
    set(Content::WideDoor, Family::V4, c"door_addr4", 12),
    set(Content::WideDoor, Family::V6, c"door_addr6", 13),
    set(Content::Flow, Family::V4, c"flow4", 14),
    set(Content::Flow, Family::V6, c"flow6", 15),
    set(Content::Own, Family::V4, c"own4", 16),
    set(Content::Own, Family::V6, c"own6", 17),
    set(Content::FlowRange, Family::V4, c"flow_range4_0", 20),
    set(Content::FlowRange, Family::V4, c"flow_range4_1", 21),
    set(Content::FlowRange, Family::V4, c"flow_range4_2", 22),
    set(Content::FlowRange, Family::V4, c"flow_range4_3", 23),
    set(Content::FlowRange, Family::V6, c"flow_range6_0", 24),
    set(Content::FlowRange, Family::V6, c"flow_range6_1", 25),
    set(Content::FlowRange, Family::V6, c"flow_range6_2", 26),
    set(Content::FlowRange, Family::V6, c"flow_range6_3", 27),
    set(Content::OwnRange, Family::V4, c"own_range4_0", 28),
    set(Content::OwnRange, Family::V4, c"own_range4_1", 29),
    set(Content::OwnRange, Family::V4, c"own_range4_2", 30),
    set(Content::OwnRange, Family::V4, c"own_range4_3", 31),
    set(Content::OwnRange, Family::V6, c"own_range6_0", 32),
    set(Content::OwnRange, Family::V6, c"own_range6_1", 33),
    set(Content::OwnRange, Family::V6, c"own_range6_2", 34),
    set(Content::OwnRange, Family::V6, c"own_range6_3", 35),
];

/// The maps of published addresses; only a table that has such an address has them.
pub const NAMES: [Set; 2] = [
    set(Content::Name, Family::V4, c"name4", 40),
    set(Content::Name, Family::V6, c"name6", 41),
];

/// The map of one family.
pub fn names_of(family: Family) -> &'static Set {
    match family {
        Family::V4 => &NAMES[0],
        Family::V6 => &NAMES[1],
    }
}

/// OpenWrt's own table.
pub const FW4: &CStr = c"fw4";

/// The sets OpenWrt's fw4 makes for us, beside our own table: addresses only, since our table asks the rest. Their names carry a
/// number, because fw4 refuses a whole reload that would give a set of one name another type.
pub const FW4_SETS: [(Set, &[Content]); 4] = [
    (set(Content::WideDoor, Family::V4, c"spa1_door4", 50), DOORS),
    (set(Content::WideDoor, Family::V6, c"spa1_door6", 51), DOORS),
    (
        set(Content::WideDoor, Family::V4, c"spa1_session4", 52),
        FLOWS,
    ),
    (
        set(Content::WideDoor, Family::V6, c"spa1_session6", 53),
        FLOWS,
    ),
];

/// What lets an address speak to the WireGuard port.
const DOORS: &[Content] = &[Content::Door, Content::WideDoor];
/// What lets a tunnel address come out of the tunnel.
const FLOWS: &[Content] = &[
    Content::Flow,
    Content::FlowRange,
    Content::Own,
    Content::OwnRange,
];

/// The sets of one content and family, in the order they are tried.
pub fn sets_of(content: Content, family: Family) -> impl Iterator<Item = &'static Set> {
    SETS.iter()
        .filter(move |set| set.content == content && set.family == family)
}

// Data types as `nft list` numbers them.
const T_IPV4: u32 = 7;
const T_IPV6: u32 = 8;
const T_PROTOCOL: u32 = 12;
const T_SERVICE: u32 = 13;
const T_IFNAME: u32 = 41;

/// A concatenation's type: six bits for each field.
const fn concat(types: &[u32]) -> u32 {
    let mut all = 0;
    let mut at = 0;
    while at < types.len() {
        all = (all << 6) | types[at];
        at += 1;
    }
    all
}

const MACHINE: u32 = 1;
const BIG_ENDIAN: u32 = 2;

impl Set {
    /// How the kernel is told of it, in our own table.
    pub fn shape(&self) -> SetShape {
        self.shape_in(TABLE)
    }

    /// The same in another table.
    pub fn shape_in(&self, table: &'static CStr) -> SetShape {
        let address = match self.family {
            Family::V4 => T_IPV4,
            Family::V6 => T_IPV6,
        };
        let (types, fields, key_len): (_, &'static [u8], _) = match (self.content, self.family) {
            (Content::Door, Family::V4) => (concat(&[address, T_SERVICE]), &[4, 2], 8),
            (Content::Door, Family::V6) => (concat(&[address, T_SERVICE]), &[16, 2], 20),
            (Content::WideDoor, Family::V4) => (address, &[], 4),
            (Content::WideDoor, Family::V6) => (address, &[], 16),
            (_, Family::V4) => (
                concat(&[address, address, T_PROTOCOL, T_SERVICE]),
                &[4, 4, 1, 2],
                16,
            ),
            (_, Family::V6) => (
                concat(&[address, address, T_PROTOCOL, T_SERVICE]),
                &[16, 16, 1, 2],
                40,
            ),
        };
        let interval = match self.content {
            Content::FlowRange | Content::OwnRange => INTERVAL,
            Content::Door | Content::WideDoor | Content::Flow | Content::Own | Content::Name => 0,
        };
        let data = (self.content == Content::Name).then_some(DataShape {
            data_type: address,
            len: match self.family {
                Family::V4 => 4,
                Family::V6 => 16,
            },
        });
        let map = if data.is_some() { MAP } else { 0 };
        let concatenated = if fields.is_empty() { 0 } else { CONCAT };
        SetShape {
            table,
            name: self.name,
            id: self.id,
            flags: TIMEOUT | interval | concatenated | map,
            key_type: types,
            key_len,
            fields,
            size: MAX_FLOWS,
            byte_order: BIG_ENDIAN,
            data,
        }
    }
}

/// The set of the knock interfaces' names.
pub fn knock_shape() -> SetShape {
    SetShape {
        table: TABLE,
        name: c"knock",
        id: KNOCK_ID,
        flags: CONSTANT,
        key_type: T_IFNAME,
        key_len: 16,
        fields: &[],
        size: 0,
        byte_order: MACHINE,
        data: None,
    }
}

/// The set of protocol . port kept open.
pub fn keep_open_shape() -> SetShape {
    SetShape {
        table: TABLE,
        name: c"keep_open",
        id: KEEP_OPEN_ID,
        flags: CONSTANT | CONCAT,
        key_type: concat(&[T_PROTOCOL, T_SERVICE]),
        key_len: 8,
        fields: &[1, 2],
        size: 0,
        byte_order: BIG_ENDIAN,
        data: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// How many flows of one session may overlap in part.
    const LAYERS: usize = 4;

    #[test]
    fn names_and_numbers_are_unique_and_every_range_has_all_its_layers() {
        let all = || SETS.iter().chain(&NAMES);
        let names: BTreeSet<_> = all().map(|set| set.name).collect();
        let ids: BTreeSet<_> = all().map(|set| set.id).collect();
        let count = SETS.len() + NAMES.len();
        assert_eq!((names.len(), ids.len()), (count, count));
        for family in [Family::V4, Family::V6] {
            assert_eq!(sets_of(Content::FlowRange, family).count(), LAYERS);
            assert_eq!(sets_of(Content::OwnRange, family).count(), LAYERS);
            assert_eq!(sets_of(Content::Flow, family).count(), 1);
        }
    }

    #[test]
    fn every_set_of_openings_has_timeouts() {
        assert!(SETS.iter().all(|set| set.shape().flags & TIMEOUT != 0));
    }
}
