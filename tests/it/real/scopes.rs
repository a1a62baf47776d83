//! Projects, domains, no scope, the system; and the token handed on to tools that know nothing of us.

use std::path::Path;

use reqwest::Method;
use serde_json::Value;

use super::front::Front;
use super::keystone::Admin;
use super::program::run;
use crate::support::sandbox::KSB;

#[test]
fn every_scope_that_keystone_grants_and_a_plain_word_for_those_it_does_not() {
    let front = Front::free();
    let of_domain = front.entry_at(&front.auth_url(), "of-domain", "domain_name: lab");
    let of_system = front.entry_at(&front.auth_url(), "of-system", "system_scope: all");
    front.clouds(&[front.entry("demo", "demo"), of_domain, of_system]);
    let look = |token: &str| front.keystone.look_at(token).unwrap();
    let admin = front.keystone.admin();

    let unscoped = look(&front.token(&["--unscoped"]));
    assert_eq!(unscoped["user"]["name"], front.user());
    assert!(unscoped["project"].is_null() && unscoped["catalog"].is_null(), "{unscoped}");
    let grant = Grant::new(&admin, unscoped["user"]["id"].as_str().unwrap());

    // A name without a domain, a name with one, an id: the same project.
    let production = admin.find("projects", "production");
    for words in [
        &["--project", "production"][..],
        &["--project", "production", "--project-domain", "lab"],
        &["--project", &production],
    ] {
        assert_eq!(look(&front.token(words))["project"]["id"], production.as_str());
    }
    let refused = front.ksb(&["token", "--project", "solo"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let why =
        format!("demo: no token for project solo: {} has no role there, or it does not exist", front.user());
    assert!(refused.stderr.contains(&why), "{refused:?}");
    assert!(refused.stderr.contains("Keystone answered 401"), "{refused:?}");
    let remedy =
        "Try: ksb projects demo; if your groups or roles have changed since you signed in: ksb refresh demo";
    assert!(refused.stderr.trim_end().ends_with(remedy), "{refused:?}");
    assert!(refused.stderr.contains("(req-"), "the request id: {refused:?}");

    let mine = |kind: &str| -> Vec<String> {
        let reach: Value = serde_json::from_str(&front.ksb(&["projects", "--json"]).ok().stdout).unwrap();
        let reach = reach[kind].as_array().unwrap();
        let mut names: Vec<_> = reach.iter().map(|each| each["name"].as_str().unwrap().to_owned()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(mine("projects"), ["demo", "production", "staging"]);
    let listed = front.ksb(&["projects"]).ok().stdout;
    assert!(
        listed.lines().any(|line| line.starts_with("project  production") && line.ends_with(&production)),
        "{listed}"
    );

    // A domain, before and after the operator gave the role.
    let refused = front.ksb(&["token", "--domain", "lab"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("Keystone answered 401"), "{refused:?}");
    assert!(mine("domains").is_empty());
    grant.give();
    assert_eq!(mine("domains"), ["lab"]);
    let of_domain = front.token(&["--domain", "lab"]);
    assert_eq!(look(&of_domain)["domain"]["name"], "lab");
    assert_eq!(
        front.answer(&["--os-cloud", "of-domain", "token", "issue", "-f", "value", "-c", "id"]),
        of_domain
    );

    // Keystone 30 crashes on this one.
    let system = ["--os-cloud", "of-system", "token", "issue"];
    for refused in [front.ksb(&["token", "--system"]), run(front.openstack(&system))] {
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("system scope needs a local Keystone user"), "{refused:?}");
    }
    assert_eq!((front.browsers_opened(), front.counts().logins), (1, 1));
}

/// The role `reader` on the domain `lab` for one user; taken back in the end, also from a run that was broken off.
struct Grant<'a> {
    admin: &'a Admin<'a>,
    path: String,
}

impl<'a> Grant<'a> {
    fn new(admin: &'a Admin<'a>, user: &str) -> Self {
        let (lab, reader) = (admin.find("domains", "lab"), admin.find("roles", "reader"));
        let grant = Self { admin, path: format!("/domains/{lab}/users/{user}/roles/{reader}") };
        grant.take_back();
        grant
    }

    fn give(&self) {
        assert_eq!(self.admin.call(Method::PUT, &self.path).status, 204);
    }

    fn take_back(&self) {
        self.admin.call(Method::DELETE, &self.path);
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        self.take_back();
    }
}

#[test]
fn tools_that_know_nothing_of_us_take_the_token_from_their_environment() {
    let front = Front::free();
    front.token(&[]);
    let openstack = front.openstack(&[]).get_program().to_str().unwrap().to_owned();
    let mut shell = front.sandbox.command("sh");
    let words = format!(
        "set -eu; said=$(ksb token demo --project staging --env); eval \"$said\"; \
         {openstack} token issue -f value -c project_id"
    );
    let path = format!("{}:{}", Path::new(KSB).parent().unwrap().display(), std::env::var("PATH").unwrap());
    shell.args(["-c", &words]).env("PATH", path).env_remove("BROWSER").env("KSB_PROMPT", "never");
    let staging = front.keystone.admin().find("projects", "staging");
    assert_eq!(run(shell).ok().stdout.trim(), staging);
    let json: Value = serde_json::from_str(&front.ksb(&["token", "--json"]).ok().stdout).unwrap();
    let token = front.keystone.look_at(json["token_id"].as_str().unwrap()).unwrap();
    assert_eq!(json["body"]["token"]["expires_at"], token["expires_at"]);
    assert_eq!(json["body"]["token"]["audit_ids"], token["audit_ids"]);
    assert_eq!((front.browsers_opened(), front.counts().logins), (1, 1));
}
