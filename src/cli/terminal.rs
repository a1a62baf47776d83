//! Single keys from the controlling terminal while something else is waited for.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::termios::{
    LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcgetpgrp, tcsetattr,
};
use tokio::sync::mpsc;

use crate::model::Secret;
use crate::sync::lock_unpoisoned;

/// A key, and when it was read.
type Pressed = (Instant, u8);

/// The one reader of the terminal, while nobody uses it. It blocks in read until the process ends, because a terminal
/// cannot be waited for in any other way that works for all of them; a second one would take the first one's keys.
static READER: Mutex<Option<mpsc::Receiver<Pressed>>> = Mutex::new(None);

/// The terminal in a mode where a key counts at once and is not shown; restored when dropped.
pub(super) struct Keys {
    tty: Arc<File>,
    before: Termios,
    pressed: mpsc::Receiver<Pressed>,
    /// Keys that were read before this time are for nobody.
    not_before: Option<Instant>,
}

impl Keys {
    /// `None` without a terminal, or when this process is not in its foreground (reading would stop it).
    pub(super) fn open() -> Option<Self> {
        let tty = of_the_foreground()?;
        let before = tcgetattr(&tty).ok()?;
        let mut raw = before.clone();
        raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(&tty, OptionalActions::Now, &raw).ok()?;
        let tty = Arc::new(tty);
        let pressed = lock_unpoisoned(&READER).take().unwrap_or_else(|| read(tty.clone()));
        Some(Self { tty, before, pressed, not_before: None })
    }

    /// The next key.
    pub(super) async fn next(&mut self) -> Option<u8> {
        loop {
            let (read, key) = self.pressed.recv().await?;
            if self.not_before.is_none_or(|asked| read >= asked) {
                return Some(key);
            }
        }
    }

    /// Returns when the terminal is gone. What is typed meanwhile is for nobody.
    pub(super) async fn hang_up(&mut self) {
        while self.next().await.is_some() {}
    }

    /// Asks for a line. It is not shown: what is pasted may be worth a sign-in.
    pub(super) async fn line(&mut self, question: &str) -> Secret {
        let tty = self.tty.clone();
        write!(&*tty, "{question}: ").ok();
        let mut typed = Vec::new();
        loop {
            match self.next().await {
                None | Some(b'\n' | b'\r') => break,
                Some(8 | 127) => drop(typed.pop()),
                Some(key) => typed.push(key),
            }
        }
        writeln!(&*tty).ok();
        Secret::new(String::from_utf8(typed).unwrap_or_default())
    }

    /// Asks for a line that is shown as it is typed. Nothing typed is the default.
    pub(super) async fn shown_line(&mut self, question: &str, default: &str) -> String {
        let tty = self.tty.clone();
        let mut tty = &*tty;
        let hint = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        let colon = if question.ends_with(']') { "" } else { ":" };
        write!(tty, "{question}{hint}{colon} ").ok();
        let mut typed = Vec::new();
        loop {
            match self.next().await {
                None | Some(b'\n' | b'\r') => break,
                Some(8 | 127) if typed.pop().is_some() => drop(tty.write_all(b"\x08 \x08")),
                Some(..32 | 127) => {}
                Some(key) => {
                    typed.push(key);
                    tty.write_all(&[key]).ok();
                }
            }
        }
        writeln!(tty).ok();
        let typed = String::from_utf8(typed).unwrap_or_default().trim().to_owned();
        if typed.is_empty() { default.to_owned() } else { typed }
    }

    /// Asks for a line; anything but `y` or `yes` is a no. What was typed before the question is no answer to it.
    pub(super) async fn confirm(&mut self, question: &str) -> bool {
        tcflush(&*self.tty, QueueSelector::IFlush).ok();
        self.not_before = Some(Instant::now());
        let answer = self.shown_line(&format!("{question} [y/N]"), "").await;
        matches!(&*answer.to_lowercase(), "y" | "yes")
    }
}

/// The terminal that controls this process, if there is one.
pub(super) fn controlling() -> Option<File> {
    // Opening it fails with ENXIO for a process without one, such as cron's.
    OpenOptions::new().read(true).write(true).open("/dev/tty").ok()
}

fn of_the_foreground() -> Option<File> {
    let tty = controlling()?;
    (tcgetpgrp(&tty).ok()? == rustix::process::getpgrp()).then_some(tty)
}

fn read(tty: Arc<File>) -> mpsc::Receiver<Pressed> {
    let (press, pressed) = mpsc::channel(8);
    std::thread::spawn(move || {
        let mut key = [0];
        while (&*tty).read(&mut key).is_ok_and(|read| read == 1) {
            if press.blocking_send((Instant::now(), key[0])).is_err() {
                return;
            }
        }
    });
    pressed
}

impl Drop for Keys {
    fn drop(&mut self) {
        let pressed = std::mem::replace(&mut self.pressed, mpsc::channel(1).1);
        *lock_unpoisoned(&READER) = Some(pressed);
        tcsetattr(&self.tty, OptionalActions::Now, &self.before).ok();
    }
}
