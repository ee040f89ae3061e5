//! The table `inet spa`: its rules, its sets and what is open in them.
//!
//! `raw` is the one module that speaks to libnftnl; `table`, `rules`, `tunnel` and `words` are the ruleset as
//! data; `element` is how doors and flows are written as set elements; `openings` opens, closes, reads back and
//! lists them; `foreign` looks at the tables of others and never changes one.

mod element;
mod expression;
mod foreign;
mod openings;
mod raw;
mod rules;
mod sets;
mod table;
mod tunnel;
mod words;

pub use foreign::warnings;
pub use openings::{OpenError, Table};
pub use table::{Masquerade, Plan, Port};
