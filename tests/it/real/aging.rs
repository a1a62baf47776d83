//! What takes its time: tokens that live for a minute, and sessions that outlive them. `tests/run` has them beside all
//! others.

mod applies;
mod kept;
mod rebuilt;
mod unattended;

use std::fs;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

use super::front::{Counts, Front, Log, Request, stack};
use super::vault::{KernelKey, keep};
use super::wait;
use crate::support::api::Api;

#[test]
fn tokens_that_live_for_a_minute_are_used_for_most_of_it() {
    let front = Front::free();
    let log = Log::short();
    // A program may have a second sign-in opened although the tokens last no longer than the usual pause.
    let config = front.sandbox.paths().config;
    fs::write(config, "vault = \"memory\"\nfacade_port = 0\n[prompt]\ncool_down = \"1ms\"\n").unwrap();
    let demo = "project_name: demo, project_domain_name: lab";
    front.clouds(&[front.entry_at(&log.url, "demo", demo)]);
    let counts = || Counts { browsers: front.browsers_opened(), ..log.counts() };
    let token = front.token(&[]);
    assert_eq!(front.answer(&["token", "issue", "-f", "value", "-c", "id"]), token);
    assert!(front.answer(&["federation", "project", "list", "-f", "value", "-c", "Name"]).contains("demo"));
    front.token(&["--project", "staging"]);
    assert_eq!(front.token(&[]), token);
    assert_eq!(counts(), Counts { browsers: 1, logins: 1, exchanges: 2 }, "{:?}", log.all());

    // Until there is too little life left in them; then, and only then, somebody has to sign in.
    let resolved: Value =
        serde_json::from_str(&front.ksb(&["clouds", "show", "--json"]).ok().stdout).unwrap();
    let api = Api::new(front.sandbox.paths().socket);
    let served = || api.token_unprompted(&resolved["cloud"], &resolved["scope"]);
    let (pause, limit) = (Duration::from_millis(500), Duration::from_mins(1));
    let refused = wait::every(pause, limit, || Some(served()).filter(|answer| answer.status != 200));
    refused.expect("the token's end").problem("sign-in-needed");
    assert!(front.keystone.accepts(&token), "it is replaced before it ends");
    assert_eq!(counts(), Counts { browsers: 1, logins: 1, exchanges: 2 }, "{:?}", log.all());
    front.browsers.ended();
    assert_ne!(front.token(&[]), token);
    assert_eq!(counts(), Counts { browsers: 2, logins: 2, exchanges: 3 }, "{:?}", log.all());
}

#[test]
fn a_passkey_once_and_then_three_tokens_in_a_row_are_used_up_across_a_kill() {
    let front = Front::take(0, "alice").in_chromium();
    keep(&front, "kernel");
    let log = Log::short();
    let options = format!(
        "discovery_endpoint: {}/.well-known/openid-configuration, client_id: cli, project_name: demo, \
         project_domain_name: lab",
        stack("ISSUER")
    );
    front.clouds(&[front.entry_at(&log.url, "demo", &options)]);
    let issue = ["token", "issue", "-f", "value", "-c", "id"];
    let mut tokens = vec![front.answer(&issue)];
    let _key = KernelKey::of(&front);
    for round in 1..=3 {
        if round == 2 {
            front.sandbox.kill_agent();
        }
        // Tools ask again and again, and are given the same one for as long as it is good.
        let next = wait::every(Duration::from_secs(1), wait::LIMIT, || {
            let outcome = front.ksb_with(&[("KSB_PROMPT", "never")], &["token"]).ok();
            Some(outcome.stdout.trim().to_owned()).filter(|token| !tokens.contains(token))
        });
        let next = next.expect("the next token");
        assert_eq!(front.answer(&issue), next);
        assert!(front.keystone.accepts(&next));
        tokens.push(next);
    }
    assert_eq!(front.browsers_opened(), 1);
    // Each is used for half its minute, but for one whose answer died with the agent; after that one session gave two tokens.
    let all = log.all();
    let exchanges: Vec<_> =
        all.iter().filter(|request| request.path.contains("/protocols/openid/auth")).collect();
    let is_hasty = |pair: &&[&Request]| pair[1].at.duration_since(pair[0].at) < SignedDuration::from_secs(20);
    assert!(exchanges.len() >= tokens.len() - 1, "{exchanges:?}");
    assert!(exchanges.windows(2).filter(is_hasty).count() <= 1, "{exchanges:?}");
    front.ksb(&["logout"]).ok();
    assert!(!front.keystone.accepts(tokens.last().unwrap()));
}
