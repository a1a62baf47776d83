//! What reads bytes that somebody else wrote, fed with anything. `make fuzz` does the same for longer, and looks where the
//! code has not been yet.

use proptest::prelude::*;
use proptest::sample::Index;

#[path = "../fuzz/targets/api.rs"]
mod api;
#[path = "../fuzz/targets/callback.rs"]
mod callback;
#[path = "../fuzz/targets/clouds.rs"]
mod clouds;
#[path = "../fuzz/targets/facade.rs"]
mod facade;
#[path = "../fuzz/targets/vault.rs"]
mod vault;

/// What each reads when all is well.
const GOOD: [&str; 5] = [
    "clouds: {demo: {auth: {auth_url: 'https://k/v3', protocol: openid}, auth_type: v3broker, regions: [a, {name: b}]}}",
    r#"{"auth":{"identity":{"methods":["application_credential"],"application_credential":{"id":"a","secret":"s"}}}}"#,
    r#"{"cloud":{"name":"demo","auth_url":"https://k/v3","protocol":"openid"},"scope":{"project":{"id":"p"}}}"#,
    "token=gAAAAAB&state=x%20y&code=1+2&error=access_denied",
    "http://127.0.0.1:9990/callback?code=a&state=b&iss=https%3A%2F%2Fidp",
];

/// Bytes without a meaning, letters that have one, and good input with some of either in it.
fn junk() -> impl Strategy<Value = Vec<u8>> {
    let letters = r#"[ -~\n]{0,40}|[{}\[\]:,"'&*!|>%@`#?\n -]{0,60}"#;
    let bytes =
        || prop_oneof![prop::collection::vec(any::<u8>(), 0..300), letters.prop_map(String::into_bytes)];
    let spoiled = (prop::sample::select(&GOOD[..]), any::<Index>(), any::<Index>(), bytes());
    let spoiled = spoiled.prop_map(|(good, at, cut, bytes)| {
        let (at, cut) = (at.index(good.len()), cut.index(12));
        let rest = good.as_bytes().get(at + cut..).unwrap_or_default();
        [&good.as_bytes()[..at], &bytes, rest].concat()
    });
    prop_oneof![bytes(), spoiled]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_vault_s_file(bytes in junk()) {
        vault::feed(&bytes);
    }

    #[test]
    fn what_a_browser_brings(bytes in junk()) {
        callback::feed(&bytes);
    }

    #[test]
    fn a_clouds_yaml(bytes in junk()) {
        clouds::feed(&bytes);
    }

    #[test]
    fn what_a_program_sends_to_the_agent(bytes in junk()) {
        api::feed(&bytes);
    }

    #[test]
    fn what_a_tool_sends_to_the_facade(bytes in junk()) {
        facade::feed(&bytes);
    }
}
