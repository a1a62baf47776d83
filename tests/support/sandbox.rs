//! A user's private corner of the machine: own home, own XDG directories, own agent.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

use keystone_broker::platform::paths::{Paths, lock_of};
use rustix::fs::{FileType, Mode};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::http::PATIENCE;
use super::spawn;

/// The binary under test.
pub const KSB: &str = env!("CARGO_BIN_EXE_ksb");

/// A home of one's own. The agent that was started in it ends with it.
pub struct Sandbox {
    dir: TempDir,
    env: BTreeMap<OsString, OsString>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Fails the test with everything that was printed, unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// Whatever failed, no user has to know the numbers of the operating system's errors.
impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(!stderr.contains("(os error"), "{stderr}");
        Self { code: output.status.code(), stdout, stderr }
    }
}

impl Sandbox {
    /// An empty home and a bare environment: `PATH`, the directories, and `KSB_PROMPT=never`.
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// The same where a [`super::machine::Machine`] finds it.
    pub fn outside_tmp() -> Self {
        Self::below("/var/tmp".as_ref())
    }

    fn below(parent: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("ksb").tempdir_in(parent).unwrap();
        let mut sandbox = Self { dir, env: BTreeMap::new() };
        for (name, folder) in [
            ("HOME", "home"),
            ("XDG_RUNTIME_DIR", "run"),
            ("XDG_CONFIG_HOME", "home/.config"),
            ("XDG_STATE_HOME", "home/.local/state"),
            ("XDG_CACHE_HOME", "home/.cache"),
        ] {
            let path = sandbox.path(folder);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            sandbox.set(name, path);
        }
        // No test touches the keyrings of the machine unless it means to.
        let config = sandbox.paths().config;
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        fs::write(config, "vault = \"memory\"\nfacade_port = 0\n").unwrap();
        sandbox.set("PATH", std::env::var_os("PATH").unwrap());
        sandbox.set("LANG", "C.UTF-8");
        sandbox.set("KSB_PROMPT", "never");
        sandbox
    }

    /// A path inside.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(inside)
    }

    /// Sets a variable for every command from now on.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Removes a variable for every command from now on.
    pub fn unset(&mut self, name: &str) -> &mut Self {
        self.env.remove(name.as_ref() as &std::ffi::OsStr);
        self
    }

    /// Writes the user's clouds.yaml.
    pub fn clouds(&self, yaml: &str) {
        let folder = self.path("home/.config/openstack");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("clouds.yaml"), yaml).unwrap();
    }

    /// Any program, in this home and environment and nothing else.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.env).current_dir(self.path("home")).stdin(Stdio::null());
        command
    }

    /// `ksb` with arguments, ready to be spawned.
    pub fn ksb(&self, args: &[&str]) -> Command {
        let mut command = self.command(KSB);
        command.args(args);
        command
    }

    /// Runs `ksb` to its end.
    pub fn run(&self, args: &[&str]) -> Outcome {
        end_of(self.start(args))
    }

    /// Starts `ksb`; what it prints is kept for [`end_of`].
    pub fn start(&self, args: &[&str]) -> Child {
        spawn::start(&mut self.ksb(args))
    }

    /// Makes every `ksb` from now on one that a user started, with a browser that only hands the
    /// address to [`Self::opened`].
    pub fn with_browser(&mut self) -> &mut Self {
        let (script, fifo) = (self.path("browser"), self.path("address"));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::write(&script, format!("#!/bin/sh\nprintf '%s' \"$*\" > '{}'\n", fifo.display())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        self.set("BROWSER", script).set("KSB_PROMPT", "always")
    }

    /// What the browser was told to open, as soon as it is.
    pub fn opened(&self) -> String {
        let fifo = self.path("address");
        within(move || fs::read_to_string(fifo).unwrap())
    }

    /// The directories that `ksb` uses in here.
    pub fn paths(&self) -> Paths {
        Paths {
            socket: self.path("run/keystone-broker/broker.sock"),
            fallbacks: Vec::new(),
            homeless: None,
            state: self.path("home/.local/state/keystone-broker"),
            config: self.path("home/.config/keystone-broker/config.toml"),
        }
    }

    /// The agent's process id, while it runs.
    pub fn agent_pid(&self) -> Option<u32> {
        let lock = fs::read_to_string(lock_of(&self.paths().socket)).ok()?;
        lock.lines().next()?.parse().ok()
    }

    /// Ends the agent as a loss of power would, and returns when it is gone.
    #[track_caller]
    pub fn kill_agent(&self) {
        let pid = i32::try_from(self.agent_pid().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        // Its parent may still live and has not looked yet.
        let stat = move || fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        let state = move || stat()?.rsplit(')').next()?.chars().nth(1);
        // A thread that writes dies later than the first one, and with it what listens.
        let threads = move || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        within(move || {
            while state().is_some_and(|state| state != 'Z') || threads() > 1 {
                std::thread::yield_now();
            }
        });
    }

    /// What the agent logged.
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.paths().agent_log()).unwrap_or_default()
    }
}

/// Waits until a program ends.
pub fn end_of(child: Child) -> Outcome {
    within(move || child.wait_with_output().unwrap().into())
}

/// Does what may block; fails the test when it does not end.
pub fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(work()).ok());
    wait.recv_timeout(PATIENCE).unwrap_or_else(|why| panic!("it hangs: {why}"))
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- agent.log\n{}", self.agent_log());
        }
        self.run(&["agent", "stop"]);
    }
}
