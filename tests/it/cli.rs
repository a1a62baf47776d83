//! The command line: what is printed where, and how it ends.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::desk::Desk;
use crate::support::http::PATIENCE;
use crate::support::lab::until;
use crate::support::openapi;
use crate::support::sandbox::{KSB, Outcome, Sandbox, end_of, within};
use crate::support::spawn::start;

/// The one line that says what went wrong and what helps.
#[track_caller]
fn assert_fails(outcome: &Outcome, code: i32, parts: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert_eq!(outcome.stdout, "", "{outcome:?}");
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{}", outcome.stderr);
    assert!(lines[0].starts_with("ksb: ") && !lines[0].contains('\x1b'), "{}", lines[0]);
    for part in parts {
        assert!(lines[0].contains(part), "{part} is missing: {}", lines[0]);
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

// --- ksb token ---

#[test]
fn token_prints_the_id_and_nothing_else_on_standard_output() {
    let desk = Desk::new();
    let first = desk.run_and_sign_in(&["token"], "alice").ok();
    let token = first.stdout.trim_end().to_owned();
    assert_eq!(first.stdout, format!("{token}\n"));
    assert!(desk.keystone.accepts(&token));
    assert!(first.stderr.contains("ksb: demo: sign in: http://localhost:"), "{}", first.stderr);
    assert!(!first.stderr.contains('\x1b'), "no spinner where there is no terminal: {:?}", first.stderr);

    let again = desk.run(&["token", "demo"]).ok();
    assert_eq!((again.stdout, &*again.stderr), (first.stdout, ""));
    let staging = desk.run(&["token", "--project", "staging", "--project-domain", "lab"]).ok();
    assert_ne!(staging.stdout.trim_end(), token);
    assert_eq!(desk.keystone.logins(), 1);
}

#[test]
fn token_as_json_is_what_the_api_answers() {
    let desk = Desk::new();
    desk.run_and_sign_in(&["login"], "alice").ok();
    let reply = json(&desk.run(&["token", "--json"]).ok().stdout);
    openapi::check_answer("POST", "/v1/tokens", 200, Some("application/json"), &reply.to_string());
    assert_eq!(reply["body"]["token"]["project"]["name"], "demo");
}

#[test]
fn token_as_variables_survives_a_shell() {
    let desk = Desk::new();
    let region = "it's $(touch pwned) `touch pwned` \"quoted\" \\";
    let entry = format!("{}    region_name: {}\n", desk.entry("demo", "project_name: demo"), json!(region));
    desk.sandbox.clouds(&format!("clouds:\n{entry}"));
    desk.run_and_sign_in(&["login"], "alice").ok();
    let script = "export OS_CLOUD=demo; eval \"$(\"$0\" token --env)\" && \
                  printf '%s\\n' \"$OS_TOKEN\" \"$OS_AUTH_TYPE\" \"$OS_AUTH_URL\" \"$OS_REGION_NAME\" \"${OS_CLOUD-unset}\"";
    for shell in ["sh", "bash"] {
        let mut shell = desk.sandbox.command(shell);
        let said = end_of(start(shell.args(["-c", script, KSB]))).ok().stdout;
        let token = desk.run(&["token"]).ok().stdout;
        let expected = format!("{token}v3token\n{}/v3\n{region}\nunset\n", desk.keystone.url());
        assert_eq!(said, expected);
    }
    assert!(!desk.sandbox.path("home/pwned").exists());
}

#[test]
fn without_a_person_nothing_is_prompted_and_75_is_the_answer() {
    let mut desk = Desk::new();
    desk.sandbox.set("KSB_PROMPT", "never");
    assert_fails(&desk.run(&["token"]), 75, &["demo: nobody is signed in", "Try: ksb login demo"]);
    assert_fails(&desk.run(&["projects"]), 75, &["demo: nobody is signed in", "Try: ksb login demo"]);
    assert_eq!(desk.api().status()["sign_ins"], json!([]));
    assert_eq!(desk.keystone.requests(), 0);
}

#[test]
fn a_project_name_alone_says_what_was_assumed() {
    let desk = Desk::new();
    desk.write_cloud("project_name: demo");
    let outcome = desk.run_and_sign_in(&["token"], "alice").ok();
    assert!(outcome.stderr.contains("ksb: demo: project demo was looked for in your own domain, lab"));
    let refused = desk.run(&["token", "--project", "nowhere"]);
    assert_fails(
        &refused,
        1,
        &["demo: no token for project nowhere", "your own domain, lab", "(req-", "ksb projects demo"],
    );
}

// --- ksb login ---

#[test]
fn login_says_who_and_until_when_and_asks_once() {
    let desk = Desk::new();
    let outcome = desk.run_and_sign_in(&["login"], "alice").ok();
    assert!(outcome.stdout.starts_with("demo: signed in as alice (lab) until "), "{}", outcome.stdout);
    let again = desk.run(&["login", "--at-least", "30m"]).ok();
    assert!(again.stdout.starts_with("demo: signed in as alice"), "{}", again.stdout);
    assert_eq!(desk.keystone.logins(), 1);
}

#[test]
fn login_for_longer_than_can_be_had_ends_with_4() {
    let desk = Desk::new();
    let outcome = desk.run_and_sign_in(&["login", "--at-least", "12h"], "alice");
    assert_eq!(outcome.code, Some(4));
    assert!(outcome.stdout.starts_with("demo: signed in as alice (lab) until "), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("sooner than asked"), "{}", outcome.stderr);
    assert_eq!(desk.keystone.logins(), 1, "one sign-in was enough to find out");
}

#[test]
fn a_login_that_nobody_finishes_ends_and_the_next_command_opens_no_browser() {
    let desk = Desk::new();
    desk.write_cloud("login_timeout: 1");
    let (login, _) = desk.waiting(&["login"]);
    let outcome = end_of(login);
    assert_eq!(outcome.code, Some(1));
    let last = outcome.stderr.lines().last().unwrap();
    assert!(last.contains("nobody finished signing in within 1 seconds"), "{last}");
    assert!(last.contains("Try: ksb login demo"), "{last}");
    assert_fails(&desk.run(&["token"]), 75, &["no browser is opened for another", "ksb login demo"]);
}

#[test]
fn switching_the_user_changes_over() {
    let desk = Desk::new();
    desk.run_and_sign_in(&["login"], "alice").ok();
    let entry = "[clouds.demo]\nbrowser = \"sh -c '\\\"$BROWSER\\\" {url}'\"\n";
    let config = desk.sandbox.paths().config;
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, entry).unwrap();
    desk.run(&["agent", "stop"]).ok();
    desk.run_and_sign_in(&["login"], "alice").ok();
    let outcome = desk.run_and_sign_in(&["login", "--switch-user"], "bob").ok();
    assert!(outcome.stdout.starts_with("demo: signed in as bob (lab)"), "{}", outcome.stdout);
}

#[test]
fn ctrl_c_ends_the_sign_in_that_nobody_else_waits_for() {
    let desk = Desk::new();
    let (login, _) = desk.waiting(&["login"]);
    kill_process(Pid::from_child(&login), Signal::INT).unwrap();
    let outcome = end_of(login);
    assert_eq!(outcome.code, Some(130));
    assert!(outcome.stderr.contains("the sign-in was called off"), "{}", outcome.stderr);
    until("it is over", || desk.api().status()["sign_ins"] == json!([]));
}

#[test]
fn two_accounts_are_signed_in_at_once() {
    let desk = Desk::new();
    desk.run_and_sign_in(&["login", "--account", "work"], "alice").ok();
    desk.run_and_sign_in(&["login", "--account", "own"], "bob").ok();
    let status = desk.run(&["status"]).ok().stdout;
    for part in ["account work", "account own", "alice (lab)", "bob (lab)"] {
        assert!(status.contains(part), "{status}");
    }
}

#[test]
fn one_opens_the_browser_and_the_others_show_the_address() {
    let desk = Desk::new();
    let (first, url) = desk.waiting(&["token"]);
    let mut second = desk.sandbox.start(&["token", "--unscoped"]);
    let mut lines = BufReader::new(second.stderr.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), format!("ksb: demo: sign in: {url}"));
    assert_eq!(Browser::of("alice").tab().sign_in(&url).state, "done");
    let (first, second) = (end_of(first).ok(), end_of(second).ok());
    assert!(
        desk.keystone.accepts(first.stdout.trim_end()) && desk.keystone.accepts(second.stdout.trim_end())
    );
    assert_eq!(desk.keystone.logins(), 1);
}

