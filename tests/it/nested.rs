//! `ksb` and other programs within a command of `ksb exec`, as in a Makefile or a wrapper's wrapper.

use std::fs;

use serde_json::Value;

use crate::support::desk::Desk;
use crate::support::sandbox::{KSB, Outcome, end_of};
use crate::support::spawn::start;

fn two_clouds() -> Desk {
    let desk = Desk::new();
    let scope = |project: &str| format!("project_name: {project}\n      project_domain_name: lab");
    desk.sandbox.clouds(&format!(
        "clouds:\n{}{}  plain: {{auth_type: v3password, region_name: north, auth: {{auth_url: 'http://k:5000', username: me}}}}\n",
        desk.entry("demo", &scope("demo")),
        desk.entry("other", &scope("staging")),
    ));
    let secure = desk.sandbox.path("home/.config/openstack/secure.yaml");
    fs::write(secure, "clouds:\n  plain: {auth: {password: hush}}\n").unwrap();
    desk.run_and_sign_in(&["login", "demo"], "alice").ok();
    desk
}

/// Runs a script within `ksb exec`; `$KSB` is `ksb`.
fn within(desk: &Desk, exec: &[&str], script: &str) -> Outcome {
    let mut ksb = desk.sandbox.ksb(&["exec"]);
    ksb.args(exec).args(["--", "sh", "-ec", script]).env("KSB", KSB);
    end_of(start(&mut ksb))
}

#[test]
fn ksb_within_a_command_has_the_user_s_own_entries() {
    let desk = two_clouds();
    let project = |token: &str| {
        let body: Value = serde_json::from_str(&desk.keystone.body_of(token.trim())).unwrap();
        body["token"]["project"]["name"].as_str().unwrap().to_owned()
    };
    let rows: &[(&[&str], &str, &str)] = &[
        // The cloud that the command is for is meant where none is named.
        (&["demo"], "\"$KSB\" token", "demo"),
        (&["other"], "\"$KSB\" token", "staging"),
        (&["demo", "other"], "\"$KSB\" token other", "staging"),
        (&["demo"], "\"$KSB\" token other", "staging"),
        (&["demo"], "OS_CLOUD=other \"$KSB\" token", "staging"),
        (&["demo"], "cd /; \"$KSB\" exec other -- \"$KSB\" token", "staging"),
        (&["demo"], "\"$KSB\" exec other -- \"$KSB\" token demo", "demo"),
        (&["demo"], "\"$KSB\" exec other -- \"$KSB\" exec demo -- \"$KSB\" token", "demo"),
        (&["demo"], "eval \"$(\"$KSB\" env other 2>/dev/null)\"; \"$KSB\" token demo", "demo"),
        (&["demo", "--as", "password"], "\"$KSB\" token", "demo"),
        (&["demo", "--as", "token"], "\"$KSB\" token other", "staging"),
    ];
    for (exec, script, expected) in rows {
        let outcome = within(&desk, exec, script).ok();
        assert_eq!(project(&outcome.stdout), *expected, "{exec:?} {script}: {outcome:?}");
    }
}

#[test]
fn files_that_ksb_names_and_writes_within_a_command_are_those_that_stay() {
    let desk = two_clouds();
    let file = desk.sandbox.path("home/.config/openstack/clouds.yaml");
    let file = file.to_str().unwrap();
    let shown = within(&desk, &["demo"], "cd /; \"$KSB\" clouds show other --json").ok().stdout;
    assert!(shown.contains(file), "{shown}");
    let missing = within(&desk, &["demo"], "cd /; \"$KSB\" token absent");
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains(file) && !missing.stderr.contains("exec-"), "{}", missing.stderr);
    within(&desk, &["demo"], "\"$KSB\" clouds add other --name written").ok();
    assert!(fs::read_to_string(file).unwrap().contains("written"));
}

#[test]
fn a_cloud_of_variables_is_not_there_within_a_command_and_ksb_says_so() {
    let mut desk = Desk::new();
    fs::remove_file(desk.sandbox.path("home/.config/openstack/clouds.yaml")).unwrap();
    let url = desk.keystone.url().to_string();
    for (name, value) in [
        ("OS_AUTH_URL", &*url),
        ("OS_AUTH_TYPE", "v3broker"),
        ("OS_IDENTITY_PROVIDER", "lab-idp"),
        ("OS_PROTOCOL", "openid"),
        ("OS_PROJECT_NAME", "demo"),
        ("OS_PROJECT_DOMAIN_NAME", "lab"),
    ] {
        desk.sandbox.set(name, value);
    }
    let outcome = within(&desk, &[], "\"$KSB\" token");
    assert!(outcome.stderr.ends_with("Try: run this outside of ksb exec\n"), "{outcome:?}");
}

/// The entries of the command's own clouds.yaml.
fn entries_within(desk: &Desk, folder: &str, exec: &[&str]) -> Value {
    let mut ksb = desk.sandbox.ksb(&["exec"]);
    ksb.args(exec).args(["--", "sh", "-c", "cat \"$OS_CLIENT_CONFIG_FILE\" \"$OS_CLIENT_SECURE_FILE\""]);
    let text = end_of(start(ksb.current_dir(desk.sandbox.path(folder)))).ok().stdout;
    serde_json::from_str::<Value>(text.split_once('\n').unwrap().1).unwrap()["clouds"].take()
}

#[test]
fn other_programs_within_a_command_have_the_user_s_other_entries_and_nobody_else_s() {
    let desk = two_clouds();
    let entries = entries_within(&desk, "home", &["demo"]);
    assert_eq!(entries["demo"]["auth_type"], "v3applicationcredential");
    assert_eq!(entries["other"]["auth_type"], "v3broker");
    assert_eq!(entries["other"]["auth"]["project_name"], "staging");
    assert_eq!(entries["plain"]["region_name"], "north");
    assert!(!entries.to_string().contains("hush"), "nothing is copied out of secure.yaml");

    // In a directory that somebody else may have written, its file is in use alone.
    fs::create_dir(desk.sandbox.path("home/cloned")).unwrap();
    let theirs = format!("clouds:\n{}{}", desk.entry("theirs", ""), desk.entry("more", ""));
    fs::write(desk.sandbox.path("home/cloned/clouds.yaml"), theirs).unwrap();
    let in_it = |args: &[&str]| {
        let mut ksb = desk.sandbox.ksb(args);
        ksb.current_dir(desk.sandbox.path("home/cloned")).env("KSB", KSB);
        end_of(start(&mut ksb))
    };
    in_it(&["trust", "theirs"]).ok();
    let names: Vec<_> =
        entries_within(&desk, "home/cloned", &["theirs"]).as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["theirs"]);
    // And stays such a file within the command, wherever that goes.
    let shown =
        in_it(&["exec", "theirs", "--", "sh", "-c", "cd /; \"$KSB\" clouds show more --json"]).ok().stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let source = &shown["cloud"]["source"];
    assert_eq!(source["current_folder"], true, "{shown}");
    assert!(source["file"].as_str().unwrap().ends_with("home/cloned/clouds.yaml"), "{shown}");
}
