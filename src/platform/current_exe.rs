//! The program that this process runs: where it lies, whether another one lies there by now, what it needs of its
//! environment.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// The program itself, also when its file has gone.
pub const OWN: &str = "/proc/self/exe";

/// The format of what an agent hands to the next one. It changes when an earlier program would not understand that.
pub const HANDOVER: u32 = 2;

/// Time for a program to say what it is.
const TRIAL: Duration = Duration::from_secs(10);

/// Where it was installed.
pub fn path() -> PathBuf {
    let path = fs::read_link(OWN).unwrap_or_default();
    // So the kernel marks a file that was removed or replaced (proc_pid_exe(5)).
    match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(path) => path.into(),
        None => path,
    }
}

/// Whether another program lies there now, put there by us or by root, as far as its mode tells.
pub fn was_replaced() -> bool {
    const OTHERS_WRITE: u32 = 0o002;
    let us = rustix::process::getuid().as_raw();
    let is_program = |meta: &Metadata| {
        let is_ours = meta.uid() == 0 || meta.uid() == us;
        meta.is_file() && is_ours && meta.mode() & 0o111 != 0 && meta.mode() & OTHERS_WRITE == 0
    };
    match (fs::metadata(OWN), fs::metadata(path()).ok().filter(is_program)) {
        (Ok(own), Some(there)) => (own.dev(), own.ino()) != (there.dev(), there.ino()),
        _ => false,
    }
}

/// Whether what lies there now is this program, of whatever version, runs, and understands what it would be handed: half of
/// one, one for another machine, or an earlier one would lose it.
pub async fn takes_over() -> bool {
    let mut asking = Command::new(path());
    asking
        .args(["agent", "--takes-over", &HANDOVER.to_string()])
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let answer = timeout(TRIAL, asking.output()).await;
    answer.is_ok_and(|answer| {
        answer.is_ok_and(|answer| answer.status.success() && answer.stdout.starts_with(b"ksb "))
    })
}

/// The process id in an agent's lock file, if it is of an agent of this user on this machine. Another machine may have
/// written the file, or the number may be another process's by now.
pub fn agent_named_in(lock: &Path) -> Option<u32> {
    let pid = fs::read_to_string(lock).ok()?.lines().next()?.parse().ok()?;
    let process = PathBuf::from(format!("/proc/{pid}"));
    let is_ours = fs::metadata(&process).is_ok_and(|meta| meta.uid() == rustix::process::getuid().as_raw());
    let command = fs::read(process.join("cmdline")).ok().filter(|_| is_ours)?;
    let mut words = command.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word));
    let is_ksb = words.next().is_some_and(|program| Path::new(&*program).file_name() == path().file_name());
    (is_ksb && words.next().as_deref() == Some("agent")).then_some(pid)
}

/// What of our environment an agent is to have: proxies and CA files come with each request, and its own must not add to
/// them.
pub fn environment_of_an_agent() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_for_an_agent))
}

/// Whether our environment holds nothing else.
pub fn is_environment_of_an_agent() -> bool {
    environment_of_an_agent().count() == std::env::vars_os().count()
}

fn is_for_an_agent(name: &str) -> bool {
    const NAMES: [&str; 21] = [
        "HOME",
        "USER",
        "LOGNAME",
        "PATH",
        "LANG",
        "TZ",
        "TMPDIR",
        "KSB_SOCK",
        "KSB_LOG",
        "KSB_PASSPHRASE_FILE",
        "DBUS_SESSION_BUS_ADDRESS",
        "DBUS_SYSTEM_BUS_ADDRESS",
        "RUST_BACKTRACE",
        // What a service manager gives: sd_listen_fds(3), sd_notify(3), systemd.exec(5).
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "NOTIFY_SOCKET",
        "CREDENTIALS_DIRECTORY",
        "JOURNAL_STREAM",
        "INVOCATION_ID",
        "MANAGERPID",
    ];
    NAMES.contains(&name) || name.starts_with("XDG_") || name.starts_with("LC_")
}
