//! The audit log: what stands in it, what does not, and that nobody waits for it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Stdio;

use keystone_broker::audit;
use keystone_broker::time::Clock;
use serde_json::{Value, json};

use crate::support::api::scope;
use crate::support::desk::Desk;
use crate::support::lab::{Lab, until};
use crate::support::sandbox::{KSB, end_of};
use crate::support::spawn;
use crate::support::tool::Tool;
use crate::support::world::World;

fn file(lab: &Lab) -> PathBuf {
    audit::file_in(&lab.agent.folder().join("state"))
}

fn lines(lab: &Lab) -> Vec<Value> {
    let text = fs::read_to_string(file(lab)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of an action, as soon as there are so many.
#[track_caller]
fn found(lab: &Lab, action: &str, number: usize) -> Vec<Value> {
    let of = || lines(lab).into_iter().filter(|line| line["action"] == action).collect::<Vec<_>>();
    until(&format!("{number} lines of {action}"), || of().len() >= number);
    let found = of();
    assert_eq!(found.len(), number, "{found:#?}");
    found
}

#[test]
fn a_token_a_refusal_and_a_sign_in_are_in_it_with_who_asked() {
    let lab = Lab::new();
    lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")).problem("sign-in-needed");
    lab.signed_in("alice");
    lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    lab.api().token(&lab.cloud(), &scope::project("nowhere")).problem("scope-refused");

    let [needed, given, refused] = found(&lab, "token", 3).try_into().unwrap();
    assert_eq!((&needed["outcome"], &needed["code"]), (&json!("refused"), &json!("sign-in-needed")));
    assert_eq!(
        (&given["outcome"], &given["cloud"], &given["user"]),
        (&json!("done"), &json!("demo"), &json!("alice"))
    );
    assert_eq!(given["scope"], "project demo");
    assert_eq!((&refused["outcome"], &refused["code"]), (&json!("refused"), &json!("scope-refused")));
    assert!(refused["request_id"].as_str().unwrap().starts_with("req-"), "{refused}");
    for line in [&needed, &given, &refused] {
        assert_eq!(line["program"]["pid"], std::process::id());
        let me = std::env::current_exe().unwrap();
        assert_eq!(line["program"]["executable"], me.to_str().unwrap());
        assert!(!line["program"]["parents"].as_array().unwrap().is_empty());
        assert_eq!(line["time"], lab.clock.now().to_string());
    }
    let [begun, done] = found(&lab, "sign-in", 2).try_into().unwrap();
    assert_eq!((&begun["outcome"], &done["outcome"]), (&json!("waits"), &json!("done")));
    assert_eq!((&done["user"], &done["program"]), (&json!("alice"), &json!(null)));
    assert_eq!(found(&lab, "login", 1)[0]["outcome"], "waits");
    assert_eq!(fs::metadata(file(&lab)).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn what_happens_again_and_again_takes_one_line_now_and_one_later() {
    let lab = Lab::new();
    lab.signed_in("alice");
    for _ in 0..500 {
        lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    }
    assert_eq!(found(&lab, "token", 1)[0]["repeats"], json!(null));
    lab.clock.advance(60);
    lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    // Nothing polls: what is pending is written when its time has come.
    until("somebody waits to write it", || {
        lab.clock.jump(300);
        lines(&lab).iter().filter(|line| line["action"] == "token").count() == 2
    });
    let again = &found(&lab, "token", 2)[1];
    assert_eq!(again["repeats"], 500);
    let [first, last] =
        ["time", "last"].map(|name| again[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    assert_eq!(last.duration_since(first).as_secs(), 60);
}

#[test]
fn what_is_pending_is_not_lost_with_the_agent() {
    let lab = Lab::new();
    lab.signed_in("alice");
    for _ in 0..3 {
        lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    }
    let lab = lab.restart_agent();
    assert_eq!(found(&lab, "token", 2)[1]["repeats"], 2);
    assert_eq!(found(&lab, "start", 2)[0]["detail"], format!("version {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_leases_life_is_in_it() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let made = lab.api().post(
        "/v1/leases",
        &json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "name": "backup"}),
    );
    let tool = Tool::of(&made);
    tool.token();
    assert_eq!(lab.api().delete("/v1/leases/backup").status, 200);
    assert_eq!(tool.ask().status, 401, "it has ended");
    assert_eq!(lab.api().post("/v1/logout", &json!({})).status, 200);

    let lease = &found(&lab, "lease", 1)[0];
    assert_eq!(lease["lease"], "backup");
    let [given, refused] = found(&lab, "token", 2).try_into().unwrap();
    assert_eq!(
        (&given["lease"], &given["user"], &given["scope"]),
        (&json!("backup"), &json!("alice"), &json!("project demo"))
    );
    // By the connection's other end: it holds no name, and is this process.
    assert_eq!(given["program"]["pid"], std::process::id());
    assert_eq!((&refused["outcome"], &refused["code"]), (&json!("refused"), &json!("unknown-lease")));
    assert_eq!(found(&lab, "lease-end", 1)[0]["lease"], "backup");
    let out = &found(&lab, "logout", 1)[0];
    assert_eq!((&out["user"], &out["program"]["pid"]), (&json!("alice"), &json!(std::process::id())));

    let text = fs::read_to_string(file(&lab)).unwrap();
    for secret in lab.keystone.all_tokens().into_iter().chain([tool.secret, tool.handle, tool.id]) {
        assert!(!text.contains(&secret), "{text}");
    }
}

#[test]
fn a_file_that_cannot_be_written_costs_lines_and_nothing_else_and_is_said() {
    let lab = Lab::new();
    until("the first line", || file(&lab).exists());
    fs::remove_file(file(&lab)).unwrap();
    // A link is not followed: it might lead anywhere.
    symlink("/dev/null", file(&lab)).unwrap();
    lab.signed_in("alice");
    lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    let notices = || lab.api().status()["notices"].clone();
    until("the notice", || notices() != json!(null));
    let notice = notices()[0].as_str().unwrap().to_owned();
    assert!(
        notice.starts_with(&format!("the audit log {} is not complete: ", file(&lab).display())),
        "{notice}"
    );

    fs::remove_file(file(&lab)).unwrap();
    lab.api().token(&lab.cloud(), &scope::project("other")).problem("scope-refused");
    until("the last line", || lines(&lab).iter().any(|line| line["scope"] == "project other"));
    let written = lines(&lab);
    let gap = written[0]["detail"].as_str().unwrap();
    let lost: usize =
        gap.strip_suffix(" lines before this one could not be written").unwrap().parse().unwrap();
    // Of four before it, those that the log had not come to are in it.
    assert_eq!((lost + written.len() - 2, &written[0]["action"]), (4, &json!("lost")), "{written:#?}");
    until("no notice", || notices() == json!(null));
}

#[test]
fn who_reads_it_sees_programs_and_needs_no_agent() {
    let desk = Desk::new();
    assert!(desk.run(&["audit"]).ok().stdout.starts_with("Nothing is in the log"));
    desk.run_and_sign_in(&["token"], "alice").ok();
    // A script has its own name, and a name may be anything.
    let script = desk.sandbox.path("night\u{1b}[31mly");
    fs::write(&script, format!("#!/bin/sh\n'{KSB}' token\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    end_of(spawn::start(&mut desk.sandbox.command(&script))).ok();
    desk.run(&["agent", "stop"]).ok();

    let log = desk.run(&["audit"]).ok().stdout;
    let line =
        log.lines().rfind(|line| line.contains("token: demo, project demo, as alice, to ksb (")).unwrap();
    assert!(line.contains(&format!("{KSB}) < night\u{fffd}[31mly < ")), "{line}");
    assert!(!log.contains('\u{1b}') && log.contains("agent started") && log.contains("agent ended"), "{log}");
    let json = desk.run(&["audit", "--json", "--os-cloud", "demo"]).ok().stdout;
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["cloud"] == "demo") && lines.len() >= 3, "{json}");
    assert!(desk.run(&["audit", "--os-cloud", "other"]).ok().stdout.starts_with("Nothing"));
}

#[test]
fn who_follows_it_sees_what_happens_next_and_may_leave() {
    let desk = Desk::new();
    let mut follower = spawn::start(&mut desk.sandbox.ksb(&["audit", "--follow", "--json"]));
    desk.run(&["agent", "start"]).ok();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().unwrap()));
    let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(line["action"], "start");
    desk.run_and_sign_in(&["login"], "alice").ok();
    let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_ne!(line["action"], "start");
    drop(lines);
    desk.run(&["logout"]).ok();
    assert!(end_of(follower).code == Some(0), "a closed pipe is no failure");
}

#[test]
fn on_the_journal_lines_have_a_priority_and_no_time() {
    let desk = Desk::new();
    let log = desk.sandbox.path("journal");
    // The second one inherited the variable from somebody with another stream.
    for is_journal in [true, false] {
        let stream = fs::File::create(&log).unwrap();
        let inode = stream.metadata().unwrap().ino() + u64::from(!is_journal);
        let named = format!("{}:{inode}", stream.metadata().unwrap().dev());
        let mut agent = desk.sandbox.ksb(&["agent", "run"]);
        let mut agent = spawn::raw(agent.env("JOURNAL_STREAM", named).stderr(stream).stdout(Stdio::null()));
        let text = || fs::read_to_string(&log).unwrap();
        until("the agent is ready", || text().contains("ksb: ready on"));
        let first = text().lines().next().unwrap().to_owned();
        assert!(first.contains("ready") && first.contains("broker.sock"), "{first}");
        assert_eq!(first.starts_with("<6>keystone_broker::agent: ready"), is_journal, "{first}");
        assert_eq!(first.contains("INFO"), !is_journal, "{first}");
        desk.run(&["agent", "stop"]).ok();
        agent.wait().unwrap();
    }
}
