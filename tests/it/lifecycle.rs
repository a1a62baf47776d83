//! The agent's life as a process: one for each socket, private, detached, gone without a trace, and
//! silent about secrets.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::api::{Api, request, scope};
use crate::support::browser::Browser;
use crate::support::clock::ManualClock;
use crate::support::desk::Desk;
use crate::support::machine::Machine;
use crate::support::sandbox::{KSB, Sandbox, end_of, within};
use crate::support::skip::{is_root, skip};
use crate::support::spawn;
use crate::support::spawn::start;
use crate::support::stranger;

fn api(sandbox: &Sandbox) -> Api {
    Api::new(sandbox.paths().socket)
}

/// Starts the agent and returns its process id.
#[track_caller]
fn started(sandbox: &Sandbox) -> u32 {
    let outcome = sandbox.run(&["agent", "start"]).ok();
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("", ""));
    sandbox.agent_pid().unwrap()
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Returns once the process has ended: then its lock is free.
fn wait_for_end_of(sandbox: &Sandbox) {
    let lock = fs::File::open(sandbox.paths().socket.with_extension("lock")).unwrap();
    within(move || lock.lock().unwrap());
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn fifty_starters_at_once_start_one_agent() {
    let sandbox = Sandbox::new();
    let starters: Vec<_> = (0..50).map(|_| sandbox.start(&["agent", "start"])).collect();
    for starter in starters {
        end_of(starter).ok();
    }
    assert_eq!(sandbox.agent_log().matches("ready").count(), 1, "{}", sandbox.agent_log());
    assert_eq!(api(&sandbox).status()["pid"], sandbox.agent_pid().unwrap());
}

#[test]
fn any_command_starts_the_agent_when_it_needs_one() {
    let desk = Desk::new();
    let outcome = end_of(start(desk.sandbox.ksb(&["token"]).env("KSB_PROMPT", "never")));
    assert_eq!(outcome.code, Some(75));
    assert_eq!(desk.api().status()["pid"], desk.sandbox.agent_pid().unwrap());
}

#[test]
fn a_killed_agent_is_replaced_and_its_socket_is_no_obstacle() {
    let sandbox = Sandbox::new();
    let first = started(&sandbox);
    assert_eq!(started(&sandbox), first);
    signal(first, Signal::KILL);
    wait_for_end_of(&sandbox);
    assert!(sandbox.paths().socket.exists(), "the socket of the dead lies there still");
    let looked = sandbox.run(&["status", "--json"]).ok();
    assert_eq!(serde_json::from_str::<Value>(&looked.stdout).unwrap()["running"], false);

    let second = started(&sandbox);
    assert_ne!(second, first);
    assert_eq!(api(&sandbox).status()["pid"], second);
}

#[test]
fn a_killed_agent_leaves_nobody_hanging() {
    let desk = Desk::new();
    let (waiting, _) = desk.waiting(&["login"]);
    let before = desk.sandbox.agent_pid().unwrap();
    signal(before, Signal::KILL);
    let outcome = end_of(waiting);
    assert_eq!(outcome.code, Some(1));
    // The agent went while it was asked, or before: then the next one knows nothing of the sign-in.
    let said = outcome.stderr.lines().last().unwrap();
    assert!(said.contains("the agent is gone") || said.contains("there is no sign-in"), "{said}");
    desk.run_and_sign_in(&["login"], "alice").ok();
    let after = desk.sandbox.agent_pid().unwrap();
    assert_ne!(after, before);
    // With a session in memory: the next client signs in again, and no more.
    signal(after, Signal::KILL);
    wait_for_end_of(&desk.sandbox);
    assert_ne!(desk.run_and_sign_in(&["token"], "alice").ok().stdout, "");
}

#[test]
fn a_second_agent_for_the_same_socket_says_who_serves_it() {
    let sandbox = Sandbox::new();
    let first = started(&sandbox);
    let second = sandbox.run(&["agent", "run"]);
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains(&format!("process {first}")), "{}", second.stderr);
    assert!(second.stderr.contains("ksb agent stop"), "{}", second.stderr);
    assert_eq!(api(&sandbox).status()["pid"], first, "the first one serves on");
}

