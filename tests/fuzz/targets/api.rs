//! What a program sends to the agent's socket.

use keystone_broker::api::{CloudRequest, LoginRequest, LogoutRequest, TokenRequest, UnlockRequest};
use keystone_broker::model::Identity;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What was understood means the same when it is said again.
fn read<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(bytes).ok()?;
    let said = serde_json::to_vec(&read).unwrap();
    let again: T = serde_json::from_slice(&said).expect("our own words");
    assert_eq!(serde_json::to_vec(&again).unwrap(), said);
    Some(read)
}

pub fn feed(bytes: &[u8]) {
    if let Some(request) = read::<TokenRequest>(bytes) {
        let cloud = request.cloud;
        // One that nobody checks shares its sign-in with none that somebody does.
        let mut unchecked = cloud.clone();
        unchecked.tls.verify = !cloud.tls.verify;
        assert_ne!(Identity::of(&cloud, &[0; 32]), Identity::of(&unchecked, &[0; 32]));
        assert!(!format!("{:?}", cloud.keystone_root()).is_empty());
    }
    read::<LoginRequest>(bytes);
    read::<LogoutRequest>(bytes);
    read::<CloudRequest>(bytes);
    read::<UnlockRequest>(bytes);
}