// --- at a terminal ---

/// A command at a terminal of its own, whose user types.
pub struct Terminal {
    script: Child,
    keys: ChildStdin,
    screen: mpsc::Receiver<u8>,
}

impl Terminal {
    pub fn run(desk: &Desk, args: &str, folder: &Path) -> Self {
        Self::run_program(desk, &format!("'{KSB}' {args}"), folder)
    }

    pub fn run_program(desk: &Desk, program: &str, folder: &Path) -> Self {
        let mut script = desk.sandbox.command("script");
        script.args(["-qefc", &format!("exec {program}"), "/dev/null"]).current_dir(folder);
        let mut script = start(script.stdin(Stdio::piped()));
        let (keys, output) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
        let (show, screen) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(output).bytes().try_for_each(|byte| show.send(byte.unwrap()))
        });
        Self { script, keys, screen }
    }

    /// Reads on until this is on the screen; what came on it meanwhile.
    #[track_caller]
    pub fn until(&self, text: &str) -> String {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let byte = self.screen.recv_timeout(PATIENCE);
            seen.push(byte.unwrap_or_else(|_| panic!("no {text:?} on {}", String::from_utf8_lossy(&seen))));
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    pub fn press(&mut self, key: char) {
        self.types(&key.to_string());
    }

    pub fn types(&mut self, text: &str) {
        write!(self.keys, "{text}").unwrap();
        self.keys.flush().unwrap();
    }

    /// The window is closed.
    fn kill(&self) {
        let pid = i32::try_from(self.script.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    pub fn end(mut self) -> Option<i32> {
        let status = within(move || self.script.wait().unwrap());
        status.code()
    }
}

#[test]
fn a_token_from_another_browser_is_taken_with_a_key_and_a_yes() {
    let desk = Desk::new();
    let mut terminal = Terminal::run(&desk, "login", &desk.sandbox.path("home"));
    let browser = Browser::of("alice");
    let form = browser.tab().go(&desk.sandbox.opened()).unwrap();
    terminal.until("waiting for the browser");
    terminal.press('c');
    terminal.until("no page in another browser waits");
    let mut elsewhere = browser.tab();
    elsewhere.post(&form);
    let code = elsewhere.claim().reply["code"].as_str().unwrap().to_owned();
    for typed in ["", "n", "maybe", "y"] {
        terminal.press('c');
        terminal.until(&format!(
            "the code {code}, and do you want to be alice (lab) at lab-idp for demo? [y/N] "
        ));
        terminal.types(&format!("{typed}\r"));
        terminal.until(&format!("{typed}\r\n"));
        let waiting = desk.api().status()["sign_ins"].as_array().unwrap().len();
        assert!(typed == "y" || waiting == 1, "a no leaves the sign-in as it was");
    }
    terminal.until("signed in as alice (lab)");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_closed_tab_is_opened_again_by_a_key_and_by_the_next_command() {
    let desk = Desk::new();
    let home = desk.sandbox.path("home");
    let mut terminal = Terminal::run(&desk, "login", &home);
    let url = desk.sandbox.opened();
    terminal.until("o: open the browser again");
    terminal.press('o');
    assert_eq!(desk.sandbox.opened(), url, "the same attempt");
    // Another terminal, while the first one waits: it shows the address and opens nothing.
    let second = Terminal::run(&desk, "login", &home);
    second.until(&url);
    // Killed with its terminal: nobody waits any more.
    for terminal in [&terminal, &second] {
        terminal.kill();
    }
    let sign_ins = || desk.api().status()["sign_ins"].as_array().unwrap().len();
    assert_eq!(sign_ins(), 1);
    until("nobody waits", || desk.api().status()["sign_ins"][0]["waiters"] == 0);
    let third = Terminal::run(&desk, "login", &home);
    assert_eq!(desk.sandbox.opened(), url);
    assert_eq!(Browser::of("alice").tab().sign_in(&url).state, "done");
    third.until("signed in as alice (lab)");
    assert_eq!(third.end(), Some(0));
}

#[test]
fn ctrl_c_of_the_last_command_that_waits_ends_the_sign_in() {
    let desk = Desk::new();
    let home = desk.sandbox.path("home");
    let mut first = Terminal::run(&desk, "login", &home);
    let url = desk.sandbox.opened();
    first.until("waiting for the browser");
    let mut second = Terminal::run(&desk, "token", &home);
    second.until("waiting for the browser");
    let sign_ins = || desk.api().status()["sign_ins"].as_array().unwrap().len();
    first.press('\x03');
    first.until("not waiting any longer; another command waits for the sign-in");
    assert_eq!((first.end(), sign_ins()), (Some(130), 1));
    second.press('\x03');
    second.until("the sign-in was called off");
    assert_eq!(second.end(), Some(130));
    until("it is over", || sign_ins() == 0);
    let third = Terminal::run(&desk, "login", &home);
    assert_ne!(desk.sandbox.opened(), url, "a new attempt, in the browser");
    drop(third);
}

#[test]
fn a_sign_in_is_shown_by_the_name_that_was_asked_for() {
    let desk = Desk::new();
    desk.sandbox.clouds(&format!("clouds:\n{}{}", desk.entry("demo", ""), desk.entry("other", "")));
    let home = desk.sandbox.path("home");
    let first = Terminal::run(&desk, "login demo", &home);
    let url = desk.sandbox.opened();
    first.until("demo: waiting for the browser");
    let second = Terminal::run(&desk, "login other", &home);
    second.until(&format!("ksb: other: sign in: {url}"));
    second.until("other: waiting for the browser");
    assert_eq!(Browser::of("alice").tab().sign_in(&url).state, "done");
    second.until("other: signed in as alice (lab)");
    first.until("demo: signed in as alice (lab)");
}

#[test]
fn a_strangers_cloud_is_used_after_a_yes_only() {
    let desk = Desk::new();
    let repository = desk.sandbox.path("home/cloned");
    fs::create_dir(&repository).unwrap();
    fs::write(repository.join("clouds.yaml"), format!("clouds:\n{}", desk.entry("theirs", ""))).unwrap();
    for typed in ["n\r", "\r"] {
        let mut terminal = Terminal::run(&desk, "login", &repository);
        terminal.until("cloned/clouds.yaml");
        terminal.until("Sign in there? [y/N] ");
        terminal.types(typed);
        terminal.until("ksb trust theirs");
        assert_eq!(terminal.end(), Some(1));
    }
    assert_eq!(desk.keystone.requests(), 0);
    let mut terminal = Terminal::run(&desk, "login", &repository);
    terminal.until("Sign in there? [y/N] ");
    terminal.types("yes\r");
    assert_eq!(desk.sign_in("alice").state, "done");
    terminal.until("signed in as alice (lab)");
    assert_eq!(terminal.end(), Some(0));
}

// --- the other commands ---

#[test]
fn status_as_json_keeps_its_shape() {
    let desk = Desk::new();
    let nobody = json(&desk.run(&["status", "--json"]).ok().stdout);
    assert_eq!(nobody, json!({"running": false, "sessions": [], "sign_ins": []}));
    assert!(desk.sandbox.agent_pid().is_none(), "looking starts nothing");
    assert!(desk.run(&["status"]).ok().stdout.contains("ksb login"));

    desk.run_and_sign_in(&["token"], "alice").ok();
    let mut status = json(&desk.run(&["status", "--json"]).ok().stdout);
    assert_eq!(status["running"], true);
    status.as_object_mut().unwrap().remove("running");
    openapi::check_answer("GET", "/v1/status", 200, Some("application/json"), &status.to_string());
    let session = &status["sessions"][0];
    let keys: Vec<_> = session.as_object().unwrap().keys().map(String::as_str).collect();
    let stable = [
        "clouds",
        "auth_url",
        "identity_provider",
        "protocol",
        "user",
        "signed_in_at",
        "expires_at",
        "renews",
        "offline_access",
        "kept_by_tab",
        "ends_soon",
        "scopes",
        "tls_verified",
    ];
    assert_eq!(keys, stable);
    let words = desk.run(&["status"]).ok().stdout;
    for part in ["demo: alice (lab) by lab-idp/openid until ", "project demo: token until ", "process "] {
        assert!(words.contains(part), "{part} is missing: {words}");
    }
}

#[test]
fn logout_says_what_it_revoked_and_that_the_browser_is_still_signed_in() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["logout"]).ok().stdout, "demo: nobody was signed in\n");
    assert!(desk.sandbox.agent_pid().is_none());
    desk.write_cloud("logout_url: https://idp.example/logout");
    desk.run_and_sign_in(&["token", "--project", "demo"], "alice").ok();
    let outcome = desk.run(&["logout"]).ok();
    assert_eq!(
        outcome.stdout,
        "demo: alice (lab) is signed out; 2 token(s) revoked\n\
         demo: your browser is still signed in; end that too: https://idp.example/logout\n"
    );
    assert!(desk.keystone.all_tokens().iter().all(|token| !desk.keystone.accepts(token)));
    assert_eq!(desk.run(&["logout", "--all"]).ok().stdout, "nobody was signed in\n");
}

