//! `ksb exec`, `ksb env` and `ksb lease`: what a command gets, what it gets rid of, and what is left of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::cli::Terminal;
use crate::support::api::Api;
use crate::support::browser::Browser;
use crate::support::desk::Desk;
use crate::support::http::Response;
use crate::support::keystone::PASSWORD;
use crate::support::lab::until;
use crate::support::sandbox::{KSB, Outcome, end_of, within};
use crate::support::spawn::{copy, start};
use crate::support::tool::{Tool, token};

/// What a command says before it goes on for as long as its input does.
const SHOWS_ITS_ENVIRONMENT: &str = "env -0; printf READY; exec cat >&2";

/// A command that runs under `ksb exec`, and shows what it was given.
pub struct Running {
    ksb: Child,
    input: Option<ChildStdin>,
    env: BTreeMap<String, String>,
}

impl Running {
    fn under(desk: &Desk, args: &[&str]) -> Self {
        let mut ksb = desk.sandbox.ksb(&["exec"]);
        Self::of(ksb.args(args).args(["--", "sh", "-c", SHOWS_ITS_ENVIRONMENT]))
    }

    fn of(command: &mut Command) -> Self {
        let mut ksb = start(command.stdin(Stdio::piped()));
        let mut output = ksb.stdout.take().unwrap();
        let shown = within(move || {
            let mut shown = Vec::new();
            while !shown.ends_with(b"READY") {
                let mut byte = [0];
                if output.read(&mut byte).unwrap() == 0 {
                    break;
                }
                shown.push(byte[0]);
            }
            String::from_utf8(shown).unwrap()
        });
        let variables = shown.split('\0').filter_map(|variable| variable.split_once('='));
        let env = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { input: ksb.stdin.take(), ksb, env }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.ksb)
    }

    pub fn get(&self, name: &str) -> &str {
        self.env.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.env.keys()))
    }

    /// The command as a client of the facade, by its variables.
    fn tool(&self) -> Tool {
        let (id, secret) = ("OS_APPLICATION_CREDENTIAL_ID", "OS_APPLICATION_CREDENTIAL_SECRET");
        client(self.get("OS_AUTH_URL"), self.get(id), self.get(secret))
    }

    pub fn clouds(&self) -> PathBuf {
        self.get("OS_CLIENT_CONFIG_FILE").into()
    }

    /// The entries of its clouds.yaml.
    fn entries(&self) -> Value {
        let text = fs::read_to_string(self.clouds()).unwrap();
        let json = text.split_once('\n').unwrap().1;
        serde_json::from_str::<Value>(json).unwrap()["clouds"].take()
    }

    /// The same by an entry of its clouds.yaml.
    fn tool_of(&self, cloud: &str) -> Tool {
        let auth = self.entries()[cloud]["auth"].take();
        let text = |key: &str| auth[key].as_str().unwrap().to_owned();
        client(&text("auth_url"), &text("application_credential_id"), &text("application_credential_secret"))
    }

    /// The variables that clients of OpenStack look at.
    fn of_openstack(&self) -> BTreeSet<&str> {
        let names = self.env.keys().map(String::as_str);
        names.filter(|name| name.starts_with("OS_") || name.starts_with("ST_")).collect()
    }

    /// Ends its input, and so the command.
    pub fn end(mut self) -> Outcome {
        drop(self.input.take());
        end_of(self.ksb)
    }
}

fn client(auth_url: &str, id: &str, secret: &str) -> Tool {
    let facade = auth_url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/v3"));
    let facade = facade.unwrap_or_else(|| panic!("{auth_url}")).parse().unwrap();
    Tool { id: id.into(), secret: secret.into(), handle: String::new(), facade }
}

fn signed_in() -> Desk {
    let desk = Desk::new();
    desk.run_and_sign_in(&["login"], "alice").ok();
    desk
}

fn project(answer: &Response) -> String {
    token(answer);
    answer.json()["token"]["project"]["name"].as_str().unwrap().to_owned()
}

