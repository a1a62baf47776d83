//! One front port of the stack with its own request log, callback port, user and home.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use keystone_broker::platform::clock::SystemClock;
use keystone_broker::time::Clock as _;
use serde_json::{Value, json};

use super::browsers::Browsers;
use super::chromium;
use super::keystone::{self, Keystone};
use super::program::{self, Program};
use super::wait;
use crate::support::api::{Answer, Api};
use crate::support::sandbox::{KSB, Outcome, Sandbox};

/// Front `N` is `https://keystone.localhost:500N`; its callback port is `999N`, its user `userN`.
const FRONTS: u16 = 8;

/// One of the fronts, for one test at a time.
pub struct Front {
    pub number: u16,
    pub sandbox: Sandbox,
    pub browsers: Browsers,
    /// The cloud as its administrator and its services see it. Not counted.
    pub keystone: Keystone,
    log: Log,
    _taken: Turn,
}

/// What a sign-in costs the user, and the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Browsers that were opened.
    pub browsers: usize,
    /// Federated sign-ins that ended with a token.
    pub logins: usize,
    /// Tokens made from others.
    pub exchanges: usize,
}

/// A request that Keystone's front received.
#[derive(Debug, Clone)]
pub struct Request {
    /// When it came, by the front's clock.
    pub at: DateTime,
    pub method: String,
    pub path: String,
    pub status: u16,
    /// Keystone's `x-openstack-request-id`.
    pub id: String,
    pub agent: String,
}

/// A variable of `tests/stack/stack env`.
pub fn stack(name: &str) -> String {
    std::env::var(format!("KSB_STACK_{name}")).unwrap_or_else(|_| {
        panic!("KSB_STACK_{name} is not set: run `make test`, or see tests/stack/README.md")
    })
}

impl Front {
    /// Waits for the front to be free. The clouds.yaml in its home has one entry, `demo`, and its
    /// browser signs `user` in.
    pub fn take(number: u16, user: &str) -> Self {
        Self::with(Turn::wait(&format!("front-{number}")), number, user)
    }

    /// Any front that is free, and its callback port too; its browser signs in its own user.
    pub fn free() -> Self {
        let take = |number| {
            let turn = Turn::try_to(&format!("front-{number}"))?;
            TcpListener::bind(("127.0.0.1", 9990 + number)).ok().map(|_unused| (turn, number))
        };
        // The first one last: some wait for it, because it is alice's.
        let (turn, number) = wait::until("a free front", || (0..FRONTS).rev().find_map(take));
        Self::with(turn, number, &format!("user{number}"))
    }

