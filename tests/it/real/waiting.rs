//! What takes its time: what a person is told who waits in vain, and tokens that live for a minute.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::front::{Counts, Front, Log, Turn, stack};
use super::program::Program;
use super::wait;
use crate::support::api::Api;

#[test]
fn a_person_who_waits_in_vain_is_told_what_keystones_page_means() {
    let mut front = Front::free();
    let _only_here = Turn::wait("port-9999");
    let nowhere = front.entry("nowhere", "demo").replace("lab-idp", "no-such-idp");
    let untrusted = front.entry("untrusted", "demo").replace(&front.callback_port().to_string(), "9999");
    front.clouds(&[nowhere, untrusted]);
    front.sandbox.set("KSB_BROWSER_TIMEOUT", "100");
    let login = |cloud: &str| {
        let mut command = front.sandbox.ksb(&["login", cloud]);
        command.env("KSB_BROWSER_PROFILE", front.sandbox.path(cloud));
        Program::start(command)
    };
    let [nowhere, untrusted] = ["nowhere", "untrusted"].map(login);
    // What Keystone's own page says, ours cannot see.
    front.answered("Keystone's refusal of the origin", |request| {
        request.path.contains("9999") && request.status == 401
    });
    front.answered("Keystone's word on the identity provider", |request| {
        request.path.contains("no-such-idp") && request.status == 404
    });
    let said = untrusted.says("untrusted: still waiting");
    assert!(said.contains("trusted_dashboard = http://localhost:9999/auth/websso/"), "{said}");
    let said = nowhere.says("nowhere: still waiting");
    assert!(said.contains("404") && said.contains("no-such-idp"), "{said}");
    for program in [nowhere, untrusted] {
        program.signal(Signal::INT);
        let outcome = program.ends();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(130), ""), "{outcome:?}");
        assert!(outcome.stderr.contains("the sign-in goes on"), "{outcome:?}");
    }
    assert_eq!(front.counts(), Counts { browsers: 2, logins: 0, exchanges: 0 });
}

#[test]
fn tokens_that_live_for_a_minute_are_used_for_most_of_it() {
    let front = Front::free();
    let log = Log::take(stack("SHORT_FRONTS").split(' ').next().unwrap().parse().unwrap());
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
    let resolved: Value = serde_json::from_str(&front.ksb(&["cloud", "show", "--json"]).ok().stdout).unwrap();
    let api = Api::new(front.sandbox.paths().socket);
    let served = || api.token_unprompted(&resolved["cloud"], &resolved["scope"]);
    let (pause, limit) = (Duration::from_millis(500), Duration::from_secs(60));
    let refused = wait::every(pause, limit, || Some(served()).filter(|answer| answer.status != 200));
    refused.expect("the token's end").problem("sign-in-needed");
    assert!(front.keystone.accepts(&token), "it is replaced before it ends");
    assert_eq!(counts(), Counts { browsers: 1, logins: 1, exchanges: 2 }, "{:?}", log.all());
    front.browsers.ended();
    assert_ne!(front.token(&[]), token);
    assert_eq!(counts(), Counts { browsers: 2, logins: 2, exchanges: 3 }, "{:?}", log.all());
}
