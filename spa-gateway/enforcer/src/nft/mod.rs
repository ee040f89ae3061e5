//! The table `inet spa`: its rules, its sets and what is open in them.
//!
//! `message` is all that is said to nf_tables; `table`, `rules`, `tunnel` and `words` are the ruleset as data;
//! `element` is how doors and flows are written as set elements; `openings` opens, closes, reads back and lists
//! them, with the addresses they are published by, `together` opens many at once; `shape` is what the kernel says it is made of; `follow` does so in tables of others
//! that ask our sets, `guarded` says whether they do, and `ruleset` and `memory` help them; `told` reads what the access
//! log was told; `foreign` looks at the tables of others and never changes one. `libnftnl` writes messages on plain Linux,
//! `plain` in static programs and where the feature `plain-netlink` asks for it.

mod element;
mod expression;
mod follow;
mod foreign;
mod found;
mod guarded;
#[cfg(all(not(target_env = "musl"), any(test, not(feature = "plain-netlink"))))]
mod libnftnl;
mod memory;
mod message;
mod openings;
mod passed;
#[cfg(any(test, target_env = "musl", feature = "plain-netlink"))]
mod plain;
mod rules;
mod ruleset;
mod sets;
mod shape;
mod table;
mod together;
mod told;
mod tunnel;
mod words;
#[cfg(all(test, not(target_env = "musl")))]
mod writers_agree;

pub use follow::{unasked, unguarded};
pub use foreign::warnings;
pub use message::TABLE;
pub use openings::{OpenError, Table};
pub use sets::Family;
pub use table::{AccessLog, Masquerade, Mode, Plan, Port};

#[cfg(not(any(target_env = "musl", feature = "plain-netlink")))]
use libnftnl::Library as Chosen;
#[cfg(any(target_env = "musl", feature = "plain-netlink"))]
use plain::Plain as Chosen;
