//! Processes that outlive a command, the agent and the one that shows the sign-ins of `ksb exec`, start as daemon(7) wants
//! it; a command under `ksb exec` is started as it would be without `ksb`.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::{SigSet, Signal};

use crate::support::desk::Desk;
use crate::support::sandbox::{KSB, Outcome, end_of};
use crate::support::spawn::start;

/// Has a lock on descriptor 9, ignores HUP, and a pipe that its starter reads to the end on 7.
const STARTER: &str = "trap '' HUP; exec 9>lock 7>&1; flock 9; \"$@\" >said 2>&1 || cat said";

fn start_from_a_script(desk: &Desk, args: &[&str]) -> Outcome {
    let mut script = desk.sandbox.command("bash");
    script.args(["-c", STARTER, "sh", KSB]).args(args).stdin(Stdio::null());
    // A child has its parent's mask.
    let before = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK).unwrap();
    let script = start(&mut script);
    before.thread_set_mask().unwrap();
    // Waits for the end of the pipe, too.
    end_of(script)
}

/// A set of signals in proc_pid_status(5).
fn signals(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let digits = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    // Glibc keeps 32 and 33 to itself.
    u64::from_str_radix(digits.trim(), 16).unwrap() & !(0b11 << 31)
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as u32 - 1)
}

#[test]
fn an_agent_has_nothing_of_the_command_that_starts_it() {
    for args in [&["agent", "start"][..], &["token"], &["exec", "demo", "--", "true"]] {
        let mut desk = Desk::new();
        desk.sandbox.set("KSB_PROMPT", "never");
        start_from_a_script(&desk, args);
        let agent = desk.sandbox.agent_pid().unwrap();
        assert_eq!(signals(agent, "SigBlk"), 0, "{args:?}");
        assert_eq!(
            signals(agent, "SigIgn") & !bit(Signal::SIGPIPE),
            0,
            "{args:?}: Rust's runtime ignores SIGPIPE"
        );
        let mut flock = desk.sandbox.command("flock");
        let flock = end_of(start(flock.args(["--nonblock", "lock", "echo", "free"])));
        assert_eq!(flock.stdout, "free\n", "{args:?}: the agent holds a lock of its starter's");
        assert!(desk.sandbox.agent_pid() == Some(agent));
    }
}

#[test]
fn a_command_has_what_it_would_have_without_ksb() {
    let desk = Desk::new();
    // By the shell alone: while it waits for a child it may, or may not yet, have a handler of its own for SIGINT.
    let script = "echo here >&7; flock --nonblock 9 && echo locked; \
                  while read -r name value; do case $name in SigBlk:|SigIgn:|SigCgt:) echo $name $value;; esac; done \
                  </proc/$$/status; read -r children </proc/$$/task/$$/children; echo children: $children";
    let direct = {
        let mut plain = desk.sandbox.command("bash");
        plain.args(["-c", STARTER, "sh", "bash", "-c", script]);
        end_of(start(&mut plain)).ok();
        fs::read_to_string(desk.sandbox.path("home/said")).unwrap()
    };
    let mut wrapped = desk.sandbox.command("bash");
    wrapped.args(["-c", STARTER, "sh", KSB, "exec", "demo", "--", "bash", "-c", script]);
    let outcome = end_of(start(&mut wrapped)).ok();
    assert_eq!(outcome.stdout, "here\n");
    let said = fs::read_to_string(desk.sandbox.path("home/said")).unwrap();
    assert_eq!(said, direct);
    assert!(said.contains("locked\n"), "{said}");
}

#[test]
fn a_script_without_an_interpreter_runs_by_sh() {
    let desk = Desk::new();
    let directory = desk.sandbox.path("home/bin");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("no-interpreter"), "echo \"$0 $1\"\n").unwrap();
    let mut chmod = desk.sandbox.command("chmod");
    end_of(start(chmod.args(["+x", "bin/no-interpreter"]))).ok();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    for exec in [&["exec", "demo"][..], &["exec", "--ephemeral", "demo"]] {
        for name in ["no-interpreter", "bin/no-interpreter", "./bin/no-interpreter"] {
            let mut ksb = desk.sandbox.ksb(exec);
            ksb.args(["--", name, "word"]).env("PATH", &path);
            let outcome = end_of(start(&mut ksb)).ok();
            assert!(outcome.stdout.ends_with("no-interpreter word\n"), "{exec:?} {name}: {outcome:?}");
        }
    }
}
