//! The administrators' socket.

pub mod protocol;
