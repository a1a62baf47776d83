//! What a process that holds secrets does without: core dumps, debuggers of its own user, new privileges, swap, files of
//! others to write to.

use std::path::Path;

use landlock::{
    ABI, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, path_beneath_rules,
};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, geteuid, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::set_no_new_privs;

/// Leaves a hijacked process nothing to write to but these folders: no shell's start file, no ssh key (landlock(7)).
pub fn write_only_below(folders: &[&Path]) {
    let abi = ABI::V3;
    let write = AccessFs::from_write(abi);
    let restrict = || -> Result<_, RulesetError> {
        Ruleset::default()
            .handle_access(write)?
            .create()?
            .add_rules(path_beneath_rules(folders, write))?
            .add_rules(path_beneath_rules(["/dev/null"], AccessFs::WriteFile))?
            .restrict_self()
    };
    match restrict() {
        Ok(status) if status.ruleset != RulesetStatus::NotEnforced => {}
        Ok(_) => tracing::info!("this kernel has no Landlock: files are protected by their modes alone"),
        Err(error) => tracing::warn!(%error, "files are protected by their modes alone"),
    }
}

/// Below this a later allocation could fail for being locked, and end the process.
const ENOUGH: u64 = 256 << 20;

/// Does without them, as far as the system lets us; says what it does not.
pub fn process() {
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
        let limit = limit.unwrap_or_default() / 1024;
        tracing::info!("memory is not locked, and may be swapped: the limit is {limit} KiB (ulimit -l)");
    } else if let Err(error) = mlockall(all) {
        tracing::info!(%error, "memory is not locked, and may be swapped");
    }
}
