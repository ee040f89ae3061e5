//! `spa-admin`.

pub mod client;
pub mod policy_edit;