#[test]
fn logout_without_keystone_names_what_lives_on() {
    let desk = Desk::new();
    desk.run_and_sign_in(&["token"], "alice").ok();
    desk.keystone.go();
    let outcome = desk.run(&["logout", "--all"]);
    assert_eq!(outcome.code, Some(1));
    let said = outcome.stdout;
    assert!(said.contains("alice (lab) is signed out; 0 token(s) revoked"), "{said}");
    for scope in ["unscoped", "project demo"] {
        assert!(said.contains(&format!("demo: NOT revoked: {scope} token, lives until ")), "{said}");
    }
    assert_eq!(json(&desk.run(&["status", "--json"]).ok().stdout)["sessions"], json!([]));
}

#[test]
fn projects_lists_what_can_be_reached() {
    let desk = Desk::new();
    let outcome = desk.run_and_sign_in(&["projects"], "alice").ok();
    let names: Vec<_> = outcome
        .stdout
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(names, ["project demo", "project staging", "project production"]);
    let reach = json(&desk.run(&["projects", "--json"]).ok().stdout);
    openapi::check_answer("POST", "/v1/projects", 200, Some("application/json"), &reach.to_string());
    assert_eq!(reach["projects"].as_array().unwrap().len(), 3);
}

#[test]
fn a_shown_cloud_is_a_request_of_the_api() {
    let desk = Desk::new();
    desk.write_cloud("password: canary\n      project_name: demo");
    let shown = desk.run(&["clouds", "show", "--json"]).ok();
    assert!(!shown.stdout.contains("canary"), "{}", shown.stdout);
    let shown = json(&shown.stdout);
    desk.run(&["agent", "start"]).ok();
    let request = json!({"cloud": shown["cloud"], "scope": shown["scope"]});
    desk.api().post("/v1/tokens", &request).problem("sign-in-needed");
    assert_eq!(shown["cloud"]["sign_in"]["redirect_port"], desk.port);

    let words = desk.run(&["clouds", "show"]).ok().stdout;
    for part in [
        desk.keystone.url(),
        "lab-idp",
        "project demo",
        &format!("http://localhost:{}/auth/websso/", desk.port),
    ] {
        assert!(words.contains(part), "{part} is missing: {words}");
    }
    assert!(!words.contains("canary"));
}

