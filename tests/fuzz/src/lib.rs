#![forbid(unsafe_code)]
//! What is fuzzed, one plain function for each target of `fuzz/`: it takes any bytes and panics on a broken promise.
//!
//! `fuzz/fuzz_targets` hands them to libFuzzer; `tests/corpora.rs` replays what was found, on a stable compiler.

pub mod choices;
pub mod config_file;
pub mod control_http;
pub mod control_json;
pub mod datagram;
pub mod gateway_events;
pub mod invite;
mod keys;
pub mod knock_open;
pub mod knock_parse;
pub mod order;
pub mod policy_file;
pub mod reply_open;
pub mod tlv;

/// What a target runs.
pub type Run = fn(&[u8]);

/// Every target by the name of its corpus and its file in `fuzz/fuzz_targets`.
pub const TARGETS: &[(&str, Run)] = &[
    ("config_file", config_file::run),
    ("control_http", control_http::run),
    ("control_json", control_json::run),
    ("datagram", datagram::run),
    ("gateway_events", gateway_events::run),
    ("invite", invite::run),
    ("knock_open", knock_open::run),
    ("knock_parse", knock_parse::run),
    ("order", order::run),
    ("policy_file", policy_file::run),
    ("reply_open", reply_open::run),
    ("tlv", tlv::run),
];
