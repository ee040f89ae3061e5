//! What the tree promises about itself.
#![forbid(unsafe_code)]