    fn with(taken: Turn, number: u16, user: &str) -> Self {
        let mut sandbox = Sandbox::new();
        sandbox.set("OS_CLOUD", "demo");
        sandbox.set("KSB_PROMPT", "always");
        sandbox.set("KSB", KSB);
        for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("KSB_STACK_")) {
            sandbox.set(&name, value);
        }
        // The browser's script finds what the stack keeps in its cache.
        sandbox.set(
            "KSB_CACHE",
            std::env::var("KSB_CACHE").unwrap_or_else(|_| panic!("KSB_CACHE is not set: run `make test`")),
        );
        let browsers = Browsers::new(sandbox.path("browser.log"));
        sandbox.set("BROWSER", stack("BROWSER"));
        sandbox.set("KSB_BROWSER_USER", user);
        sandbox.set("KSB_BROWSER_LOG", browsers.log());
        sandbox.set("KSB_BROWSER_PROFILE", sandbox.path("profile"));
        sandbox.set("KSB_BROWSER", "http");
        let log = Log::of(5000 + number);
        let front = Self { number, sandbox, browsers, keystone: Keystone::new(&log.url), log, _taken: taken };
        front.sandbox.clouds(&format!("clouds:\n{}", front.entry("demo", "demo")));
        front
    }

    /// Has real windows opened, for what a page, its scripts or a passkey are to show. Other sign-ins go by a browser
    /// without a screen (`tests/stack/lib/http.mjs`).
    pub fn in_chromium(mut self) -> Self {
        self.sandbox.set("KSB_BROWSER", "chromium");
        self.sandbox.set("KSB_BROWSER_SERVER", chromium::socket());
        self
    }

    /// An entry of clouds.yaml for one of the projects.
    pub fn entry(&self, name: &str, project: &str) -> String {
        self.entry_at(&self.auth_url(), name, &format!("project_name: {project}, project_domain_name: lab"))
    }

    /// An entry at another address, with any scope and other options under `auth`.
    pub fn entry_at(&self, auth_url: &str, name: &str, options: &str) -> String {
        format!(
            "  {name}:\n    auth_type: v3broker\n    auth: {{auth_url: {auth_url}, identity_provider: lab-idp, \
             protocol: openid, redirect_port: {}, {options}}}\n    cacert: {}\n    region_name: RegionOne\n",
            self.callback_port(),
            stack("CA"),
        )
    }

    /// Writes clouds.yaml anew, from entries.
    pub fn clouds(&self, entries: &[String]) {
        self.sandbox.clouds(&format!("clouds:\n{}", entries.concat()));
    }

    pub fn auth_url(&self) -> String {
        format!("https://keystone.localhost:500{}/v3", self.number)
    }

    /// As text.
    pub fn port(&self) -> String {
        (5000 + self.number).to_string()
    }

    pub fn callback_port(&self) -> u16 {
        9990 + self.number
    }

    /// Whom the browser signs in with `free`.
    pub fn user(&self) -> String {
        format!("user{}", self.number)
    }

    /// The unmodified `openstack`, with the plugin installed beside it.
    pub fn openstack(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(PathBuf::from(stack("PYTHON")).with_file_name("openstack"));
        command.env("KSB", KSB).args(args);
        command
    }

    /// The API of its agent, which must run.
    pub fn api(&self) -> Api {
        Api::new(self.sandbox.paths().socket)
    }

    /// A lease by an entry of clouds.yaml, with whatever else it is to be.
    #[track_caller]
    pub fn lease(&self, entry: &str, more: &Value) -> Answer {
        let shown = self.ksb(&["clouds", "show", entry, "--json"]).ok().stdout;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let mut request = json!({"cloud": shown["cloud"], "scope": shown["scope"]});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.api().post("/v1/leases", &request)
    }

    /// Starts `ksb`.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Program {
        Program::start(self.sandbox.ksb(args))
    }

    /// Runs `ksb` to its end.
    #[track_caller]
    pub fn ksb(&self, args: &[&str]) -> Outcome {
        program::run(self.sandbox.ksb(args))
    }

    /// Runs `ksb` to its end with variables of its own.
    #[track_caller]
    pub fn ksb_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Outcome {
        let mut command = self.sandbox.ksb(args);
        command.envs(variables.iter().copied());
        program::run(command)
    }

    /// The token that `ksb token` prints.
    #[track_caller]
    pub fn token(&self, args: &[&str]) -> String {
        let words: Vec<_> = std::iter::once("token").chain(args.iter().copied()).collect();
        let outcome = self.ksb(&words).ok();
        let token = outcome.stdout.strip_suffix('\n').unwrap();
        assert!(!token.contains(char::is_whitespace), "{token}");
        token.to_owned()
    }

    /// What the answer of an `openstack … -f value -c …` is.
    #[track_caller]
    pub fn answer(&self, args: &[&str]) -> String {
        program::run(self.openstack(args)).ok().stdout.trim_end().to_owned()
    }

    /// How often a browser was opened.
    pub fn browsers_opened(&self) -> usize {
        self.browsers.all().len()
    }

    /// The requests since the last call, or since the front was taken.
    pub fn requests(&self) -> Vec<Request> {
        self.log.requests()
    }

    /// Every request since the front was taken.
    pub fn all_requests(&self) -> Vec<Request> {
        self.log.all()
    }

    /// Sign-ins since the front was taken.
    pub fn counts(&self) -> Counts {
        Counts { browsers: self.browsers_opened(), ..self.log.counts() }
    }

    /// Waits until the front has answered such a request, of those that `requests` has not handed out.
    #[track_caller]
    pub fn answered(&self, what: &str, is_it: impl Fn(&Request) -> bool) {
        wait::until(what, || self.log.so_far().iter().skip(self.log.seen.get()).any(&is_it).then_some(()));
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.browsers.log()).unwrap_or_default();
            eprintln!("--- browser.log\n{log}");
        }
        self.browsers.close();
    }
}

/// The request log of a port.
pub struct Log {
    /// The auth URL of its port.
    pub url: String,
    path: PathBuf,
    /// Where it was when we came.
    start: u64,
    /// When we came: what an earlier test's agent began before may be written later.
    since: DateTime,
    /// How many of the requests since then were handed out.
    seen: Cell<usize>,
    marks: Cell<u32>,
    keystone: Keystone,
    /// Of a port that is no front's own.
    _turn: Option<Turn>,
}

