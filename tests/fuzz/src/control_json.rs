//! What reaches a program as JSON: the administrator's requests on `admin.sock`, and both directions of the control
//! channel (SPEC §12), which a client's machine or a hostile gateway writes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use spa_gateway::control::protocol::Request;
use spa_proto::channel::{
    Approve, Event, Grants, Password, Posture, PostureTaken, Rekey, Rekeying, Renew, Renewed,
    Requests, Why,
};

/// What is understood is said the same way again.
pub fn run(data: &[u8]) {
    same::<Request>(data);
    // What a gateway reads.
    same::<Approve>(data);
    same::<Password>(data);
    same::<Posture>(data);
    same::<Rekey>(data);
    same::<Renew>(data);
    // What a client reads.
    same::<Event>(data);
    same::<Grants>(data);
    same::<PostureTaken>(data);
    same::<Rekeying>(data);
    same::<Renewed>(data);
    same::<Requests>(data);
    same::<Why>(data);
}

fn same<T: Serialize + DeserializeOwned>(data: &[u8]) {
    if let Ok(read) = serde_json::from_slice::<T>(data) {
        let written = serde_json::to_vec(&read).expect("what was read can be written");
        let again: T = serde_json::from_slice(&written).expect("and read again");
        assert_eq!(serde_json::to_vec(&again).expect("and written"), written);
    }
}
