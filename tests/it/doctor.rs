//! `ksb doctor`: what is wrong is named with what helps, and nothing else is.

mod faults;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::desk::Desk;
use crate::support::sandbox::{KSB, Outcome, Sandbox, end_of};
use crate::support::spawn;

fn findings(outcome: &Outcome) -> Vec<Value> {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

/// What a check came to: how it ended, in which words, and what helps.
#[track_caller]
fn of<'f>(findings: &'f [Value], check: &str, subject: &str) -> (&'f str, &'f str, &'f str) {
    let is_it =
        |each: &&Value| each["check"] == check && each["subject"].as_str().unwrap_or_default() == subject;
    let found = findings.iter().find(is_it).unwrap_or_else(|| panic!("no {check} {subject}: {findings:#?}"));
    let text = |key: &str| found[key].as_str().unwrap_or_default();
    (text("finding"), text("detail"), text("remedy"))
}

/// A doctor's word that something is wrong, with these words in what is said and what helps.
#[track_caller]
fn assert_names(findings: &[Value], (check, subject): (&str, &str), finding: &str, why: &str, helps: &str) {
    let (ended, detail, remedy) = of(findings, check, subject);
    assert!(
        ended == finding && detail.contains(why) && remedy.contains(helps),
        "{ended}: {detail}; {remedy}"
    );
}