impl Log {
    /// A port that is no front's own, for one test at a time.
    pub fn take(port: u16) -> Self {
        let turn = Turn::wait(&format!("port-{port}"));
        Self { _turn: Some(turn), ..Self::of(port) }
    }

    /// That of any free port whose tokens live for a minute.
    pub fn short() -> Self {
        let ports: Vec<u16> = stack("SHORT_FRONTS").split(' ').map(|port| port.parse().unwrap()).collect();
        let take = |port: &u16| Some((Turn::try_to(&format!("port-{port}"))?, *port));
        let (turn, port) = wait::until("a free port", || ports.iter().find_map(take));
        Self { _turn: Some(turn), ..Self::of(port) }
    }

    fn of(port: u16) -> Self {
        let prefix = if port.to_string() == stack("PREFIX_FRONT") { "/identity" } else { "" };
        let url = format!("https://keystone.localhost:{port}{prefix}/v3");
        let path = Path::new(&stack("LOG")).join(format!("access-{port}.log"));
        let mut file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let start = file.seek(SeekFrom::End(0)).unwrap();
        let keystone = Keystone::new(&url);
        let since = SystemClock.now().to_zoned(TimeZone::system()).datetime();
        Self { url, path, start, since, seen: Cell::new(0), marks: Cell::new(0), keystone, _turn: None }
    }

    pub fn requests(&self) -> Vec<Request> {
        let mut all = self.all();
        let new = all.split_off(self.seen.get());
        self.seen.set(self.seen.get() + new.len());
        new
    }

    /// Everything that was answered by now.
    pub fn all(&self) -> Vec<Request> {
        self.settle();
        self.so_far()
    }

    /// What is written by now.
    fn so_far(&self) -> Vec<Request> {
        self.lines()
            .iter()
            .filter_map(|line| parse(line))
            .filter(|request| request.at >= self.since && request.agent != keystone::AGENT)
            .collect()
    }

    pub fn counts(&self) -> Counts {
        let all = self.all();
        Counts {
            browsers: 0,
            logins: all.iter().filter(|request| request.is_federated_login()).count(),
            exchanges: all.iter().filter(|request| request.is_exchange()).count(),
        }
    }

    /// A line is written when its answer is out. So this asks something that can be told from all else, and waits
    /// for its line.
    fn settle(&self) {
        let mark = format!("?mark={}-{}", std::process::id(), self.marks.replace(self.marks.get() + 1));
        self.keystone.call(reqwest::Method::GET, &mark, &[], None);
        wait::until("the request log", || self.lines().iter().any(|line| line.contains(&mark)).then_some(()));
    }

    /// The lines that are written to their ends.
    fn lines(&self) -> Vec<String> {
        let (mut file, mut text) = (File::open(&self.path).unwrap(), String::new());
        file.seek(SeekFrom::Start(self.start)).unwrap();
        file.read_to_string(&mut text).unwrap();
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    }
}

/// `time microseconds client-port method path status request-id "user agent"`
fn parse(line: &str) -> Option<Request> {
    let (facts, agent) = line.split_once('"')?;
    let mut facts = facts.split(' ');
    let at = facts.next()?.parse().ok()?;
    let mut facts = facts.skip(2);
    Some(Request {
        at,
        method: facts.next()?.to_owned(),
        path: facts.next()?.to_owned(),
        status: facts.next()?.parse().ok()?,
        id: facts.next()?.to_owned(),
        agent: agent.trim_end_matches('"').to_owned(),
    })
}

impl Request {
    /// A federated sign-in that ended with a token.
    pub fn is_federated_login(&self) -> bool {
        self.path.contains("/websso") && self.status == 200
    }

    /// A token that was made from another one (or by a password).
    pub fn is_exchange(&self) -> bool {
        self.method == "POST" && self.path.contains("/v3/auth/tokens") && self.status == 201
    }
}

/// What only one test of this machine may use at a time, whichever process it runs in.
pub struct Turn {
    /// The kernel lets go of the lock with it.
    _lock: File,
}

impl Turn {
    pub fn wait(name: &str) -> Self {
        let lock = Self::file(name);
        lock.lock().unwrap();
        Self { _lock: lock }
    }

    fn try_to(name: &str) -> Option<Self> {
        let lock = Self::file(name);
        lock.try_lock().is_ok().then_some(Self { _lock: lock })
    }

    fn file(name: &str) -> File {
        let path = Path::new(&stack("DIR")).join(format!("test-{name}.lock"));
        OpenOptions::new().write(true).create(true).truncate(false).open(&path).unwrap()
    }
}
