//! Holds the oracle tests in `tests/`; there is nothing to build here.
