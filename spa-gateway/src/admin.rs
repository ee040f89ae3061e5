//! `spa-admin`.

pub mod cli;
pub mod client;
pub mod doctor;
pub mod init;
pub mod learn;
pub mod openwrt;
pub mod people;
pub mod policy;
pub mod policy_edit;
pub mod policy_gate;
pub mod policy_versions;
pub mod run;
pub mod service;
pub mod show;
