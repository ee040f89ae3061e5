//! What reaches the daemon as JSON: the administrator's requests on `admin.sock`.

use spa_gateway::control::protocol::Request;

/// What is understood is said the same way again.
pub fn run(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let again = serde_json::to_vec(&request).expect("a request can be written");
        let read: Request = serde_json::from_slice(&again).expect("and read again");
        assert_eq!(read, request);
    }
}
