//! Whose knocks wait in a gateway.

use spa_gateway_core::Gateway;
use spa_proto::CredentialId;

/// Gives those of `ids` whose knocks wait. If it is some of them, only the gateway's own list says which: it is read off its `Debug`.
pub(crate) fn waiting(gateway: &Gateway, mut ids: Vec<CredentialId>) -> Vec<CredentialId> {
    match gateway.waiting_knocks() {
        0 => ids.clear(),
        all if all == ids.len() => {}
        _ => {
            let all = format!("{gateway:?}");
            let turns = all
                .split_once("turns: [")
                .and_then(|(_, rest)| rest.split_once(']'));
            ids.retain(|id| turns.is_some_and(|(turns, _)| turns.contains(&format!("{id:?}"))));
        }
    }
    ids
}
