//! A program that runs beside the test: what it says so far, how it ends.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait;
use crate::support::sandbox::Outcome;
use crate::support::spawn;

/// A program under way; it is killed when nobody wants its end.
pub struct Program {
    what: String,
    child: Child,
    stdout: Heard,
    stderr: Heard,
}

impl Program {
    /// Starts `command` with both outputs caught.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let what = words(&command);
        let mut child = spawn::start(&mut command);
        let stdout = Heard::from(child.stdout.take().unwrap());
        let stderr = Heard::from(child.stderr.take().unwrap());
        Self { what, child, stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line on stderr that holds `text`, as soon as it is there.
    #[track_caller]
    pub fn says(&self, text: &str) -> String {
        match self.stderr.wait_for(|heard| heard.lines().find(|line| line.contains(text)).map(str::to_owned))
        {
            Some(line) => line,
            None => panic!("{} never said {text:?}, but: {}", self.what, self.stderr.so_far()),
        }
    }

    /// Whether stderr holds `text` by now.
    pub fn has_said(&self, text: &str) -> bool {
        self.stderr.so_far().contains(text)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and for the end of its output: what a shell's `$(…)` waits for.
    #[track_caller]
    pub fn ends(self) -> Outcome {
        self.ends_within(wait::LIMIT)
    }

    /// The same for one that is meant to take longer.
    #[track_caller]
    pub fn ends_within(mut self, limit: Duration) -> Outcome {
        let status = wait::at_most(limit, || self.child.try_wait().unwrap());
        let Some(status) = status else {
            panic!("{} hangs; so far: {}{}", self.what, self.stdout.so_far(), self.stderr.so_far());
        };
        let output = [&self.stdout, &self.stderr].map(|heard| match heard.to_the_end() {
            Some(text) => text,
            None => panic!("{} ended, but something still holds its output: {}", self.what, heard.so_far()),
        });
        let [stdout, stderr] = output;
        Outcome { code: status.code().or(status.signal().map(|signal| -signal)), stdout, stderr }
    }
}

/// The command without its environment.
fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Runs `command` to its end.
#[track_caller]
pub fn run(command: Command) -> Outcome {
    Program::start(command).ends()
}

/// Runs all of them at once, to the last one's end.
#[track_caller]
pub fn run_all(commands: impl IntoIterator<Item = Command>) -> Vec<Outcome> {
    let programs: Vec<_> = commands.into_iter().map(Program::start).collect();
    programs.into_iter().map(Program::ends).collect()
}

/// What came out of a pipe so far, and whether that is all.
pub struct Heard {
    state: Arc<(Mutex<(String, bool)>, Condvar)>,
}

impl Heard {
    pub fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let state = Arc::new((Mutex::new((String::new(), false)), Condvar::new()));
        let shared = state.clone();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                let read = pipe.read(&mut chunk).unwrap_or(0);
                let mut heard = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                heard.0.push_str(&String::from_utf8_lossy(&chunk[..read]));
                heard.1 = read == 0;
                shared.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        Self { state }
    }

    /// Until `look` finds something, or nothing can come any more.
    pub fn wait_for<T>(&self, mut look: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let (text, news) = &*self.state;
        let heard = text.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        let waiting = |(text, ended): &mut (String, bool)| {
            found = look(text);
            found.is_none() && !*ended
        };
        drop(news.wait_timeout_while(heard, wait::LIMIT, waiting).unwrap_or_else(PoisonError::into_inner));
        found
    }

    pub fn to_the_end(&self) -> Option<String> {
        let (text, news) = &*self.state;
        let heard = text.lock().unwrap_or_else(PoisonError::into_inner);
        let (heard, late) = news
            .wait_timeout_while(heard, wait::LIMIT, |(_, ended)| !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        (!late.timed_out()).then(|| heard.0.clone())
    }

    pub fn so_far(&self) -> String {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}
