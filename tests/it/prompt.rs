//! Who may have a browser opened, and how often; and what has no person is answered at once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;

use serde_json::json;

use crate::support::api::scope;
use crate::support::desk::Desk;
use crate::support::lab::Lab;
use crate::support::sandbox::{KSB, Outcome, end_of};
use crate::support::spawn;
use crate::support::tool::Tool;
use crate::support::world::World;

fn name() -> String {
    fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned()
}

#[test]
fn only_programs_that_may_have_a_browser_opened() {
    let own = std::env::current_exe().unwrap();
    for (programs, may) in [
        (vec!["tofu".to_owned()], false),
        (vec![], false),
        (vec!["/usr/bin/tofu".to_owned(), format!("/bin/{}", name())], false),
        (vec!["tofu".to_owned(), name()], true),
        (vec![own.display().to_string()], true),
    ] {
        let lab = Lab::with_config(&format!("[clouds.demo.prompt]\nprograms = {programs:?}\n"));
        let answer = lab.api().token(&lab.cloud(), &scope::project("demo"));
        if may {
            answer.sign_in();
            continue;
        }
        let problem = answer.problem("sign-in-needed");
        let why = format!("nobody is signed in, and {} may not open a browser (prompt.programs: ", name());
        assert!(problem["detail"].as_str().unwrap().starts_with(&why), "{problem}");
        assert_eq!(problem["remedy"], "ksb login demo");
        // Nor by a lease; other clouds are not concerned, nor is the person.
        let made = lab.api().post(
            "/v1/leases",
            &json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "prompt": true}),
        );
        let refused = Tool::of(&made).ask();
        assert_eq!(refused.status, 401);
        assert!(refused.json()["error"]["message"].as_str().unwrap().contains(&why), "{refused:?}");
        assert_eq!(lab.api().status()["sign_ins"], json!([]));
        let other = lab.cloud_with(|cloud| {
            cloud["name"] = "other".into();
            cloud["identity_provider"] = "other-idp".into();
        });
        lab.api().token(&other, &scope::project("demo")).sign_in();
        let login = lab.login();
        assert_eq!(lab.browse(&login.url, "alice"), "done");
    }
}

#[test]
fn a_program_has_so_many_sign_ins_an_hour_and_the_person_as_many_as_they_like() {
    let lab = Lab::with_config("[prompt]\nper_hour = 2\n");
    let ask = || lab.api().token(&lab.cloud(), &scope::project("demo"));
    for _ in 0..2 {
        // Many who ask at once are one sign-in.
        let id = ask().sign_in().id;
        thread::scope(|threads| {
            (0..8).for_each(|_| drop(threads.spawn(|| assert_eq!(ask().sign_in().id, id))));
        });
        lab.api().delete(&format!("/v1/sign-ins/{id}"));
        lab.api().over(&id);
        lab.clock.advance(600);
    }
    let answer = ask();
    let problem = answer.problem("sign-in-cooling-down");
    let why = "programs began 2 sign-ins within an hour, no more are allowed (prompt.per_hour); no browser is opened for \
               another 2400 s";
    assert_eq!((&problem["detail"], &problem["remedy"]), (&json!(why), &json!("ksb login demo")));
    let login = lab.login();
    ask().sign_in();
    lab.api().delete(&format!("/v1/sign-ins/{}", login.id));
    lab.api().over(&login.id);
    lab.clock.advance(2399);
    ask().problem("sign-in-cooling-down");
    lab.clock.advance(1);
    ask().sign_in();
}

#[test]
fn no_other_name_for_a_cloud_leads_past_what_holds_for_it() {
    for (setting, code) in
        [("programs = [\"tofu\"]", "sign-in-needed"), ("per_hour = 0", "sign-in-cooling-down")]
    {
        let lab = Lab::with_config(&format!("[clouds.demo.prompt]\n{setting}\n"));
        let other = lab.cloud_with(|cloud| cloud["name"] = "other".into());
        lab.api().token(&other, &scope::project("demo")).sign_in();
        lab.signed_in("alice");
        lab.clock.advance(3600);
        lab.api().token(&other, &scope::project("demo")).problem(code);
    }
}