/// The directory of the command's clouds.yaml goes, and its secret is good no more.
#[track_caller]
fn leaves_nothing(tool: &Tool, clouds: &Path) {
    until("the directory is gone", || !clouds.parent().unwrap().exists());
    until("the secret is refused", || tool.ask().status == 401);
}

// --- what a command gets ---

#[test]
fn nothing_of_another_identity_reaches_the_command() {
    let mut desk = signed_in();
    let stale = [
        "OS_CLOUD",
        "OS_CLOUD_NAME",
        "OS_TOKEN",
        "OS_AUTH_TOKEN",
        "OS_AUTH_TYPE",
        "OS_USERNAME",
        "OS_USERID",
        "OS_USER_ID",
        "OS_PASSWORD",
        "OS_PASSCODE",
        "OS_PROJECT_ID",
        "OS_PROJECT_NAME",
        "OS_PROJECT_DOMAIN_NAME",
        "OS_TENANT_NAME",
        "OS_TENANT_ID",
        "OS_DOMAIN_NAME",
        "OS_USER_DOMAIN_NAME",
        "OS_DEFAULT_DOMAIN",
        "OS_TRUST_ID",
        "OS_SYSTEM_SCOPE",
        "OS_APPLICATION_CREDENTIAL_NAME",
        "OS_STORAGE_URL",
        "OS_ALLOW_REAUTH",
        "OS_INSECURE",
        "OS_PROFILE",
        "ST_AUTH",
        "ST_USER",
        "ST_KEY",
        "ST_AUTH_VERSION",
        "OS_INTERFACE",
        "OS_IDENTITY_API_VERSION",
    ];
    for name in stale {
        desk.sandbox.set(name, "stale");
    }
    desk.sandbox.set("OS_AUTH_URL", "https://stale.example.org/v3");
    let theirs =
        [("OS_COMPUTE_API_VERSION", "2.90"), ("NO_PROXY", "corp.example"), ("HTTPS_PROXY", "http://proxy:1")];
    for (name, value) in theirs {
        desk.sandbox.set(name, value);
    }
    let running = Running::under(&desk, &["demo"]);
    let expected = BTreeSet::from([
        "OS_APPLICATION_CREDENTIAL_ID",
        "OS_APPLICATION_CREDENTIAL_SECRET",
        "OS_AUTH_TYPE",
        "OS_AUTH_URL",
        "OS_CLIENT_CONFIG_FILE",
        "OS_CLIENT_SECURE_FILE",
        "OS_COMPUTE_API_VERSION",
        "OS_ENDPOINT_TYPE",
        "OS_IDENTITY_API_VERSION",
        "OS_INTERFACE",
    ]);
    assert_eq!(running.of_openstack(), expected);
    assert!(running.env.values().all(|value| value != "stale"));
    assert_eq!(running.get("OS_AUTH_TYPE"), "v3applicationcredential");
    for name in ["NO_PROXY", "no_proxy"] {
        assert_eq!(running.get(name), "corp.example,127.0.0.1,localhost,::1");
    }
    assert_eq!(running.get("HTTPS_PROXY"), "http://proxy:1");
    assert_eq!(project(&running.tool().ask()), "demo");
    assert_eq!(running.tool_of("demo").id, running.tool().id);
    let outcome = running.end().ok();
    assert!(outcome.stderr.starts_with("ksb: demo: not used beside an entry of clouds.yaml: OS_AUTH_URL, "));
    assert_eq!(outcome.stderr.lines().count(), 1);
}