#[test]
fn a_cloud_of_the_current_folder_is_asked_about_first() {
    let desk = Desk::new();
    let repository = desk.sandbox.path("home/cloned");
    fs::create_dir(&repository).unwrap();
    fs::write(
        repository.join("clouds.yaml"),
        format!("clouds:\n{}", desk.entry("theirs", "project_name: demo")),
    )
    .unwrap();
    let ksb = |args: &[&str]| end_of(start(desk.sandbox.ksb(args).current_dir(&repository)));
    // Nobody is there to be asked.
    let refused = ksb(&["token"]);
    assert_fails(&refused, 1, &["cloned/clouds.yaml", "127.0.0.1", "lab-idp", "ksb trust theirs"]);
    assert_eq!(desk.keystone.requests(), 0);
    let trusted = ksb(&["trust"]).ok().stdout;
    assert!(
        trusted.starts_with("theirs: http://127.0.0.1:") && trusted.ends_with("is trusted\n"),
        "{trusted}"
    );
    let token = start(desk.sandbox.ksb(&["token"]).current_dir(&repository));
    assert_eq!(desk.sign_in("alice").state, "done");
    end_of(token).ok();
}

// --- what goes wrong ---

#[test]
fn wrong_usage_ends_with_2() {
    let sandbox = Sandbox::new();
    for args in [
        &[][..],
        &["nonsense"],
        &["token", "--nonsense"],
        &["token", "--system", "--unscoped"],
        &["token", "--project", "a", "--domain", "b"],
        &["token", "--project-domain", "a"],
        &["token", "--json", "--env"],
        &["login", "--at-least", "a while"],
        &["login", "--at-least", "0s"],
        &["logout", "demo", "--all"],
        &["cloud"],
        &["completions", "tcsh-ish"],
        &["exec"],
        &["exec", "demo"],
        &["exec", "demo", "--as", "ticket", "--", "true"],
        &["env", "--shell", "tcsh"],
        &["lease"],
        &["lease", "create", "--lifetime", "1h", "--unattended", "1h"],
        &["lease", "revoke"],
        &["lease", "revoke", "a", "--all"],
    ] {
        let outcome = sandbox.run(args);
        assert_eq!((outcome.code, &*outcome.stdout), (Some(2), ""), "{args:?}: {outcome:?}");
        assert!(outcome.stderr.contains("--help") || outcome.stderr.contains("Usage"), "{}", outcome.stderr);
    }
    assert!(sandbox.agent_pid().is_none());
}

