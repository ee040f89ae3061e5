//! `spa-admin`.

pub mod client;
pub mod init;
pub mod policy_edit;