/// Nor does a crowd of names, which fills nothing either.
#[test]
fn a_crowd_of_names_leads_past_nothing() {
    let lab = Lab::with_config("[clouds.demo.prompt]\nper_hour = 0\n");
    let other = lab.cloud_with(|cloud| cloud["name"] = "other".into());
    let login = lab.api().login(&other).sign_in();
    assert_eq!(lab.browse(&login.url, "alice"), "done");
    for number in 0..200 {
        let cloud = lab.cloud_with(|cloud| cloud["name"] = format!("name-{number}").into());
        lab.api().token_unprompted(&cloud, &scope::project("demo")).token_id();
    }
    lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")).token_id();
    let names = lab.api().status()["sessions"][0]["clouds"].as_array().unwrap().clone();
    assert!(names.len() < 100 && names.contains(&json!("demo")), "{names:?}");
    lab.clock.advance(3600);
    lab.api().token(&other, &scope::project("demo")).problem("sign-in-cooling-down");
}

#[test]
fn a_budget_of_nothing_opens_nothing() {
    let lab = Lab::with_config("[prompt]\nper_hour = 0\n");
    lab.api().token(&lab.cloud(), &scope::project("demo")).problem("sign-in-cooling-down");
    lab.login();
}

#[test]
fn the_rest_after_an_unfinished_sign_in_is_a_setting() {
    let lab = Lab::with_config("[prompt]\ncool_down = \"10min\"\n");
    let ask = || lab.api().token(&lab.cloud(), &scope::project("demo"));
    for rest in [600, 1200] {
        let waiting = ask().sign_in();
        lab.clock.advance(300);
        lab.api().over(&waiting.id);
        lab.clock.advance(rest - 1);
        ask().problem("sign-in-cooling-down");
        lab.clock.advance(1);
    }
    ask().sign_in();
}

/// As cron does it: hardly any variables, no terminal, a session of its own.
fn by_cron(desk: &Desk, args: &[&str]) -> Outcome {
    let mut job = Command::new("setsid");
    let home = desk.sandbox.path("home");
    job.args(["--wait", "/bin/sh", "-c", "exec \"$0\" \"$@\"", KSB]).args(args).env_clear();
    job.env("HOME", &home).env("LOGNAME", "alice").env("SHELL", "/bin/sh").env("PATH", "/usr/bin:/bin");
    // What cron does not know either, and a test must not share with the machine.
    job.env("KSB_SOCK", desk.sandbox.paths().socket)
        .env("XDG_STATE_HOME", desk.sandbox.path("home/.local/state"));
    // A browser that nobody sees would tell.
    job.env("BROWSER", desk.sandbox.path("tell")).current_dir(home).stdin(std::process::Stdio::null());
    end_of(spawn::start(&mut job))
}

#[test]
fn a_job_without_a_person_gets_75_and_one_line_at_once() {
    let desk = Desk::new();
    let tell = desk.sandbox.path("tell");
    fs::write(&tell, format!("#!/bin/sh\ntouch '{}'\n", desk.sandbox.path("opened").display())).unwrap();
    fs::set_permissions(&tell, fs::Permissions::from_mode(0o700)).unwrap();
    let nobody: [&[&str]; 7] = [
        &["token"],
        &["login"],
        &["login", "--for", "4h"],
        &["projects"],
        &["exec", "demo", "--", "touch", "ran"],
        &["exec", "demo", "--confined", "--", "touch", "ran"],
        &["lease", "create", "--confined"],
    ];
    for args in nobody {
        let outcome = by_cron(&desk, args);
        assert_eq!((outcome.code, &*outcome.stdout), (Some(75), ""), "{args:?}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{args:?}: {outcome:?}");
        assert!(outcome.stderr.starts_with("ksb: demo: nobody is signed in"), "{args:?}: {outcome:?}");
    }
    assert_eq!((desk.api().status()["sign_ins"].clone(), desk.keystone.requests()), (json!([]), 0));
    assert!(!desk.sandbox.path("opened").exists() && !desk.sandbox.path("home/ran").exists());
    // With a session it is as good as anybody.
    desk.run_and_sign_in(&["login"], "alice").ok();
    for args in nobody.iter().filter(|args| !args.contains(&"--for") && !args.contains(&"--confined")) {
        by_cron(&desk, args).ok();
    }
}
