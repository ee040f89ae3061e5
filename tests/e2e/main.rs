//! The promises, each kept on real packets between real programs. One paragraph is one promise.
#![forbid(unsafe_code)]

mod access;
mod administration;
mod agent;
mod asked;
mod channel;
mod clock;
mod configuration;
mod control;
mod crash;
mod dark;
mod disk;
mod end;
mod enrolment;
mod fixture;
mod guard;
mod kernel;
mod kill;
mod networks;
mod outside;
mod policy;
mod refused;
mod sandbox;
mod walls;
