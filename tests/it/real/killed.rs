//! Promise 7: the agent may die at any moment; the next program starts another one, and nothing hangs.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use keystone_broker::platform::tcp_owner::LOOPBACK;

use super::front::Front;
use super::program::Program;
use crate::support::sandbox::Outcome;

#[test]
fn the_agent_may_be_killed_at_any_moment() {
    let mut front = Front::free().in_chromium();
    // A browser that somebody closes at once, until there is a file `person`.
    let (script, person) = (front.sandbox.path("browser.sh"), front.sandbox.path("person"));
    fs::write(
        &script,
        format!("#!/bin/sh\n[ ! -e {} ] || exec $KSB_STACK_BROWSER \"$@\"\n", person.display()),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    front.sandbox.set("BROWSER", script);
    let quietly = [("KSB_PROMPT", "never")];

    // Idle.
    front.ksb(&["agent", "start"]).ok();
    front.sandbox.kill_agent();
    assert!(front.ksb(&["status"]).ok().stdout.starts_with("No agent is running"));
    assert_eq!(front.ksb_with(&quietly, &["token"]).code, Some(75), "a new agent answers");

    // While one program waits for a user.
    let waiting = front.start(&["token"]);
    waiting.says("ksb: demo: sign in: ");
    front.sandbox.kill_agent();
    gave_up(&waiting.ends());
    port_is_free(&front);

    // While twenty do. The plugin starts the agent again and goes on, with a user this time.
    let openstack = || Program::start(front.openstack(&["token", "issue", "-f", "value", "-c", "id"]));
    let plugins: Vec<_> = (0..2).map(|_| openstack()).collect();
    let others: Vec<_> = (0..18).map(|_| front.start(&["token"])).collect();
    for program in plugins.iter().chain(&others) {
        program.says("ksb: demo: sign in");
    }
    fs::write(&person, "").unwrap();
    front.sandbox.kill_agent();
    for program in others {
        gave_up(&program.ends());
    }
    let tokens: Vec<_> = plugins.into_iter().map(|program| program.ends().ok().stdout).collect();
    assert_eq!(front.counts().logins, 1);
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(front.token(&[]), tokens[0].trim());
    front.browsers.ended();

    // Signed in: that is forgotten. And again while the browser shows the identity provider's page.
    front.sandbox.kill_agent();
    assert_eq!(front.ksb_with(&quietly, &["token"]).code, Some(75));
    front.sandbox.set("KSB_BROWSER_PROFILE", front.sandbox.path("another"));
    front.requests();
    let waiting = front.start(&["token"]);
    front.answered("the way to the identity provider", |request| {
        request.path.contains("/websso") && request.status == 302 && request.agent.contains("HeadlessChrome")
    });
    front.sandbox.kill_agent();
    gave_up(&waiting.ends());
    port_is_free(&front);
    // The old page is still open somewhere, and comes back to a port that is somebody else's by now.
    front.sandbox.set("KSB_BROWSER_PROFILE", front.sandbox.path("a third"));
    assert!(front.keystone.accepts(&front.token(&[])));
}

/// A `ksb` whose agent was killed says so and ends.
#[track_caller]
fn gave_up(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.stdout, "");
    let last = outcome.stderr.lines().last().unwrap();
    assert!(last.contains("the agent is gone") && last.contains("run your command again"), "{outcome:?}");
}

#[track_caller]
fn port_is_free(front: &Front) {
    for ip in LOOPBACK {
        TcpListener::bind((ip, front.callback_port())).unwrap();
    }
}
