//! A user at a terminal: `script` gives its own input to a program as if it were typed.

use std::io::Write;
use std::process::{Child, ChildStdin, Stdio};

use super::program::Heard;
use super::wait;
use crate::support::sandbox::Sandbox;
use crate::support::spawn;

/// A program in a terminal of its own.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Heard,
    /// How much of the screen was handed out.
    seen: usize,
}

impl Terminal {
    /// Starts a shell command, which sees the sandbox's environment and these variables, and no browser.
    pub fn start(sandbox: &Sandbox, command: &str, variables: &[(&str, &str)]) -> Self {
        let mut script = sandbox.command("script");
        script.args(["-qec", command, "/dev/null"]).env("TERM", "xterm").env_remove("BROWSER");
        script.envs(variables.iter().copied());
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn::raw(&mut script);
        let (keys, screen) = (child.stdin.take().unwrap(), Heard::from(child.stdout.take().unwrap()));
        Self { child, keys, screen, seen: 0 }
    }

    /// What came to the screen since the last call, as soon as `text` did.
    #[track_caller]
    pub fn shows(&mut self, text: &str) -> String {
        let seen = self.seen;
        let found = self.screen.wait_for(|screen| {
            let new = screen.get(seen..)?;
            new.find(text).map(|at| new[..at + text.len()].to_owned())
        });
        let Some(shown) = found else {
            panic!("the terminal never shows {text:?}, but: {}", self.screen.so_far());
        };
        self.seen += shown.len();
        shown
    }

    pub fn types(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// The whole screen, and the exit status.
    #[track_caller]
    pub fn ends(mut self) -> (String, Option<i32>) {
        let status = wait::at_most(wait::LIMIT, || self.child.try_wait().unwrap());
        let Some(status) = status else { panic!("the terminal does not end: {}", self.screen.so_far()) };
        (self.screen.to_the_end().unwrap_or_default(), status.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