#[test]
fn everything_that_it_makes_is_private() {
    let desk = Desk::new();
    desk.run_and_sign_in(&["login"], "alice").ok();
    let paths = desk.sandbox.paths();
    assert_eq!(mode(&paths.socket), 0o600);
    assert_eq!(mode(paths.socket.parent().unwrap()), 0o700);
    assert_eq!(mode(&paths.state), 0o700);
    for folder in [paths.socket.parent().unwrap(), &paths.state] {
        for file in fs::read_dir(folder).unwrap() {
            let file = file.unwrap().path();
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("run/keystone-broker");
    fs::create_dir_all(&folder).unwrap();
    for open in [0o777, 0o770, 0o702, 0o1777] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(open)).unwrap();
        for args in [&["agent", "start"][..], &["agent", "run"], &["agent", "--detached"]] {
            let outcome = sandbox.run(args);
            assert_eq!(outcome.code, Some(1), "{open:o} {args:?}");
            assert!(
                outcome.stderr.contains("is not safe to use: other users may change it"),
                "{}",
                outcome.stderr
            );
            assert!(outcome.stderr.contains("chmod 700"), "{}", outcome.stderr);
        }
    }
    fs::remove_dir_all(&folder).unwrap();
    started(&sandbox);
}

#[test]
fn a_folder_of_another_user_is_refused() {
    if !is_root() {
        skip!("root, to make a directory of another user");
    }
    let sandbox = Sandbox::new();
    let folder = sandbox.path("run/keystone-broker");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&folder, Some(65534), None).unwrap();
    let outcome = sandbox.run(&["agent", "start"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    fs::remove_dir_all(&folder).unwrap();
    started(&sandbox);
}

#[test]
fn another_user_gets_nothing_from_the_socket() {
    if !is_root() {
        skip!("root, to be another user");
    }
    let agent = Agent::start(ManualClock::new());
    let socket = agent.folder().join("broker.sock");
    // As open as files can be: what is left is the question who asks.
    fs::set_permissions(agent.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let (there, question) = (socket.to_str().unwrap(), request("GET", "/v1/status", None).bytes());
    assert_eq!(stranger::asks(there, &question), "");
    assert!(stranger::we_ask(there, &question).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_stopped_agent_can_be_started_again_at_once() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(&["agent", "stop"]).ok().stdout, "No agent is running.\n");
    let first = started(&sandbox);
    let stopped = sandbox.run(&["agent", "stop"]).ok();
    assert_eq!(stopped.stdout, format!("The agent (process {first}) has ended.\n"));
    assert!(!sandbox.paths().socket.exists());
    assert_ne!(started(&sandbox), first);
}

#[test]
fn a_signal_ends_it_properly() {
    for end in [Signal::TERM, Signal::INT] {
        let sandbox = Sandbox::new();
        signal(started(&sandbox), end);
        wait_for_end_of(&sandbox);
        assert!(!sandbox.paths().socket.exists());
        assert!(sandbox.agent_log().contains("stopping"));
    }
}

#[test]
fn it_works_with_nothing_but_a_home_as_under_cron() {
    let sandbox = Sandbox::outside_tmp();
    let machine = Machine::start(&sandbox, "");
    let home = format!("HOME={}", sandbox.path("home").display());
    let program = sandbox.path("ksb");
    let ksb = |args: &[&str]| {
        let mut env = machine.command("env");
        end_of(start(env.arg("-i").arg(&home).arg(&program).args(args)))
    };
    ksb(&["agent", "start"]).ok();
    let status: Value = serde_json::from_str(&ksb(&["status", "--json"]).ok().stdout).unwrap();
    assert_eq!(status["running"], true);
    assert!(ksb(&["agent", "stop"]).ok().stdout.contains("has ended"));
    assert_eq!(machine.sh("find /tmp -type s"), "");
}

#[test]
fn ksb_sock_wins_and_makes_an_agent_of_its_own() {
    let mut sandbox = Sandbox::new();
    let first = started(&sandbox);
    let socket = sandbox.path("run/elsewhere/other.sock");
    sandbox.set("KSB_SOCK", &socket);
    sandbox.run(&["agent", "start"]).ok();
    let second = Api::new(&socket).status()["pid"].clone();
    assert_ne!(second, first);
    assert_eq!(mode(socket.parent().unwrap()), 0o700);
    sandbox.run(&["agent", "stop"]).ok();
    sandbox.set("KSB_SOCK", "");
    assert_eq!(api(&sandbox).status()["pid"], first);
}

#[test]
fn two_people_are_wholly_apart() {
    let (one, other) = (Desk::new(), Desk::new());
    one.run_and_sign_in(&["login"], "alice").ok();
    other.sandbox.run(&["agent", "start"]).ok();
    assert_ne!(one.sandbox.agent_pid(), other.sandbox.agent_pid());
    assert_eq!(one.api().status()["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(other.api().status()["sessions"], json!([]));
    other.run(&["agent", "stop"]).ok();
    assert_eq!(one.api().status()["sessions"].as_array().unwrap().len(), 1);
}

/// The variables of a living process.
fn environment_of(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn it_keeps_nothing_of_its_starters_environment_that_is_not_its_own() {
    if !is_root() {
        skip!("root, to look into the agent's process");
    }
    let mut sandbox = Sandbox::new();
    let foreign = [
        ("https_proxy", "http://proxy.invalid:3128"),
        ("HTTPS_PROXY", "http://proxy.invalid:3128"),
        ("ALL_PROXY", "http://proxy.invalid:3128"),
        ("no_proxy", "localhost"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem"),
        ("SSL_CERT_DIR", "/nowhere"),
        ("OS_PASSWORD", "canary"),
        ("OS_TOKEN", "canary"),
        ("OS_CLOUD", "demo"),
        ("DISPLAY", ":7"),
        ("BROWSER", "w3m"),
        ("LD_PRELOAD", ""),
    ];
    for (name, value) in foreign {
        sandbox.set(name, value);
    }
    let pid = started(&sandbox);
    // It lets go of its starter's pipe before it answers.
    api(&sandbox).status();
    let environment = environment_of(pid);
    for (name, _) in foreign {
        assert!(!environment.iter().any(|variable| variable.starts_with(&format!("{name}="))), "{name}");
    }
    assert!(environment.iter().any(|variable| variable.starts_with("HOME=")), "{environment:?}");
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(link("cwd"), Path::new("/"));
    assert_eq!((link("fd/0"), link("fd/1")), ("/dev/null".into(), "/dev/null".into()));
}

/// As root nothing could be seen: everything in /proc is root's then.
#[test]
fn its_memory_is_not_for_its_own_user_and_what_cannot_be_locked_is_said_once() {
    const NOBODY: u32 = 65534;
    let sandbox = Sandbox::new();
    let program = sandbox.path("ksb");
    spawn::copy(KSB, &program);
    let as_root = is_root();
    if as_root {
        let mut chown = sandbox.command("chown");
        end_of(start(chown.arg("-R").arg(NOBODY.to_string()).arg(sandbox.path("")))).ok();
    }
    let run = |args: &[&str]| {
        // Less than an agent wants, however much this machine gives.
        let script = "ulimit -l 64; exec \"$0\" \"$@\"";
        let mut ksb = sandbox.command("sh");
        ksb.args(["-c", script]).arg(&program).args(args);
        if as_root {
            ksb.uid(NOBODY);
        }
        end_of(start(&mut ksb)).ok()
    };
    run(&["agent", "start"]);
    for look in ["as it starts", "in the place of the one before"] {
        let process = format!("/proc/{}", sandbox.agent_pid().unwrap());
        let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
        let cores = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(cores.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{look}: {limits}");
        // proc(5): what is not dumpable belongs to root.
        assert_eq!(fs::metadata(format!("{process}/environ")).unwrap().uid(), 0, "{look}");
        run(&["lock"]);
    }
    run(&["agent", "stop"]);
    let log = sandbox.agent_log();
    assert_eq!(log.matches("memory is not locked").count(), 1, "{log}");
    assert_eq!(log.matches("ready").count(), 2, "{log}");
}

#[test]
fn it_outlives_whoever_started_it() {
    let sandbox = Sandbox::new();
    // A shell with a process group of its own, as a terminal's; it waits for its end after the start.
    let script = format!("'{KSB}' agent start && echo started && exec cat");
    let mut shell = sandbox.command("sh");
    let mut shell = start(shell.args(["-c", &script]).process_group(0).stdin(Stdio::piped()));
    let mut word = [0; 8];
    std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut word).unwrap();
    let group = Pid::from_child(&shell);
    kill_process_group(group, Signal::HUP).unwrap();
    shell.wait().unwrap();
    let pid = sandbox.agent_pid().unwrap();
    assert_eq!(api(&sandbox).status()["pid"], pid);
    let session = |process: &str| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().to_owned()
    };
    let own = session(&pid.to_string());
    assert_ne!(own, session("self"));
    assert_ne!(own, pid.to_string(), "it leads no session, so that no terminal it opens becomes its own");
}

#[test]
fn what_keeps_it_from_starting_is_said() {
    let sandbox = Sandbox::new();
    let config = sandbox.paths().config;
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, "brwoser = 'firefox'\n").unwrap();
    let outcome = sandbox.run(&["agent", "start"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains(sandbox.paths().agent_log().to_str().unwrap()), "{}", outcome.stderr);
    assert!(sandbox.agent_log().contains("brwoser"), "{}", sandbox.agent_log());
    let outcome = sandbox.run(&["agent", "run"]);
    assert!(
        outcome.stderr.contains("brwoser") && outcome.stderr.contains("config.toml"),
        "{}",
        outcome.stderr
    );
}

/// As `systemd.socket(5)` starts it: the socket of the API and the facade's port are there before it is.
#[test]
fn it_takes_the_sockets_that_systemd_holds_and_leaves_them() {
    const SYSTEMD: &str = "
import os, socket, sys
path, program = sys.argv[1:]
os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
api, facade = socket.socket(socket.AF_UNIX), socket.socket()
api.bind(path); api.listen(); facade.bind(('127.0.0.1', 0)); facade.listen()
print(facade.getsockname()[1], flush=True)
# Out of the way of 3 and 4 first.
for held, wanted in ((os.dup2(api.fileno(), 13), 3), (os.dup2(facade.fileno(), 14), 4)):
    os.dup2(held, wanted)
os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()))
os.execv(program, [program, 'agent', 'run'])
";
    let sandbox = Sandbox::new();
    let socket = sandbox.paths().socket;
    let mut systemd = sandbox.command("python3");
    systemd.args(["-c", SYSTEMD]).arg(&socket).arg(KSB).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut agent = start(&mut systemd);
    let mut port = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(agent.stdout.take().unwrap()), &mut port)
        .unwrap();
    let status = api(&sandbox).status();
    assert_eq!(status["pid"], agent.id());
    assert_eq!(status["facade"]["url"], format!("http://127.0.0.1:{}/v3", port.trim()));
    signal(agent.id(), Signal::TERM);
    assert!(within(move || agent.wait().unwrap()).success());
    assert!(socket.exists(), "it is systemd's");
}

#[test]
fn what_a_command_had_that_died_with_its_agent_is_removed_at_the_next_start() {
    let sandbox = Sandbox::new();
    let folder = sandbox.paths().socket.parent().unwrap().to_owned();
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let of = |pid: u32| folder.join(format!("exec-{pid}"));
    let mut dead = spawn::start(&mut sandbox.command("true"));
    let dead_pid = dead.id();
    dead.wait().unwrap();
    for path in [of(dead_pid), of(std::process::id())] {
        fs::create_dir(&path).unwrap();
        fs::write(path.join("clouds.yaml"), "clouds: {}").unwrap();
    }
    started(&sandbox);
    assert!(!of(dead_pid).exists());
    assert!(of(std::process::id()).exists(), "its process lives");
}

#[test]
fn without_its_port_everything_but_the_facade_works_and_the_holder_is_named() {
    let desk = Desk::new();
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = squatter.local_addr().unwrap().port();
    fs::write(desk.sandbox.paths().config, format!("vault = \"memory\"\nfacade_port = {port}\n")).unwrap();
    desk.run_and_sign_in(&["login", "demo"], "alice").ok();
    desk.run(&["token", "demo"]).ok();
    let refused = desk.run(&["lease", "create", "demo"]);
    let holder = format!("process {}", std::process::id());
    for said in [&*format!("port {port}"), &*holder, "facade_port"] {
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
    assert!(desk.run(&["status"]).ok().stdout.contains(&holder));
}

#[test]
fn a_stop_does_not_wait_for_those_who_wait() {
    let desk = Desk::new();
    let (waiting, _) = desk.waiting(&["login"]);
    let _idle = UnixStream::connect(desk.sandbox.paths().socket).unwrap();
    desk.run(&["agent", "stop"]).ok();
    assert_eq!(desk.run(&["status", "--json"]).ok().code, Some(0));
    let outcome = end_of(waiting);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
}

#[test]
fn no_secret_is_logged_or_shown_in_the_process_list() {
    shows_no_secret(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap());
}

#[test]
fn no_secret_is_in_its_environment() {
    if !is_root() {
        skip!("root, to look into the agent's process");
    }
    shows_no_secret(|pid| environment_of(pid).join("\n"));
}

/// Neither the log of an agent that has had much to do, nor what else is looked at while it lives.
fn shows_no_secret(look: impl Fn(u32) -> String) {
    let mut desk = Desk::new();
    desk.sandbox.set("KSB_LOG", "trace");
    let (login, url) = desk.waiting(&["login"]);
    let browser = Browser::of("alice");
    let mut tab = browser.tab();
    let form = tab.go(&url).unwrap();
    let secret = tab.note(&form.action)["secret"].as_str().unwrap().to_owned();
    let claim = tab.post(&form).reply["claim"].as_str().unwrap().to_owned();
    assert_eq!(tab.claim().state, "confirm");
    assert_eq!(tab.answer(true).state, "done");
    end_of(login).ok();

    let mut canaries = vec![secret, claim];
    canaries.push(desk.run(&["token"]).ok().stdout.trim().to_owned());
    canaries.push(desk.run(&["token", "--unscoped"]).ok().stdout.trim().to_owned());
    // Ways that go wrong: a refused scope, a revoked token, an unreachable cloud, a request that is junk.
    assert_eq!(desk.run(&["token", "--project", "nowhere"]).code, Some(1));
    desk.keystone.revoke(&canaries[2]);
    let shown = desk.run(&["clouds", "show", "--json"]).ok().stdout;
    let cloud = serde_json::from_str::<Value>(&shown).unwrap()["cloud"].clone();
    desk.api().token_instead_of(&canaries[2], &cloud, &scope::project("demo")).token_id();
    desk.api().raw(&request("POST", "/v1/tokens", Some(&json!({"rejected": canaries[2]}))));
    desk.keystone.go();
    let looked = look(desk.sandbox.agent_pid().unwrap());
    assert!(!looked.is_empty());
    assert_eq!(desk.run(&["logout"]).code, Some(1));
    desk.run(&["agent", "stop"]).ok();

    canaries.extend(desk.keystone.all_tokens());
    let log = desk.sandbox.agent_log();
    assert!(log.contains("TRACE") && log.lines().count() > 30, "the log says a lot: {log}");
    for canary in &canaries {
        assert!(canary.len() >= 32, "{canary}");
        assert!(!log.contains(canary.as_str()), "{canary} is in the log");
        assert!(!looked.contains(canary.as_str()), "{canary} is in {looked}");
    }
}
