#![no_std]
#![forbid(unsafe_code)]
//! Placeholder of the first commit.
extern crate alloc;
