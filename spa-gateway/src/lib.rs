//! The gateway daemon and its administration: everything that touches the world.
//!
//! All decisions are `spa-gateway-core`'s; this crate reads knocks, keeps the store,
//! performs effects strictly in order, and speaks with administrators.
#![deny(unsafe_code)]

#[macro_use]
mod out;

pub mod access;
pub mod accounts;
pub mod admin;
pub mod audit;
pub mod calendar;
pub mod capture;
pub mod channel;
pub mod checksum;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod enforcer_link;
pub mod explain;
pub mod files;
pub mod network;
pub mod policy_file;
pub mod preflight;
pub mod reply;
pub mod sandbox;
pub mod store;
