//! The whole core between its store, its kernel and a bad network, held against the simulator's obvious gateway.

use spa_sim::events_from;

/// The bytes are a row of events; no promise breaks.
pub fn run(data: &[u8]) {
    if let Err(broken) = spa_sim::run(&events_from(data)) {
        panic!("{broken}");
    }
}
