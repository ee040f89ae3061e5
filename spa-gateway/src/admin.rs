//! `spa-admin`.

pub mod cli;
pub mod client;
pub mod doctor;
pub mod init;
pub mod people;
pub mod policy;
pub mod policy_edit;
pub mod run;
pub mod show;
