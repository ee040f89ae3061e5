//! What the demo and the end-to-end tests stand on: namespaces, the wire, real programs in them, and waiting without sleeping.
#![forbid(unsafe_code)]

pub mod foreign;
pub mod gateway;
#[cfg(target_arch = "x86_64")]
pub mod inject;
pub mod machines;
pub mod net;
pub mod packet;
pub mod person;
pub mod phone;
pub mod program;
pub mod programs;
pub mod scan;
pub mod sensor;
pub mod serve;
pub mod story;
pub mod topology;
pub mod wait;
pub mod wire;
