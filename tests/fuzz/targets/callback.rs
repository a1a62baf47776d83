//! What a browser brings to the callback: a form, or an address.

use keystone_broker::signin::loopback::{response_in, token_in};
use url::Url;

pub fn feed(bytes: &[u8]) {
    if let Some(token) = token_in(bytes) {
        // It becomes a header's value.
        assert!(!token.expose().is_empty() && token.expose().bytes().all(|byte| byte.is_ascii_graphic()));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let local = format!("http://127.0.0.1:1/callback?{text}");
    for url in [text, &local].into_iter().filter_map(|text| Url::parse(text).ok()) {
        if let Some(answer) = response_in(&url) {
            assert!(answer.code.is_some() || answer.error.is_some());
        }
    }
}