#[test]
fn the_command_s_own_clouds_yaml_is_private_and_keeps_what_is_not_about_signing_in() {
    let desk = signed_in();
    let beside = "    interface: internal\n    compute_api_version: '2.90'\n    region_name: north\n    verify: false\n";
    desk.sandbox.clouds(&format!("clouds:\n{}{beside}", desk.entry("demo", "project_name: demo")));
    let running = Running::under(&desk, &["demo"]);
    let (clouds, tool) = (running.clouds(), running.tool());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let secure = PathBuf::from(running.get("OS_CLIENT_SECURE_FILE"));
    assert_eq!((mode(clouds.parent().unwrap()), mode(&clouds), mode(&secure)), (0o700, 0o600, 0o600));
    assert_eq!(fs::read_to_string(&secure).unwrap(), "");
    let expected = json!({"demo": {
        "auth_type": "v3applicationcredential",
        "auth": {
            "auth_url": running.get("OS_AUTH_URL"),
            "application_credential_id": tool.id,
            "application_credential_secret": tool.secret,
        },
        "interface": "internal", "compute_api_version": "2.90", "region_name": "north", "verify": false,
        "identity_api_version": "3",
    }});
    assert_eq!(running.entries(), expected);
    assert_eq!((running.get("OS_REGION_NAME"), running.get("OS_INTERFACE")), ("north", "internal"));
    assert_eq!(running.get("OS_INSECURE"), "true");
    running.end().ok();
    leaves_nothing(&tool, &clouds);
}

/// All that a reader of YAML may trip over.
pub const HOSTILE: &str = "a: b # \"c\" 'd' \n\t{e} é \u{85}\u{2028}\u{feff} 🔑 \\";

/// A command with a lease for an entry that has a hostile name, and a hostile value for `compute_api_version`.
pub fn under_a_hostile_name() -> (Desk, Running) {
    let desk = signed_in();
    let hostile = escaped(HOSTILE);
    let entry = desk.entry("NAME", "project_name: demo").replacen("NAME", &format!("\"{hostile}\""), 1);
    desk.sandbox.clouds(&format!("clouds:\n{entry}    compute_api_version: \"{hostile}\\0\"\n"));
    let running = Running::under(&desk, &[HOSTILE]);
    (desk, running)
}

/// For a double-quoted scalar.
fn escaped(text: &str) -> String {
    text.chars().map(|char| format!("\\U{:08x}", u32::from(char))).collect::<Vec<_>>().concat()
}

#[test]
fn hostile_names_and_values_are_what_they_were_to_a_reader_of_yaml() {
    let (desk, running) = under_a_hostile_name();
    assert!(fs::read_to_string(running.clouds()).unwrap().is_ascii());
    // `ksb` reads YAML as PyYAML does (`real::files` asks that one), but shows no application credentials.
    let secure = desk.sandbox.path("secure.yaml");
    let of_a_person = "auth_type: v3websso, auth: {identity_provider: lab-idp, protocol: openid}";
    fs::write(&secure, format!("clouds: {{\"{}\": {{{of_a_person}}}}}", escaped(HOSTILE))).unwrap();
    let mut show = desk.sandbox.ksb(&["clouds", "show", HOSTILE, "--json"]);
    show.env("OS_CLIENT_CONFIG_FILE", running.clouds()).env("OS_CLIENT_SECURE_FILE", secure);
    let shown = end_of(start(&mut show)).ok().stdout;
    let entry = &serde_json::from_str::<Value>(&shown).unwrap()["entry"];
    assert_eq!(entry["compute_api_version"], format!("{HOSTILE}\0"));
    assert_eq!(entry["auth"]["auth_url"], running.get("OS_AUTH_URL"));
    running.end().ok();
}

