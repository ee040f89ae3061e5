//! The real `spa-enforcer` in network namespaces of its own, with real packets; one paragraph is one promise.
//!
//! Needs root, `ip`, `nft` and `conntrack` (`make test` installs them); says loudly what it skips without.

mod dark;
mod figures;
mod gateway;
mod lifetime;
mod limits;
mod namespace;
mod others;
mod patience;
mod sessions;
mod sets;
mod sockets;
mod start;
mod together;
mod uplinks;
