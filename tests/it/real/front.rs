//! One front port of the stack with its own request log, callback port, user and home.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::support::sandbox::Sandbox;

/// A front serves one test at a time: its request log is what the test counts.
static FRONTS: [Mutex<()>; 8] = [const { Mutex::new(()) }; 8];

/// `https://keystone.localhost:500N`, callback port `999N`.
pub struct Front {
    pub number: u16,
    pub sandbox: Sandbox,
    log: File,
    _taken: MutexGuard<'static, ()>,
}

/// A request that Keystone's front received.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub status: u16,
    pub agent: String,
}

/// A variable of `tests/stack/stack env`.
pub fn stack(name: &str) -> String {
    std::env::var(format!("KSB_STACK_{name}"))
        .unwrap_or_else(|_| panic!("KSB_STACK_{name} is not set: run `make test`, or see tests/stack/README.md"))
}

impl Front {
    /// Waits for the front to be free. The clouds.yaml in its home has one entry, `demo`, and its
    /// browser signs `user` in.
    pub fn take(number: u16, user: &str) -> Self {
        let taken = FRONTS[usize::from(number)].lock().unwrap_or_else(PoisonError::into_inner);
        let mut sandbox = Sandbox::new();
        sandbox.set("OS_CLOUD", "demo");
        sandbox.set("KSB_PROMPT", "always");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KSB_STACK_")) {
            sandbox.set(&name, std::env::var(&name).unwrap());
        }
        // The browser's script finds what the stack keeps in its cache.
        sandbox.set("KSB_CACHE", std::env::var("KSB_CACHE").unwrap_or_else(|_| panic!("KSB_CACHE is not set: run `make test`")));
        sandbox.set("BROWSER", stack("BROWSER"));
        sandbox.set("KSB_BROWSER_USER", user);
        sandbox.set("KSB_BROWSER_LOG", sandbox.path("browser.log"));
        sandbox.set("KSB_BROWSER_PROFILE", sandbox.path("profile"));
        let log_path = PathBuf::from(stack("DIR")).join(format!("log/access-500{number}.log"));
        let mut log = File::open(&log_path).unwrap_or_else(|error| panic!("{}: {error}", log_path.display()));
        log.seek(SeekFrom::End(0)).unwrap();
        let front = Self { number, sandbox, log, _taken: taken };
        front.sandbox.clouds(&format!("clouds:\n{}", front.entry("demo", "demo")));
        front
    }

    /// An entry of clouds.yaml for one of the projects.
    pub fn entry(&self, name: &str, project: &str) -> String {
        format!(
            "  {name}:\n    auth_type: v3broker\n    auth:\n      auth_url: {}\n      identity_provider: lab-idp\n      \
             protocol: openid\n      project_name: {project}\n      project_domain_name: lab\n      redirect_port: {}\n    \
             cacert: {}\n    region_name: RegionOne\n",
            self.auth_url(),
            self.callback_port(),
            stack("CA"),
        )
    }

    pub fn auth_url(&self) -> String {
        format!("https://keystone.localhost:500{}/v3", self.number)
    }

    pub fn callback_port(&self) -> u16 {
        9990 + self.number
    }

    /// The unmodified `openstack`, with the plugin installed beside it.
    pub fn openstack(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(PathBuf::from(stack("PYTHON")).with_file_name("openstack"));
        command.env("KSB", crate::support::sandbox::KSB).args(args);
        command
    }

    /// How often a browser was opened.
    pub fn browsers_opened(&self) -> usize {
        let log = fs::read_to_string(self.sandbox.path("browser.log")).unwrap_or_default();
        log.lines().filter(|line| line.split(' ').nth(2) == Some("open")).count()
    }

    /// The requests since the last call, or since the front was taken.
    pub fn requests(&mut self) -> Vec<Request> {
        let mut text = String::new();
        self.log.read_to_string(&mut text).unwrap();
        text.lines().filter_map(parse).collect()
    }
}

/// `time microseconds client-port method path status request-id "user agent"`
fn parse(line: &str) -> Option<Request> {
    let (facts, agent) = line.split_once('"')?;
    let mut facts = facts.split(' ').skip(3);
    Some(Request {
        method: facts.next()?.to_owned(),
        path: facts.next()?.to_owned(),
        status: facts.next()?.parse().ok()?,
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
        self.method == "POST" && self.path.starts_with("/v3/auth/tokens") && self.status == 201
    }
}
