//! The promises, each kept on real packets between real programs.
#![forbid(unsafe_code)]

mod control;
