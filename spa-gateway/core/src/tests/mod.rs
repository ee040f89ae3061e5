//! The gateway in virtual time: one world of a store, a kernel and devices, and a sentence for each promise.

mod access;
mod bounds;
mod channel;
mod clocks;
mod device;
mod doors;
mod effects;
mod ending;
mod idle;
mod inside;
mod kernel;
mod lasting;
mod learning;
mod people;
mod policy;
mod restart;
pub(crate) mod rig;
mod steps;
mod usual;