/// It would ask the desktop's keyring for the vault's key.
#[test]
fn the_keyring_helper_does_nothing_for_a_user() {
    let sandbox = Sandbox::new();
    for help in [&["--help"][..], &["agent", "--help"]] {
        assert!(!sandbox.run(help).ok().stdout.contains("keyring-helper"));
    }
    let socket = |kind| socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    let (pipe, mut asked) = std::io::pipe().unwrap();
    let (stream, asking) = socket(SocketType::STREAM);
    let (packets, other) = socket(SocketType::SEQPACKET);
    asked.write_all(b"r0123456789abcdef").unwrap();
    send(&asking, b"r0123456789abcdef", SendFlags::empty()).unwrap();
    send(&other, b"what is the key?", SendFlags::empty()).unwrap();
    for input in [Stdio::null(), pipe.into(), stream.into(), packets.into()] {
        let mut helper = sandbox.ksb(&["agent", "--keyring-helper"]);
        let outcome = end_of(start(helper.stdin(input)));
        assert_fails(&outcome, 1, &["only the agent starts its keyring helper"]);
    }
    assert!(sandbox.agent_pid().is_none());
}

#[test]
fn every_failure_is_one_line_with_the_cloud_and_what_helps() {
    let desk = Desk::new();
    assert_fails(
        &desk.run(&["token", "nowhere"]),
        1,
        &["nowhere: no cloud of this name, only demo", "Try: "],
    );
    desk.keystone.go();
    assert_fails(&desk.run(&["login"]), 1, &["demo: Keystone at 127.0.0.1:", "Try: check the network"]);
    desk.keystone.come_back();
    let squatter = std::net::TcpListener::bind(("127.0.0.1", desk.port)).unwrap();
    let me = format!("process {}", std::process::id());
    assert_fails(&desk.run(&["login"]), 1, &["demo: port ", "is held by", &me, "Try: "]);
    drop(squatter);

    let two = format!(
        "clouds:\n{}{}",
        desk.entry("demo", "project_name: demo"),
        desk.entry("other", "project_id: x")
    );
    desk.sandbox.clouds(&two);
    assert_fails(&desk.run(&["token"]), 1, &["no cloud is named", "demo, other", "OS_CLOUD"]);
    desk.sandbox.clouds("clouds:\n  demo: [\n");
    assert_fails(&desk.run(&["token", "demo"]), 1, &["clouds.yaml", "line "]);
    fs::remove_file(desk.sandbox.path("home/.config/openstack/clouds.yaml")).unwrap();
    assert_fails(&desk.run(&["token"]), 1, &["no clouds.yaml", "Try: ksb setup, or write "]);
}

