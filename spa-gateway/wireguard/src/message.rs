//! Messages between [`Interface`](crate::Interface) and `spa-tunnel`.

/// Most networks one peer may have.
pub const MAX_ALLOWED: usize = 128;
