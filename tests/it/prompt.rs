//! Who may have a browser opened, and how often; and what has no user is answered at once.

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
        let lab = Lab::with_config(&format!("[hosts.\"127.0.0.1\".prompt]\nprograms = {programs:?}\n"));
        let answer = lab.api().token(&lab.cloud(), &scope::project("demo"));
        if may {
            answer.sign_in();
            continue;
        }
        let problem = answer.problem("sign-in-needed");
        let why = format!("nobody is signed in, and {} may not open a browser (prompt.programs: ", name());
        assert!(problem["detail"].as_str().unwrap().starts_with(&why), "{problem}");
        assert_eq!(problem["remedy"], "ksb login demo");
        // Nor by a lease; the user is not concerned.
        let made = lab.api().post(
            "/v1/leases",
            &json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "prompt": true}),
        );
        let refused = Tool::of(&made).ask();
        assert_eq!(refused.status, 401);
        assert!(refused.json()["error"]["message"].as_str().unwrap().contains(&why), "{refused:?}");
        assert_eq!(lab.api().status()["sign_ins"], json!([]));
        let login = lab.login();
        assert_eq!(lab.browse(&login.url, "alice"), "done");
    }
}

/// Also after one that succeeded: a loop would open browsers without end.
#[test]
fn after_a_sign_in_that_a_program_had_opened_there_is_a_pause_and_the_user_needs_none() {
    let lab = Lab::with_config("[prompt]\ncool_down = \"10min\"\n");
    let ask = || lab.api().token(&lab.cloud(), &scope::project("demo"));
    for is_finished in [false, true, false] {
        // Many programs that ask at once are one sign-in.
        let waiting = ask().sign_in();
        thread::scope(|threads| {
            (0..8).for_each(|_| drop(threads.spawn(|| assert_eq!(ask().sign_in().id, waiting.id))));
        });
        if is_finished {
            assert_eq!(lab.browse(&waiting.url, "alice"), "done");
            // Keystone honours it no more.
            let token = ask().token_id();
            lab.keystone.all_tokens().iter().for_each(|token| lab.keystone.revoke(token));
            lab.api().token_instead_of(&token, &lab.cloud(), &scope::project("demo"));
        } else {
            lab.api().delete(&format!("/v1/sign-ins/{}", waiting.id));
            lab.api().over(&waiting.id);
        }
        lab.clock.advance(599);
        let refused = ask();
        let problem = refused.problem("sign-in-cooling-down");
        let why =
            "a sign-in was opened a moment ago; no browser is opened for another 1 s (prompt.cool_down)";
        assert_eq!((&problem["detail"], &problem["remedy"]), (&json!(why), &json!("ksb login demo")));
        let login = lab.login();
        ask().sign_in();
        lab.api().delete(&format!("/v1/sign-ins/{}", login.id));
        lab.api().over(&login.id);
        lab.clock.advance(1);
    }
    ask().sign_in();
}

#[test]
fn no_other_name_for_a_cloud_leads_past_what_holds_for_its_host() {
    let lab = Lab::with_config("[hosts.\"127.0.0.1\".prompt]\nprograms = [\"tofu\"]\n");
    for name in ["other", "name", ""] {
        let other = lab.cloud_with(|cloud| cloud["name"] = name.into());
        lab.api().token(&other, &scope::project("demo")).problem("sign-in-needed");
    }
}

/// A crowd of names fills nothing.
#[test]
fn of_the_names_of_a_session_so_many_are_shown() {
    let lab = Lab::new();
    lab.signed_in("alice");
    for number in 0..200 {
        let cloud = lab.cloud_with(|cloud| cloud["name"] = format!("name-{number}").into());
        lab.api().token_unprompted(&cloud, &scope::project("demo")).token_id();
    }
    let names = lab.api().status()["sessions"][0]["clouds"].as_array().unwrap().clone();
    assert!(names.len() < 100 && names.contains(&json!("demo")), "{names:?}");
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
        &["login", "--at-least", "4h"],
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
    for args in nobody.iter().filter(|args| !args.contains(&"--at-least") && !args.contains(&"--confined")) {
        by_cron(&desk, args).ok();
    }
}