#[test]
fn os_cloud_names_the_cloud() {
    let mut desk = Desk::new();
    let two = format!(
        "clouds:\n{}{}",
        desk.entry("demo", "project_name: demo"),
        desk.entry("other", "project_name: staging")
    );
    desk.sandbox.clouds(&two);
    desk.sandbox.set("OS_CLOUD", "other");
    let outcome = desk.run_and_sign_in(&["token", "--json"], "alice").ok();
    assert_eq!(json(&outcome.stdout)["body"]["token"]["project"]["name"], "staging");
}

#[test]
fn completions_are_scripts_that_the_shell_accepts() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = sandbox.run(&["completions", shell]).ok().stdout;
        for word in ["login", "logout", "switch-user", "project-domain"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        if shell == "bash" {
            let file = sandbox.path("completions");
            fs::write(&file, &script).unwrap();
            end_of(start(Command::new("bash").arg("-n").arg(&file))).ok();
        }
    }
}

#[test]
fn help_names_every_exit_status() {
    let sandbox = Sandbox::new();
    let help = sandbox.run(&["--help"]).ok().stdout;
    for part in ["0 done", "1 failed", "2 wrong usage", "4 it ends sooner", "75 a person", "130 interrupted"]
    {
        assert!(help.contains(part), "{part} is missing: {help}");
    }
    let version = sandbox.run(&["--version"]).ok().stdout;
    assert_eq!(version, format!("ksb {}\n", env!("CARGO_PKG_VERSION")));
}

/// A reader that has seen enough is no failure; a disk that is full is one.
#[test]
fn a_closed_pipe_is_quiet_and_a_full_disk_is_reported() {
    let desk = Desk::new();
    desk.run_and_sign_in(&["login"], "alice").ok();
    for command in ["status", "projects", "token", "env", "lease list --json", "completions bash"] {
        let run = |to: &str| {
            let script = format!("set -o pipefail; \"$0\" {command} {to}");
            end_of(crate::support::spawn::start(desk.sandbox.command("bash").args(["-c", &script, KSB])))
        };
        let closed = run("| true");
        assert!(!closed.stderr.contains("panicked") && closed.code == Some(0), "{command}: {closed:?}");
        let full = run("> /dev/full");
        let told = "ksb: standard output: No space left on device";
        assert!(full.code == Some(1) && full.stderr.contains(told), "{command}: {full:?}");
    }
}
