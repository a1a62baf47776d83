//! What a tool sends to the facade to be authenticated.

use keystone_broker::listen::{AuthRequest, Unfit};

pub fn feed(bytes: &[u8]) {
    match AuthRequest::read(bytes) {
        // It was JSON with an identity, and one method.
        Ok(_) => assert!(
            serde_json::from_slice::<serde_json::Value>(bytes).unwrap().pointer("/auth/identity").is_some()
        ),
        // What is refused is not quoted at length: it may be a secret.
        Err(Unfit::Malformed(why)) => assert!(why.len() < 20_000, "{}", why.len()),
        Err(Unfit::Method(_)) => {}
    }
}
