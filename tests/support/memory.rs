//! What a process has in its memory, as root may read it (proc_pid_mem(5)).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Each of the secrets lies somewhere in the memory of a process, or none does.
#[track_caller]
pub fn assert_holds(pid: u32, secrets: &[&str], whether: bool) {
    for secret in secrets {
        assert_eq!(holds(pid, secret), whether, "{secret} in the memory of process {pid}");
    }
}

/// Whether these bytes lie anywhere that may be written to.
fn holds(pid: u32, needle: &str) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(mode)) = (fields.next(), fields.next()) else { return false };
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
        // [vvar] cannot be read; what cannot be written holds nothing of ours.
        mode.starts_with("rw") && found(&memory, start, end, needle.as_bytes())
    })
}

fn found(memory: &File, start: u64, end: u64, needle: &[u8]) -> bool {
    const PIECE: u64 = 1 << 20;
    let mut from = start;
    while from < end {
        // A needle across two pieces is found in one of them.
        let length = usize::try_from((end - from).min(PIECE + needle.len() as u64)).unwrap();
        let mut piece = vec![0; length];
        if memory.read_exact_at(&mut piece, from).is_ok()
            && piece.windows(needle.len()).any(|window| window == needle)
        {
            return true;
        }
        from += PIECE;
    }
    false
}
