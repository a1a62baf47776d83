//! The command's own clouds.yaml, in a directory that nobody else can read and that goes with it.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};

/// The directory, removed when dropped. Where this process is killed the agent removes it: it knows the name.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// `exec-PID` beside the agent's socket, with these entries and a secure.yaml without any.
    pub(super) fn make(socket: &Path, clouds: Vec<(String, Value)>) -> Result<Self> {
        let beside = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
        let folder = beside.with_file_name(format!("exec-{}", std::process::id()));
        let failed = |error: std::io::Error| Error::io(folder.display(), &error);
        // Of another process that had our number, and was killed with its agent.
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        let folder = Self(folder);
        write(&folder.clouds(), &text(clouds))?;
        // Else the user's own one would be laid over.
        write(&folder.secure(), "")?;
        Ok(folder)
    }

    /// What `OS_CLIENT_CONFIG_FILE` names.
    pub(super) fn clouds(&self) -> PathBuf {
        self.0.join("clouds.yaml")
    }

    /// What `OS_CLIENT_SECURE_FILE` names.
    pub(super) fn secure(&self) -> PathBuf {
        self.0.join("secure.yaml")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    written
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Error::io(path.display(), &error))
}

/// JSON is YAML. Of what is not ASCII the readers of YAML differ in what they take as it stands.
fn text(clouds: Vec<(String, Value)>) -> String {
    let clouds: serde_json::Map<_, _> = clouds.into_iter().collect();
    let json = serde_json::to_string_pretty(&serde_json::json!({"clouds": clouds})).unwrap_or_default();
    let mut text = String::from("# Of a running `ksb exec`, and gone with it.\n");
    for char in json.chars() {
        _ = match u32::from(char) {
            0x0a | 0x20..=0x7e => text.write_char(char),
            code @ ..=0xffff => write!(text, "\\u{code:04x}"),
            code => write!(text, "\\U{code:08x}"),
        };
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_private_and_goes_with_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let beside = tempfile::tempdir().unwrap();
        let socket = beside.path().join("broker.sock");
        let folder = Folder::make(&socket, vec![]).unwrap();
        let path = beside.path().join(format!("exec-{}", std::process::id()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&folder.clouds()), mode(&folder.secure())), (0o700, 0o600, 0o600));
        assert_eq!(fs::read_to_string(folder.secure()).unwrap(), "");
        drop(folder);
        assert!(!path.exists());
    }
}
