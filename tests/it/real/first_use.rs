//! Promise 1: sign in once, with password and passkey, and the unmodified `openstack` just works.

use std::fs;

use serde_json::Value;

use super::front::{Counts, Front};
use super::program::run;

#[test]
fn one_sign_in_with_a_passkey_serves_ten_commands_in_three_projects() {
    let front = Front::take(0, "alice").in_chromium();
    let projects = ["demo", "staging", "production"];
    front.clouds(&projects.map(|project| front.entry(project, project)));

    // A user at a terminal: nothing but that says that a browser may be opened.
    let answer = front.sandbox.path("answer.json");
    let openstack = front.openstack(&[]).get_program().to_str().unwrap().to_owned();
    let mut terminal = front.sandbox.command("script");
    let words = format!("{openstack} token issue -f json >{}", answer.display());
    terminal.args(["-qec", &words, "/dev/null"]).env("TERM", "xterm").env_remove("KSB_PROMPT");
    let shown = run(terminal).ok().stdout;
    let answer: Value = serde_json::from_slice(&fs::read(&answer).unwrap())
        .unwrap_or_else(|error| panic!("stdout has something else than the answer: {error}"));
    let token = front.keystone.look_at(answer["id"].as_str().unwrap()).expect("a token that Keystone knows");
    assert_eq!(token["user"]["name"], "alice");
    assert_eq!(token["project"]["name"], "demo");
    assert!(shown.contains("ksb: demo: sign in: http://localhost:"), "{shown}");
    assert_eq!(front.counts(), Counts { browsers: 1, logins: 1, exchanges: 1 });

    let [demo, staging, production] = {
        let admin = front.keystone.admin();
        projects.map(|name| admin.find("projects", name))
    };
    let ten = [
        ("demo", "token issue -f value -c project_id", demo.as_str()),
        ("staging", "token issue -f value -c project_id", &staging),
        ("production", "token issue -f value -c project_id", &production),
        ("demo", "--os-project-name staging token issue -f value -c project_id", &staging),
        ("demo", "--os-project-name production token issue -f value -c project_id", &production),
        ("staging", "federation project list -f value -c Name", "production"),
        ("production", "project list --my-projects -f value -c Name", "staging"),
        ("demo", "catalog list -f value -c Name", "keystone"),
        ("staging", "catalog show identity -f value -c endpoints", &front.auth_url()),
        ("demo", "token issue -f value -c project_id", &demo),
    ];
    for (cloud, words, expected) in ten {
        let mut command = front.openstack(&words.split(' ').collect::<Vec<_>>());
        command.env("OS_CLOUD", cloud);
        let outcome = run(command).ok();
        assert!(outcome.stdout.contains(expected), "{cloud}: {words}: {outcome:?}");
        assert_eq!(outcome.stderr, "", "{cloud}: {words}");
    }
    assert_eq!(front.counts(), Counts { browsers: 1, logins: 1, exchanges: 3 }, "{:?}", front.all_requests());

    // `ksb` and `openstack` are one.
    let status = front.ksb(&["status"]).ok().stdout;
    assert!(status.contains(": alice (lab) by lab-idp/openid until "), "{status}");
    for project in projects {
        assert!(status.contains(&format!("    project {project}: token until ")), "{status}");
    }
}