#[test]
fn a_secure_yaml_that_programs_in_go_would_lay_over_the_lease_is_told() {
    let mut desk = signed_in();
    let (none, file) = (desk.sandbox.path("none.yaml"), desk.sandbox.path("home/secure.yaml"));
    fs::write(&none, "").unwrap();
    fs::write(&file, "clouds:\n  demo:\n    auth: {password: hush}\n").unwrap();
    // Heeded by us and by Python, not by them.
    desk.sandbox.set("OS_CLIENT_SECURE_FILE", none);
    let outcome = desk.run(&["exec", "demo", "--", "true"]).ok();
    let told = format!("ksb: demo: `password` in {} wins over this command's lease", file.display());
    assert!(outcome.stderr.starts_with(&told) && outcome.stderr.lines().count() == 1, "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("hush"));
}

#[test]
fn two_clouds_in_one_command_have_a_lease_each_and_no_variables() {
    let mut desk = signed_in();
    desk.sandbox.clouds(&format!(
        "clouds:\n{}{}{}",
        desk.entry("one", "project_name: demo"),
        desk.entry("two", "project_name: staging"),
        desk.entry("three", "project_name: production")
    ));
    desk.sandbox.set("OS_CLOUD", "three");
    let running = Running::under(&desk, &["one", "two"]);
    assert_eq!(running.of_openstack(), BTreeSet::from(["OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE"]));
    let names: Vec<_> = running.entries().as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["one", "two", "three"]);
    assert_eq!(running.entries()["three"]["auth_type"], "v3broker", "as it is");
    let (one, two) = (running.tool_of("one"), running.tool_of("two"));
    assert_ne!(one.id, two.id);
    assert_eq!((project(&one.ask()), project(&two.ask())), ("demo".into(), "staging".into()));
    let mixed = Tool { secret: two.secret.clone(), ..one.clone() };
    assert_eq!(mixed.ask().status, 401);
    let clouds = running.clouds();
    running.end().ok();
    leaves_nothing(&one, &clouds);
    leaves_nothing(&two, &clouds);

    desk.sandbox.set("OS_CLOUD", "two");
    let running = Running::under(&desk, &["one", "two"]);
    assert_eq!(running.get("OS_CLOUD"), "two", "the one of them that is meant is still meant");
    running.end().ok();
}

#[test]
fn other_shapes_of_the_same_lease_name_the_project() {
    let desk = signed_in();
    desk.write_cloud("project_name: demo");
    let running = Running::under(&desk, &["demo", "--as", "password"]);
    let url = running.get("OS_AUTH_URL");
    let tool = client(url, running.get("OS_USERNAME"), running.get("OS_PASSWORD"));
    let user = json!({"name": tool.id, "password": tool.secret, "domain": {"name": running.get("OS_USER_DOMAIN_NAME")}});
    let scope = json!({"project": {"id": running.get("OS_PROJECT_ID")}});
    let by_password = json!({"methods": ["password"], "password": {"user": user}});
    assert_eq!(project(&tool.auth(&by_password, Some(&scope)).send()), "demo");
    assert!(!running.env.contains_key("OS_APPLICATION_CREDENTIAL_ID"));
    running.end().ok();

    let running = Running::under(&desk, &["demo", "--as", "token"]);
    let by_token = json!({"methods": ["token"], "token": {"id": running.get("OS_TOKEN")}});
    let scope = json!({"project": {"id": running.get("OS_PROJECT_ID")}});
    assert_eq!(project(&tool.auth(&by_token, Some(&scope)).send()), "demo");
    assert_eq!(running.get("OS_AUTH_TYPE"), "v3token");
    running.end().ok();
}

#[test]
fn keys_for_s3_end_with_the_command() {
    let mut desk = signed_in();
    desk.sandbox.set("AWS_PROFILE", "work").set("AWS_SESSION_TOKEN", "stale");
    let running = Running::under(&desk, &["demo", "--s3"]);
    assert_eq!(desk.keystone.ec2().len(), 1);
    assert!(!running.get("AWS_ACCESS_KEY_ID").is_empty() && !running.get("AWS_SECRET_ACCESS_KEY").is_empty());
    assert_eq!(running.get("AWS_ENDPOINT_URL"), running.get("AWS_ENDPOINT_URL_S3"));
    assert_eq!((running.get("AWS_REGION"), running.get("AWS_DEFAULT_REGION")), ("us-east-1", "us-east-1"));
    for gone in ["AWS_PROFILE", "AWS_SESSION_TOKEN"] {
        assert!(!running.env.contains_key(gone), "{gone}");
    }
    running.end().ok();
    until("the keys are gone", || desk.keystone.ec2().is_empty());
}

