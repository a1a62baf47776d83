//! A cloned repository with a clouds.yaml: the real identity provider and client, and a Keystone of somebody else's.

use std::fs;
use std::sync::Arc;

use keystone_broker::platform::clock::SystemClock;

use super::front::{Front, stack};
use super::program::run;
use super::terminal::Terminal;
use crate::support::keystone::{FEDERATED, Keystone};
use crate::support::sandbox::KSB;

#[test]
fn a_strangers_keystone_gets_no_bearer_without_a_persons_yes() {
    let front = Front::free();
    let client = format!(
        "discovery_endpoint: {}/.well-known/openid-configuration, client_id: cli, project_name: demo, \
         project_domain_name: lab",
        stack("ISSUER")
    );
    // The user is signed in: their browser would give a code without asking anything.
    front.clouds(&[front.entry_at(&front.auth_url(), "demo", &client)]);
    front.token(&[]);
    front.browsers.ended();
    let stranger = Keystone::start(Arc::new(SystemClock));
    let repository = front.sandbox.path("home/cloned");
    fs::create_dir(&repository).unwrap();
    let theirs = front.entry_at(stranger.url(), "demo", &client);
    fs::write(repository.join("clouds.yaml"), format!("clouds:\n{theirs}")).unwrap();

    for words in [&["token"][..], &["login"], &["projects"]] {
        let mut command = front.sandbox.ksb(words);
        command.current_dir(&repository);
        let refused = run(command);
        assert_eq!((refused.code, &*refused.stdout), (Some(1), ""), "{refused:?}");
        assert!(refused.stderr.contains("cloned/clouds.yaml"), "{refused:?}");
        assert!(
            refused.stderr.contains(stranger.url()) && refused.stderr.contains(&stack("ISSUER")),
            "{refused:?}"
        );
        assert!(refused.stderr.contains("ksb trust demo"), "{refused:?}");
    }
    let mut openstack = front.openstack(&["token", "issue"]);
    openstack.current_dir(&repository);
    let refused = run(openstack);
    assert_eq!((refused.code, &*refused.stdout), (Some(1), ""), "{refused:?}");
    assert!(refused.stderr.contains("ksb trust demo"), "{refused:?}");
    let terminal = |answer: &str, then: &str| {
        let line = format!("cd {} && {KSB} login", repository.display());
        let mut terminal = Terminal::start(&front.sandbox, &line, &[("BROWSER", &stack("BROWSER"))]);
        terminal.shows("Sign in there? [y/N] ");
        terminal.types(&format!("{answer}\r"));
        terminal.shows(then);
        terminal
    };
    assert_eq!(terminal("n", "ksb trust demo").ends().1, Some(1));
    assert_eq!(
        (front.browsers_opened(), stranger.requests()),
        (1, 0),
        "nothing was opened, nothing was sent"
    );

    // The same with a page of theirs before the real Keystone: it would ask for a password.
    let page = client.replace(&stack("ISSUER"), &format!("{}/idp", stranger.url()));
    let theirs = front.entry_at(&front.auth_url(), "demo", &page);
    fs::write(repository.join("clouds.yaml"), format!("clouds:\n{theirs}")).unwrap();
    let mut command = front.sandbox.command(KSB);
    command.arg("login").current_dir(&repository);
    assert!(run(command).stderr.contains("ksb trust demo"));
    assert_eq!((front.browsers_opened(), stranger.requests()), (1, 0));

    // After a yes the bearer goes there: that is what the question is about.
    let theirs = front.entry_at(stranger.url(), "demo", &client);
    fs::write(repository.join("clouds.yaml"), format!("clouds:\n{theirs}")).unwrap();
    let yes = terminal("y", "sign in: ");
    stranger.wait_for(FEDERATED, 1);
    assert_eq!(front.browsers_opened(), 2);
    drop(yes);
}