fn bad(findings: &[Value]) -> Vec<&Value> {
    findings.iter().filter(|each| ["warn", "fail"].contains(&each["finding"].as_str().unwrap())).collect()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn desk() -> Desk {
    Desk::new().without_pythons()
}

fn program(sandbox: &Sandbox, name: &str, script: &str) -> std::path::PathBuf {
    let file = sandbox.path("bin").join(name);
    fs::write(&file, script).unwrap();
    chmod(&file, 0o755);
    file
}

#[test]
fn a_healthy_desk_is_well_and_what_cannot_be_known_is_said() {
    let desk = desk();
    let before = desk.run(&["doctor", "--json"]).ok();
    let found = findings(&before);
    assert_eq!(bad(&found), Vec::<&Value>::new());
    let callback = format!("http://localhost:{}/auth/websso/", desk.port);
    let helps = "ksb doctor demo --try";
    assert_names(&found, ("trusted_dashboard", "demo"), "unknown", &callback, helps);

    desk.run_and_sign_in(&["doctor", "--try"], "alice").ok();
    let found = findings(&desk.run(&["doctor", "demo", "--json"]).ok());
    assert_eq!(bad(&found), Vec::<&Value>::new());
    assert_names(&found, ("trusted_dashboard", "demo"), "ok", &callback, "");
    let unknown: Vec<_> = found.iter().filter(|each| each["finding"] == "unknown").collect();
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    assert_eq!(unknown[0]["check"], "service-worker");
    for check in ["dns", "tls", "proxy", "discovery", "clock", "websso", "entry"] {
        assert_eq!(of(&found, check, "demo").0, "ok");
    }
    for check in [
        "socket",
        "socket-directory",
        "state-directory",
        "clouds.yaml",
        "agent",
        "vault",
        "facade",
        "environment",
    ] {
        assert_eq!(of(&found, check, "").0, "ok");
    }
    assert_eq!(of(&found, "callback-port", &desk.port.to_string()).0, "ok");

    let said = desk.run(&["doctor"]).ok().stdout;
    assert!(said.lines().last().unwrap().ends_with("checks: 1 cannot be known from here"), "{said}");
    assert!(said.lines().all(|line| line.starts_with(char::is_numeric) || line.len() > 8), "{said}");
}

#[test]
fn looking_starts_no_agent_where_there_is_no_cloud_to_ask() {
    let sandbox = Sandbox::new();
    let found = findings(&sandbox.run(&["doctor", "--json"]).ok());
    assert!(sandbox.agent_pid().is_none());
    assert_names(&found, ("agent", ""), "ok", "none runs", "");
    assert_names(&found, ("entry", ""), "skipped", "uses v3broker", "ksb clouds adopt --all");
    assert_eq!(of(&found, "vault", "").0, "skipped");
}

#[test]
fn files_that_others_can_read_or_change_are_named_with_their_chmod() {
    let desk = desk();
    desk.run(&["agent", "start"]).ok();
    let paths = desk.sandbox.paths();
    let secure = desk.sandbox.path("home/.config/openstack/secure.yaml");
    fs::write(&secure, "clouds:\n  demo: {auth: {}}\n").unwrap();
    let clouds = secure.with_file_name("clouds.yaml");
    for (check, path, mode, finding, why) in [
        ("socket", &paths.socket, 0o666, "fail", "has mode 0666"),
        ("socket-directory", &paths.socket.parent().unwrap().to_owned(), 0o755, "warn", "has mode 0755"),
        ("state-directory", &paths.state, 0o777, "fail", "has mode 0777"),
        ("config", &paths.config, 0o666, "fail", "others than you may change it"),
        ("clouds.yaml", &clouds, 0o666, "fail", "others than you may change it"),
        ("secure.yaml", &secure, 0o644, "warn", "others than you may use it"),
    ] {
        let before = fs::metadata(path).unwrap().permissions();
        chmod(path, mode);
        let found = findings(&desk.run(&["doctor", "--json"]));
        assert_names(&found, (check, ""), finding, why, "chmod ");
        assert!(of(&found, check, "").1.contains(path.to_str().unwrap()));
        fs::set_permissions(path, before).unwrap();
    }
    // Whoever may write to a directory above can put another file there.
    let folder = desk.sandbox.path("home/.config");
    chmod(&folder, 0o777);
    let outcome = desk.run(&["doctor", "--json"]);
    assert_eq!(outcome.code, Some(1));
    assert_names(&findings(&outcome), ("clouds.yaml", ""), "fail", "can be replaced by others", "chmod go-w");
    chmod(&folder, 0o700);

    fs::write(&paths.config, "vaultt = 1\n").unwrap();
    let found = findings(&desk.run(&["doctor", "--json"]));
    assert_names(&found, ("config", ""), "fail", "vaultt", "correct ");
}

#[test]
fn a_stranger_at_the_callback_port_is_named() {
    let desk = desk();
    let squatter = spawn::undisturbed(|| TcpListener::bind(("127.0.0.1", desk.port)).unwrap());
    let outcome = desk.run(&["doctor", "--json"]);
    assert_eq!(outcome.code, Some(1));
    let whose = format!("(process {})", std::process::id());
    assert_names(
        &findings(&outcome),
        ("callback-port", &desk.port.to_string()),
        "fail",
        &whose,
        "trusted_dashboard, and set redirect_port",
    );
    drop(squatter);
    desk.run(&["doctor"]).ok();
}

#[test]
fn variables_that_win_are_named_without_their_values() {
    let mut desk = desk();
    desk.sandbox.set("OS_TOKEN", "canary-token").set("OS_AUTH_TYPE", "v3token").set("OS_CLOUD", "nowhere");
    let outcome = desk.run(&["doctor", "--json"]);
    assert!(!outcome.stdout.contains("canary"), "{outcome:?}");
    let found = findings(&outcome);
    assert_names(&found, ("environment", ""), "warn", "OS_AUTH_TYPE OS_TOKEN", "unset OS_AUTH_TYPE OS_TOKEN");
    let lost = found.iter().find(|each| each["finding"] == "fail").unwrap();
    assert_eq!(lost["detail"], "OS_CLOUD=nowhere names no entry of clouds.yaml");
}

#[test]
fn variables_that_win_over_one_key_or_choose_the_file_are_named_each() {
    let mut desk = desk();
    let usual = desk.sandbox.path("home/.config/openstack");
    let other = desk.sandbox.path("home/other.yaml");
    fs::copy(usual.join("clouds.yaml"), &other).unwrap();
    fs::write(usual.join("secure.yaml"), "clouds: {}\n").unwrap();
    chmod(&usual.join("secure.yaml"), 0o600);
    let well = |desk: &Desk| of(&findings(&desk.run(&["doctor", "--json"])), "environment", "").0 == "ok";
    for (name, value, why, helps) in [
        ("OS_CACERT", "", "wins over `cacert`", "write `cacert` into the entry"),
        ("OS_CERT", "", "wins over `cert`", "unset OS_CERT;"),
        ("OS_KEY", "", "wins over `key`", "unset OS_KEY;"),
        ("OS_REGION_NAME", "", "wins over `region_name`", "unset OS_REGION_NAME;"),
        ("OS_INTERFACE", "", "wins over `interface`", "unset OS_INTERFACE;"),
        ("OS_CLIENT_CONFIG_FILE", "other.yaml", "clouds.yaml", "unset OS_CLIENT_CONFIG_FILE"),
        ("OS_CLIENT_SECURE_FILE", "other.yaml", "secure.yaml", "unset OS_CLIENT_SECURE_FILE"),
    ] {
        assert!(well(&desk), "before {name}");
        // Values show in no finding, but for the names of files.
        desk.sandbox.set(name, if value.is_empty() { "/canary" } else { value });
        let found = findings(&desk.run(&["doctor", "--json"]));
        assert_names(&found, ("environment", ""), "warn", why, helps);
        let said = of(&found, "environment", "").1;
        assert!(said.starts_with(name) && said.contains(value) && !said.contains("canary"), "{said}");
        desk.sandbox.set(name, "");
    }
}

#[test]
fn a_proxy_before_the_entries_of_clouds_add_is_told() {
    let mut desk = desk();
    desk.run_and_sign_in(&["login"], "alice").ok();
    desk.run(&["clouds", "add"]).ok();
    desk.sandbox.set("HTTP_PROXY", "http://127.0.0.1:9");
    let found = findings(&desk.run(&["doctor", "--json"]));
    assert_names(&found, ("environment", ""), "warn", "would ask the proxy", "export NO_PROXY='127.0.0.1,");
}

#[test]
fn an_agent_whose_program_was_replaced_is_told_apart() {
    let desk = desk();
    // As an upgrade leaves it.
    let old = desk.sandbox.path("bin/ksb");
    spawn::copy(KSB, &old);
    let mut ensure = desk.sandbox.command(&old);
    end_of(spawn::start(ensure.args(["agent", "start"]))).ok();
    desk.run(&["doctor"]).ok();
    fs::remove_file(&old).unwrap();
    let found = findings(&desk.run(&["doctor", "--json"]).ok());
    assert_names(&found, ("agent", ""), "warn", "was replaced or removed", "ksb agent stop");
    desk.run(&["agent", "stop"]).ok();
    assert_names(&findings(&desk.run(&["doctor", "--json"]).ok()), ("agent", ""), "ok", "none runs", "");
}

#[test]
fn an_agent_that_hangs_or_cannot_be_reached_is_told_apart() {
    let desk = desk();
    desk.run(&["agent", "start"]).ok();
    let pid = desk.sandbox.agent_pid().unwrap();
    let process = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    let outcome = desk.run(&["doctor", "--json"]);
    kill_process(process, Signal::CONT).unwrap();
    assert_eq!(outcome.code, Some(1));
    let helps = format!("kill -9 {pid}");
    assert_names(&findings(&outcome), ("agent", ""), "fail", "does not answer within 5 s", &helps);

    // A lock without a socket: an agent that is stuck at its start or its end.
    kill_process(process, Signal::STOP).unwrap();
    fs::remove_file(desk.sandbox.paths().socket).unwrap();
    let found = findings(&desk.run(&["doctor", "--json"]));
    kill_process(process, Signal::KILL).unwrap();
    assert_names(&found, ("agent", ""), "fail", &format!("process {pid} holds"), &format!("kill {pid}"));
}

#[test]
fn a_lock_is_no_riddle() {
    let desk = desk();
    desk.run(&["lock"]).ok();
    let found = findings(&desk.run(&["doctor", "--json"]).ok());
    assert_names(&found, ("lock", ""), "warn", "gives no tokens", "ksb unlock");
}

#[test]
fn plugins_that_are_missing_old_or_shadowed_are_told_apart() {
    let desk = desk();
    let answer = |name: &str, more: Value| {
        let mut whole = json!({
            "executable": desk.sandbox.path("bin").join(name), "prefix": format!("/opt/{name}"), "version": [3, 13],
            "sdk": true, "sdk_version": "4.22.0", "plugin": true, "plugin_version": env!("CARGO_PKG_VERSION"),
            "v3websso": ["keystoneauth1"], "v3broker": ["keystoneauth-broker"], "pip": true, "managed": false,
        });
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        program(&desk.sandbox, name, &format!("#!/bin/sh\necho '{whole}'\n")).display().to_string()
    };
    let well = answer("python3", json!({}));
    let without = answer("python3.11", json!({"plugin": false, "v3broker": []}));
    let old = answer("python3.12", json!({"plugin_version": "0.0.9"}));
    let shadowed = answer("python3.13", json!({"v3websso": ["keystoneauth-websso", "keystoneauth1"]}));
    for (tool, python) in [("openstack", &without), ("ansible", &old), ("ansible-playbook", &shadowed)] {
        program(&desk.sandbox, tool, &format!("#!{python}\n"));
    }
    let found = findings(&desk.run(&["doctor", "--json"]).ok());
    assert_eq!(of(&found, "plugin", &well).0, "ok");
    assert_names(
        &found,
        ("plugin", &without),
        "warn",
        "without the plugin",
        "python3.11 -m pip install ./plugin-shim",
    );
    assert_names(
        &found,
        ("plugin", &old),
        "warn",
        "0.0.9: older than ksb",
        "-m pip install --upgrade ./plugin-shim",
    );
    let helps = "python3.13 -m pip uninstall keystoneauth-websso";
    assert_names(
        &found,
        ("shadowed-plugin", &shadowed),
        "warn",
        "v3websso is also what keystoneauth-websso",
        helps,
    );
    assert_eq!(found.iter().filter(|each| each["check"] == "shadowed-plugin").count(), 1);
}

#[test]
fn clouds_that_do_not_answer_are_told_apart_and_hold_up_no_other() {
    let desk = desk();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at = |name: &str, auth_url: &str| {
        format!(
            "  {name}:\n    auth_type: v3broker\n    auth: {{auth_url: \"{auth_url}\", identity_provider: lab-idp, protocol: \
             openid, redirect_port: {}}}\n",
            desk.port
        )
    };
    let page = format!("{}/idp/certs", desk.keystone.url());
    desk.sandbox.clouds(&format!(
        "clouds:\n{}{}{}{}  broken:\n    auth_type: v3broker\n    auth: {{}}\n",
        desk.entry("demo", "project_name: demo"),
        at("gone", &format!("http://{nobody}/v3")),
        at("nameless", "https://keystone.invalid/v3"),
        at("page", &page),
    ));
    let outcome = desk.run(&["doctor", "--json"]);
    assert_eq!(outcome.code, Some(1));
    let found = findings(&outcome);
    assert_eq!(of(&found, "discovery", "demo").0, "ok");
    assert_names(&found, ("discovery", "gone"), "fail", "cannot be reached", "check the network");
    assert_names(&found, ("dns", "nameless"), "fail", "keystone.invalid has no address", "auth_url");
    assert_names(
        &found,
        ("discovery", "page"),
        "fail",
        "is not a Keystone v3",
        "correct auth_url: ksb clouds show page",
    );
    assert_names(&found, ("entry", "broken"), "fail", "auth_url", "");
    assert_eq!(of(&found, "sign-in-path", "gone").0, "skipped");
}

#[test]
fn a_report_has_what_an_operator_needs_and_nobodys_name() {
    let mut desk = desk();
    desk.sandbox.set("USER", "alice");
    desk.run_and_sign_in(&["login"], "alice").ok();
    let report = desk.run(&["doctor", "--report"]).ok().stdout;
    let home = desk.sandbox.path("home").display().to_string();
    assert!(!report.contains(&home) && !report.contains("alice"), "{report}");
    assert!(report.contains("~/.config/openstack/clouds.yaml"), "{report}");
    assert!(report.contains(&format!("ksb      {}\n", env!("CARGO_PKG_VERSION"))), "{report}");
    assert!(report.contains("x-openstack-request-id: req-"), "{report}");
    assert!(report.contains(desk.keystone.url()), "{report}");
    let time = report.lines().find(|line| line.contains(" discovery demo: ")).unwrap();
    assert!(
        time.split(' ').next().unwrap().parse::<jiff::Timestamp>().is_ok() && time.contains("Z "),
        "{time}"
    );
}
