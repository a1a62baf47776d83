//! What a process that holds secrets does without: core dumps, debuggers of its own user, new privileges, swap.
//!
//! Not Landlock: whoever is restricted by it may not look at /proc/PID/exe of others any more, and the audit log names programs.

use crate::error::reason;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, geteuid, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::set_no_new_privs;

/// Below this a later allocation could fail for being locked, and end the process.
const ENOUGH: u64 = 256 << 20;

/// Does without them, as far as the system lets us. Returns why memory may be swapped all the same.
pub fn process() -> Option<String> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // The name of a process that was started by /proc/self/exe is "exe".
    rustix::thread::set_name(c"ksb").ok();
    for (what, done) in [
        // No core dump, and /proc/PID/mem and ptrace are root's alone (prctl(2), PR_SET_DUMPABLE).
        ("be undumpable", set_dumpable_behavior(DumpableBehavior::NotDumpable)),
        ("forbid core dumps", setrlimit(Resource::Core, none)),
        ("renounce new privileges", set_no_new_privs(true)),
    ] {
        if let Err(error) = done {
            tracing::warn!(%error, "could not {what}");
        }
    }
    let limit = getrlimit(Resource::Memlock).current;
    let may_lock = geteuid().is_root() || limit.is_none_or(|limit| limit >= ENOUGH);
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if !may_lock {
        return Some(format!("the limit is {} KiB (ulimit -l)", limit.unwrap_or_default() / 1024));
    }
    mlockall(all).err().map(|error| reason(&error))
}
