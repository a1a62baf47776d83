//! `ksb` in a terminal of its own, which reads what is typed.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::support::sandbox::{KSB, Sandbox};

/// A terminal: `script` gives its own input to the program as if it were typed.
pub struct Terminal {
    script: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    shown: String,
}

impl Terminal {
    /// Starts `ksb` with these words; `change` may change the command's folder and environment.
    pub fn start(sandbox: &Sandbox, words: &str, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = sandbox.command("script");
        command.args(["-qec", &format!("{KSB} {words}"), "/dev/null"]).env("TERM", "xterm");
        change(&mut command);
        let mut script =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (keys, screen) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
        Self { script, keys, screen, shown: String::new() }
    }

    /// All that was shown, once `text` is in it.
    #[track_caller]
    pub fn until(&mut self, text: &str) -> String {
        let mut bytes = [0; 4096];
        while !self.shown.contains(text) {
            let read = self.screen.read(&mut bytes).unwrap();
            assert!(read > 0, "the terminal ended: {}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        self.shown.clone()
    }

    pub fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The program's exit status.
    pub fn ends(mut self) -> Option<i32> {
        self.script.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.script.kill().ok();
        self.script.wait().ok();
    }
}
