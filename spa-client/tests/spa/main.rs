//! `spa` as people and scripts run it: one binary of tests, since they share a gateway.

mod command;
mod gateway;
mod tunnel;
