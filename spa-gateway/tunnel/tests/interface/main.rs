//! The interface of spa-wireguard, with the real `spa-tunnel` behind it, in namespaces of its own; needs root.
//! `SPA_TEST_BACKEND=kernel` holds the kernel's WireGuard to the same promises, where a kernel has it
//! (`tests/vm/wireguard.sh`).

#![forbid(unsafe_code)]

mod carries;
mod lives_and_ends;
mod support;
