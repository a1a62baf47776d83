//! What a user is told who waits in vain.

use std::fs;

use rustix::process::Signal;

use super::front::{Counts, Front, Turn};
use super::program::{Program, run};
use crate::support::sandbox::KSB;

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
        assert!(outcome.stderr.contains("the sign-in was called off"), "{outcome:?}");
    }
    assert_eq!(front.counts(), Counts { browsers: 2, logins: 0, exchanges: 0 });
}

#[test]
fn a_job_that_nobody_started_is_refused_at_once_and_no_browser_opens() {
    let front = Front::free();
    let openstack = front.openstack(&["token", "issue"]);
    // As cron has it: no terminal, a session of its own, and not much more in its environment.
    let job = |args: &[&str]| {
        let mut job = front.sandbox.command("setsid");
        job.arg("--wait").arg(args[0]).args(&args[1..]);
        for name in ["KSB_PROMPT", "LANG", "XDG_RUNTIME_DIR"] {
            job.env_remove(name);
        }
        job.env("KSB_SOCK", front.sandbox.paths().socket).env("KSB", KSB);
        run(job)
    };
    for args in [&[KSB, "token"][..], &[KSB, "exec", "demo", "--", "true"], &[KSB, "login"]] {
        let outcome = job(args);
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(75), 1), "{args:?}: {outcome:?}");
    }
    // Whose exit status is its own.
    let outcome = job(&[openstack.get_program().to_str().unwrap(), "token", "issue"]);
    assert_eq!((outcome.code, outcome.stderr.trim().lines().count()), (Some(1), 1), "{outcome:?}");
    assert!(
        outcome.stderr.contains("demo: nobody is signed in") && outcome.stderr.contains("ksb login demo")
    );
    assert_eq!(front.counts(), Counts { browsers: 0, logins: 0, exchanges: 0 });

    // A program that the settings do not name is told so, though a user started it.
    let config = front.sandbox.paths().config;
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{settings}[prompt]\nprograms = [\"tofu\"]\n")).unwrap();
    front.ksb(&["agent", "stop"]).ok();
    let outcome = run(openstack);
    assert!(
        outcome.stderr.contains("openstack may not open a browser (prompt.programs: tofu)"),
        "{outcome:?}"
    );
    assert_eq!(front.ksb(&["token"]).code, Some(75));
    assert_eq!(front.browsers_opened(), 0);
    front.ksb(&["login"]).ok();
}
