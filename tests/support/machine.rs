//! Another machine with the same home: name spaces with processes, `/tmp`, `/run` and, if wished, a machine-id of their own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use super::sandbox::{KSB, Outcome, Sandbox, end_of};
use super::spawn;

/// Where the sandbox has the `/tmp` of this machine.
const REAL_TMP: &str = "real-tmp";

/// The machine. All its processes end when it is dropped.
pub struct Machine<'a> {
    sandbox: &'a Sandbox,
    unshare: Child,
    /// Its process 1, by the number that it has here.
    init: String,
    in_user_namespace: bool,
}

impl<'a> Machine<'a> {
    /// With what the shell `script` mounts or makes besides. The sandbox must lie outside of `/tmp`.
    pub fn start(sandbox: &'a Sandbox, script: &str) -> Self {
        Self::with(sandbox, script, &["--map-root-user", "--mount"])
    }

    /// The same where files can belong to other users. Needs root.
    pub fn with_other_users(sandbox: &'a Sandbox, script: &str) -> Self {
        Self::with(sandbox, script, &["--mount"])
    }

    fn with(sandbox: &'a Sandbox, script: &str, namespaces: &[&str]) -> Self {
        assert!(!sandbox.path("").starts_with("/tmp"));
        let program = sandbox.path("ksb");
        // The program itself may lie below `/tmp`.
        let script = format!(
            "mkdir -p {tmp}; mount --rbind /tmp {tmp}; touch {program}; mount --bind {KSB} {program}\n\
             mount -t tmpfs -o mode=1777 tmpfs /tmp; mount -t tmpfs -o mode=755 tmpfs /run\n\
             {script}\necho ready; exec cat",
            tmp = sandbox.path(REAL_TMP).display(),
            program = program.display()
        );
        let mut command = sandbox.command("unshare");
        command.args(namespaces).args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-ec", &script]);
        let mut unshare = spawn::start(command.stdin(Stdio::piped()));
        let mut said = String::new();
        BufReader::new(unshare.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said.is_empty() {
            let mut why = String::new();
            unshare.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!("no machine: {why}");
        }
        let pid = unshare.id();
        let init = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        Self {
            sandbox,
            unshare,
            init: init.trim().to_owned(),
            in_user_namespace: namespaces.contains(&"--map-root-user"),
        }
    }

    /// A program there, in the environment of the sandbox. What lies below the real `/tmp` is found there, too.
    pub fn command(&self, program: &str) -> Command {
        let program = match program.strip_prefix("/tmp/") {
            Some(below) => self.sandbox.path(REAL_TMP).join(below),
            None => program.into(),
        };
        let mut command = self.sandbox.command("nsenter");
        command.args(["--target", &self.init, "--mount", "--pid"]);
        if self.in_user_namespace {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// `ksb` there, ready to be spawned.
    pub fn ksb(&self, args: &[&str]) -> Command {
        let mut command = self.command(self.sandbox.path("ksb").to_str().unwrap());
        command.args(args);
        command
    }

    /// Runs `ksb` there to its end.
    pub fn run(&self, args: &[&str]) -> Outcome {
        end_of(spawn::start(&mut self.ksb(args)))
    }

    /// Runs a shell script there.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let mut command = self.command("sh");
        end_of(spawn::start(command.args(["-ec", script]))).ok().stdout
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.unshare.kill().unwrap();
        self.unshare.wait().unwrap();
    }
}
