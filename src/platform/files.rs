//! Files that are whole at any moment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Removes the directories of that kind whose process is gone, as after a crash of both it and the agent.
pub fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.strip_prefix("exec-")?.parse::<u32>().ok());
        if let Some(pid) = pid.filter(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_left_by(folder, pid);
        }
    }
}

/// Removes the directory that a process had for its own child beside our socket: it may have been killed.
pub fn remove_left_by(folder: &Path, pid: u32) {
    fs::remove_dir_all(folder.join(format!("exec-{pid}"))).ok();
}

/// Puts `bytes` in the place of the file, for nobody else to read: whoever looks, and whatever is cut off when, finds the
/// old file or the new one. Only one process at a time may do this to a path.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    // What an earlier attempt left may have another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        fs::remove_file(&new).ok();
        return written;
    }
    // The name is as lasting as the file only then.
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
