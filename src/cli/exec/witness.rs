//! Whether a signal was sent to this process alone, or to its process group, its control group or its terminal as well.
//!
//! There the command gets it as we do, and must not get it from us once more. A process beside the command, which blocks
//! all signals, tells: a signal that was sent to it stays pending.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::process::Signal;

use crate::error::{Error, Result};

/// A sender that goes from process to process may reach us before the others.
const LONGEST: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(5);

/// A process that ends with us: its standard input does.
pub(super) struct Witness(Child);

impl Witness {
    pub(super) fn start() -> Result<Self> {
        let failed = |error: std::io::Error| Error::io("signals", &error);
        // A child has its parent's mask.
        let before =
            SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(|errno| failed(errno.into()))?;
        let mut witness = Command::new(std::env::current_exe().map_err(failed)?);
        witness.args(["helper", "witness"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let witness = witness.spawn();
        before.thread_set_mask().map_err(|errno| failed(errno.into()))?;
        witness.map(Self).map_err(failed)
    }

    /// Whether the signal that came to us came to it, too.
    pub(super) async fn saw(&mut self, signal: Signal) -> Result<bool> {
        let began = Instant::now();
        while !self.has_pending(signal) {
            if began.elapsed() > LONGEST {
                return Ok(false);
            }
            tokio::time::timeout(PAUSE, std::future::pending::<()>()).await.ok();
        }
        // A pending signal hides a second one.
        *self = Self::start()?;
        Ok(true)
    }

    /// `ShdPnd` of proc_pid_status(5): signals that are pending for the whole process.
    fn has_pending(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        let pending =
            pending.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or_default();
        pending & (1 << (signal.as_raw() - 1)) != 0
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