#[test]
fn a_confined_command_is_confined_at_keystone_and_its_credentials_go_with_it() {
    let desk = signed_in();
    let running = Running::under(&desk, &["demo", "--confined"]);
    let tool = running.tool();
    assert_eq!(project(&tool.ask()), "demo");
    assert_eq!(tool.ask_for(&json!({"project": {"name": "staging", "domain": {"name": "lab"}}})).status, 401);
    assert_eq!(desk.keystone.credentials().len(), 2);
    running.end().ok();
    until("its credentials are gone", || desk.keystone.credentials().is_empty());
}

// --- how it runs and ends ---

#[test]
fn the_command_s_input_output_and_status_are_its_own() {
    let desk = Desk::new();
    let script = "read line; printf '%s|%s' \"$line\" \"$1\"; echo aside >&2; exit 7";
    let mut ksb = desk.sandbox.ksb(&["exec", "demo", "--", "sh", "-c", script, "sh", "two words --for"]);
    let mut ksb = start(ksb.stdin(Stdio::piped()));
    ksb.stdin.take().unwrap().write_all(b"a line\n").unwrap();
    let outcome = end_of(ksb);
    assert_eq!(
        (outcome.code, &*outcome.stdout, &*outcome.stderr),
        (Some(7), "a line|two words --for", "aside\n")
    );
    assert_eq!(desk.keystone.requests(), 0, "a command that asks for nothing signs nobody in");

    let killed = desk.run(&["exec", "demo", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!((killed.code, &*killed.stderr), (None, ""), "killed, as the command is without ksb");
    let missing = desk.run(&["exec", "demo", "--", "no-such-thing"]);
    assert_eq!((missing.code, &*missing.stderr), (Some(127), "ksb: no-such-thing: no such command\n"));
    let file = desk.sandbox.path("home/plain");
    fs::write(&file, "").unwrap();
    let plain = desk.run(&["exec", "demo", "--", file.to_str().unwrap()]);
    assert_eq!(plain.code, Some(126));
    assert!(plain.stderr.contains("plain: cannot be run"), "{}", plain.stderr);
    until("no lease is left", || desk.api().get("/v1/leases").json["leases"] == json!([]));
}

pub fn lines_of(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (say, said) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            if say.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    said
}

#[test]
fn a_killed_command_leaves_nothing() {
    let desk = signed_in();
    let script = format!("echo $$ > pid; {SHOWS_ITS_ENVIRONMENT}");
    let running = Running::of(&mut desk.sandbox.ksb(&["exec", "demo", "--", "sh", "-c", &script]));
    let (tool, clouds) = (running.tool(), running.clouds());
    let given = tool.token();
    assert!(desk.keystone.accepts(&given));
    let pid = fs::read_to_string(desk.sandbox.path("home/pid")).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    assert_eq!(end_of(running.ksb).code, None);
    leaves_nothing(&tool, &clouds);
    until("its token is revoked", || !desk.keystone.accepts(&given));
}

#[test]
fn a_killed_ksb_leaves_nothing() {
    let desk = signed_in();
    let running = Running::under(&desk, &["demo"]);
    let (tool, clouds) = (running.tool(), running.clouds());
    let given = tool.token();
    kill_process(running.pid(), Signal::KILL).unwrap();
    leaves_nothing(&tool, &clouds);
    until("its token is revoked", || !desk.keystone.accepts(&given));
    assert_eq!(desk.api().get("/v1/leases").json["leases"], json!([]));
    drop(running.input);
}

#[test]
fn an_agent_that_dies_is_started_again_without_a_word() {
    let desk = signed_in();
    let running = Running::under(&desk, &["demo"]);
    let first = desk.sandbox.agent_pid().unwrap();
    desk.sandbox.kill_agent();
    until("there is another agent", || desk.sandbox.agent_pid().is_some_and(|pid| pid != first));
    let outcome = running.end().ok();
    assert_eq!(outcome.stderr, "");
}

// --- signing in meanwhile ---

/// Shows its environment on a terminal that is not its standard output, and goes on until a file appears.
const GOES_ON: &str = "env -0 > env; mv env shown; until [ -e end ]; do sleep 0.02; done; echo over";

fn shown_in(desk: &Desk) -> Tool {
    let shown = desk.sandbox.path("home/shown");
    until("it shows its environment", || shown.exists());
    let shown = fs::read_to_string(shown).unwrap();
    let get =
        |name: &str| shown.split('\0').find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    client(get("OS_AUTH_URL"), get("OS_APPLICATION_CREDENTIAL_ID"), get("OS_APPLICATION_CREDENTIAL_SECRET"))
}

#[test]
fn a_command_that_waits_for_a_sign_in_says_so_at_the_terminal_and_goes_on() {
    // Also where its own output goes elsewhere.
    for (agent, elsewhere) in [("", ""), ("", "2>/dev/null"), ("--ephemeral", "")] {
        let desk = Desk::new();
        let run = format!("exec {agent} demo -- sh -c '{GOES_ON}' {elsewhere}");
        let terminal = Terminal::run(&desk, &run, &desk.sandbox.path("home"));
        let tool = shown_in(&desk);
        let asked = std::thread::spawn(move || tool.ask());
        let url = desk.sandbox.opened();
        terminal.until(&format!("ksb: demo: sign in: {url} (sh waits, 4:5"));
        assert_eq!(Browser::of("alice").tab().sign_in(&url).state, "done");
        assert_eq!(project(&asked.join().unwrap()), "demo");
        terminal.until("ksb: demo: signed in; sh goes on");
        fs::write(desk.sandbox.path("home/end"), "").unwrap();
        terminal.until("over");
        assert_eq!(terminal.end(), Some(0));
    }
}

#[test]
fn a_command_without_a_terminal_has_its_sign_in_in_the_browser_and_its_pipes_to_itself() {
    let desk = Desk::new();
    let running = Running::under(&desk, &["demo"]);
    let tool = running.tool();
    let asked = std::thread::spawn(move || tool.ask());
    assert_eq!(desk.sign_in("alice").state, "done");
    assert_eq!(project(&asked.join().unwrap()), "demo");
    // Would not end if a process that lives on held its output.
    assert_eq!(running.end().ok().stderr, "");
}

#[test]
fn nobody_is_asked_where_there_is_no_person() {
    let mut desk = Desk::new();
    desk.run_and_sign_in(&["login"], "alice").ok();
    desk.sandbox.set("KSB_PROMPT", "never");
    let running = Running::under(&desk, &["demo"]);
    for token in desk.keystone.all_tokens() {
        desk.keystone.revoke(&token);
    }
    let refused = running.tool().ask();
    assert_eq!(refused.status, 401);
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("ksb login demo"));
    assert_eq!(running.end().ok().stderr, "");
    for args in [&[][..], &["--at-least", "4h"], &["--confined"]] {
        let outcome = desk.run(&[&["exec", "demo"][..], args, &["--", "true"]].concat());
        assert_eq!(outcome.code, Some(75), "{outcome:?}");
    }
}

#[test]
fn a_session_that_is_too_short_is_said_before_the_command_starts() {
    let desk = Desk::new();
    let outcome =
        desk.run_and_sign_in(&["exec", "demo", "--at-least", "12h", "--", "echo", "on"], "alice").ok();
    assert_eq!(outcome.stdout, "on\n");
    assert!(outcome.stderr.contains("ksb: demo: you are signed in until "), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("sooner than asked"), "{}", outcome.stderr);
    let enough = desk.run(&["exec", "demo", "--at-least", "10m", "--", "true"]).ok();
    assert_eq!((&*enough.stderr, desk.keystone.logins()), ("", 1));
}

#[test]
fn who_signs_in_on_the_terminal_does_so_before_the_command_has_it() {
    let desk = Desk::new();
    desk.keystone.asks_for(&["password"]);
    let entry = format!(
        "  demo: {{auth_type: v3multifactor, auth_methods: [v3password], auth: {{auth_url: '{}/v3', username: mfa0, \
         user_domain_name: Default, password: '{PASSWORD}', project_name: demo, project_domain_name: lab}}}}\n",
        desk.keystone.url()
    );
    desk.sandbox.clouds(&format!("clouds:\n{entry}"));
    let running = Running::under(&desk, &["demo"]);
    assert_eq!(desk.api().status()["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(project(&running.tool().ask()), "demo");
    assert!(!fs::read_to_string(running.clouds()).unwrap().contains(PASSWORD));
    running.end().ok();
}

// --- without the agent ---

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { BTreeSet::from([path]) }).collect()
}

#[test]
fn without_the_agent_nothing_stays_behind() {
    let desk = Desk::new();
    let folder = desk.sandbox.path("");
    let (before, folders) = (files(&folder), fs::read_dir(desk.sandbox.path("run")).unwrap().count());
    let running = Running::under(&desk, &["--ephemeral", "demo"]);
    let tool = running.tool();
    let asked = std::thread::spawn({
        let tool = tool.clone();
        move || tool.ask()
    });
    assert_eq!(desk.sign_in("alice").state, "done");
    let given = token(&asked.join().unwrap());
    assert!(desk.keystone.accepts(&given));
    assert!(running.get("KSB_SOCK").starts_with(desk.sandbox.path("run").to_str().unwrap()));
    running.end().ok();
    assert_eq!(files(&folder), before);
    assert_eq!(fs::read_dir(desk.sandbox.path("run")).unwrap().count(), folders);
    assert!(desk.sandbox.agent_pid().is_none());
    assert!(desk.keystone.all_tokens().iter().all(|token| !desk.keystone.accepts(token)));
    assert!(tool.auth(&tool.credential(), None).try_send().is_err(), "the facade has ended, too");
}

/// The facade would be gone in the middle of an apply.
#[test]
fn without_the_agent_nothing_takes_the_place_of_the_one_within() {
    let desk = Desk::new();
    let program = desk.sandbox.path("home/ksb");
    copy(KSB, &program);
    let mut ksb = desk.sandbox.command(&program);
    ksb.args(["exec", "--ephemeral", "demo", "--", "sh", "-c", SHOWS_ITS_ENVIRONMENT]);
    let running = Running::of(&mut ksb);
    let tool = running.tool();
    let asked = std::thread::spawn({
        let tool = tool.clone();
        move || tool.ask()
    });
    assert_eq!(desk.sign_in("alice").state, "done");
    token(&asked.join().unwrap());
    // A newer program is installed meanwhile.
    fs::remove_file(&program).unwrap();
    copy(KSB, &program);
    let within = Api::new(running.get("KSB_SOCK"));
    for refused in [within.poke("/v1/handover"), within.post("/v1/lock", &json!({}))] {
        refused.problem("handover-refused");
        assert!(refused.json["detail"].as_str().unwrap().contains("ksb exec --ephemeral"), "{refused:?}");
    }
    assert!(desk.keystone.accepts(&token(&tool.ask())));
    running.end().ok();
}

#[test]
fn without_the_agent_a_command_has_all_of_its_time_to_end() {
    let desk = Desk::new();
    let script = "trap 'read line; exit 3' TERM; env -0; printf READY; while :; do sleep 0.1; done";
    let mut ksb = desk.sandbox.ksb(&["exec", "--ephemeral", "demo", "--", "sh", "-c", script]);
    let mut running = Running::of(&mut ksb);
    kill_process(running.pid(), Signal::TERM).unwrap();
    let tool = running.tool();
    let asked = std::thread::spawn(move || tool.ask());
    assert_eq!(desk.sign_in("alice").state, "done");
    token(&asked.join().unwrap());
    running.input.as_mut().unwrap().write_all(b"done\n").unwrap();
    assert_eq!(running.end().code, Some(3));
}

// --- variables and leases by hand ---

#[test]
fn variables_of_a_lease_survive_a_shell_and_serve_a_tool() {
    let mut desk = signed_in();
    desk.sandbox.set("OS_CLOUD", "demo").set("OS_PASSWORD", "stale");
    for args in ["env", "lease create", "env --shell bash", "env --shell zsh", "env demo --tool swift"] {
        let script = format!("eval \"$(\"$0\" {args})\" && env -0 && printf READY");
        let running = Running::of(desk.sandbox.command("sh").args(["-c", &script, KSB]));
        assert_eq!(project(&running.tool().ask()), "demo", "{args}");
        for gone in ["OS_CLOUD", "OS_PASSWORD"] {
            assert!(!running.env.contains_key(gone), "{args}: {gone}");
        }
        assert_eq!(running.env.contains_key("ST_AUTH_VERSION"), args.contains("swift"));
        let said = running.end().ok().stderr;
        assert!(said.contains("its holder gets the whole identity"), "{said}");
    }
}

#[test]
fn a_lease_that_ends_sooner_than_asked_tells_its_real_end_first_and_exits_with_4() {
    let desk = signed_in();
    for command in [&["env"][..], &["lease", "create"]] {
        desk.run(command).ok();
        desk.run(&[command, &["--lifetime", "30m"]].concat()).ok();
        let cut = desk.run(&[command, &["--lifetime", "4h"]].concat());
        assert_eq!(cut.code, Some(4), "{cut:?}");
        assert!(cut.stdout.contains("OS_APPLICATION_CREDENTIAL_SECRET"), "it is made all the same");
        let first = cut.stderr.lines().next().unwrap();
        assert!(first.contains(", when your session ends; after a new sign-in until "), "{first}");
        assert!(cut.stderr.ends_with("demo: that is sooner than asked\n"), "{}", cut.stderr);
    }
}

#[test]
fn a_lease_is_made_listed_and_ended() {
    let desk = signed_in();
    let made = desk.run(&["lease", "create", "--name", "ci job", "--lifetime", "30m", "--json"]).ok();
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let text = |at: &str| made.pointer(at).unwrap().as_str().unwrap();
    let tool = client(text("/auth_url"), text("/lease/id"), text("/secret"));
    let given = tool.token();
    let listed = desk.run(&["lease", "list"]).ok().stdout;
    assert!(listed.starts_with("ci job: demo for project demo, the whole identity, until "), "{listed}");
    assert!(listed.contains(&tool.id) && !listed.contains(&tool.secret), "{listed}");
    let json: Value = serde_json::from_str(&desk.run(&["lease", "list", "--json"]).ok().stdout).unwrap();
    assert_eq!(json["leases"].as_array().unwrap().len(), 1);
    let ended = desk.run(&["lease", "revoke", "ci job"]).ok().stdout;
    assert_eq!(ended, "demo: lease ci job has ended; 1 token(s) revoked\n");
    assert_eq!(tool.ask().status, 401);
    assert!(!desk.keystone.accepts(&given));

    let again = desk.run(&["lease", "revoke", "ci job"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("Try: ksb lease list"), "{}", again.stderr);
    desk.run(&["lease", "create"]).ok();
    desk.run(&["lease", "create"]).ok();
    // One that is not there does not keep another alive.
    desk.run(&["lease", "create", "--name", "last"]).ok();
    assert_eq!(desk.run(&["lease", "revoke", "nope", "last"]).code, Some(1));
    assert_eq!(desk.run(&["lease", "revoke", "--all"]).ok().stdout.lines().count(), 2);
    assert!(desk.run(&["lease", "list"]).ok().stdout.starts_with("There are no leases."));
}
