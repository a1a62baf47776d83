//! The person's secure.yaml: which one it is, and how it is replaced in one step.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, fchown};

use super::quoted;
use crate::clouds::{Config, Environment};
use crate::error::{Code, Error, Result};

/// The file to write to: the one that is read here, as the first that is found hides all others, and only if
/// it is the person's; where none is read, a new one.
pub(super) fn target(env: &Environment, config: &Config<'_>) -> Result<PathBuf> {
    let own = config.new_secure_file();
    let Some(read) = config.secure_file() else { return Ok(own) };
    let file = &read.file;
    let named = env.get("OS_CLIENT_SECURE_FILE").is_some_and(|path| env.current_dir.join(path) == *file);
    if named || own_folders(env).iter().any(|folder| file.parent() == Some(folder)) {
        return Ok(file.clone());
    }
    let own = own_folders(env)[0].join("secure.yaml");
    let shown = file.display();
    if !read.current_folder {
        let why = format!(
            "{shown} is read here and is for all users of this machine, and a file of your own would hide it"
        );
        let copy = format!("install -D -m 600 {} {}", quoted(file), quoted(&own));
        return Err(Error::new(Code::InvalidConfig, why).remedy(format!("{copy}, then this command again")));
    }
    // The two belong together: a project's folder with secrets of its own.
    if config.clouds_file().is_some_and(|clouds| clouds.file.parent() == file.parent()) {
        return Ok(file.clone());
    }
    let why = format!(
        "{shown} in the current folder is read here instead of {}, where this would be written",
        own.display()
    );
    let mut remedy = "run this command in another folder".to_owned();
    if own.exists() {
        remedy = format!("{remedy}, or set OS_CLIENT_SECURE_FILE={} here", quoted(&own));
    }
    Err(Error::new(Code::InvalidConfig, why).remedy(remedy))
}

/// The folders of the search path that are the person's, the first one first.
pub(super) fn own_folders(env: &Environment) -> Vec<PathBuf> {
    let home = |variable| env.get(variable).map(Path::new).filter(|path| path.is_absolute());
    let config = home("XDG_CONFIG_HOME").map_or_else(|| env.home.join(".config"), Path::to_owned);
    let real = home("SNAP_REAL_HOME").unwrap_or(&env.home).join(".config");
    vec![config.join("openstack"), real.join("openstack")]
}

/// A secure.yaml that no other `ksb adopt` changes meanwhile.
pub(super) struct SecureFile {
    /// As the SDK names it.
    path: PathBuf,
    /// Where links lead.
    real: PathBuf,
    /// What it says; nothing while there is no file.
    text: Option<String>,
    meta: Option<Metadata>,
    _lock: Option<File>,
}

impl SecureFile {
    /// Opens a file that may be replaced, or one that is not there yet.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => path.to_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let why = format!("{} is a link that leads nowhere", path.display());
                return Err(Error::new(Code::Io, why).remedy(format!("rm {}", quoted(path))));
            }
            Err(error) => return Err(failed(path, &error)),
        };
        let folder = folder_of(&real);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| failed(folder, &error))?;
        // File systems without locks are left to the comparison before the file is replaced.
        let lock = File::open(folder).ok().filter(|folder| folder.lock().is_ok());
        let meta = match fs::metadata(&real) {
            Ok(meta) => Some(meta),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&real, &error)),
        };
        if let Some(meta) = &meta {
            check(&real, meta)?;
        }
        let text = read(&real)?;
        Ok(Self { path: path.to_owned(), real, text, meta, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// A warning, where others can read what should be secret.
    pub(super) fn exposed(&self) -> Option<String> {
        let mode = self.meta.as_ref()?.mode();
        (mode & 0o044 != 0).then(|| {
            format!("{} can be read by others. Try: chmod 600 {}", self.path.display(), quoted(&self.path))
        })
    }

    /// Puts another text in the place of the file, or takes the file away. Owner, group and mode stay.
    pub(super) fn write(&mut self, text: Option<&str>) -> Result<()> {
        if read(&self.real)? != self.text {
            return Err(Error::new(
                Code::Io,
                format!("{} was changed by another program just now", self.path.display()),
            )
            .remedy("run this command again"));
        }
        match text {
            Some(text) => self.replace(text),
            None => fs::remove_file(&self.real),
        }
        .map_err(|error| failed(folder_of(&self.real), &error))?;
        // The change is made; whether it outlives a power cut is all that is at stake here.
        let _ = File::open(folder_of(&self.real)).and_then(|folder| folder.sync_all());
        self.text = text.map(str::to_owned);
        Ok(())
    }

    fn replace(&self, text: &str) -> std::io::Result<()> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
        let name = format!(".ksb-adopt-{:016x}", u64::from_ne_bytes(random));
        let new = folder_of(&self.real).join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let mut put = || {
            file.write_all(text.as_bytes())?;
            if let Some(meta) = &self.meta {
                if file.metadata()?.gid() != meta.gid() {
                    fchown(&file, None, Some(Gid::from_raw(meta.gid())))?;
                }
                file.set_permissions(fs::Permissions::from_mode(meta.mode() & 0o7777))?;
            }
            file.sync_all()?;
            fs::rename(&new, &self.real)
        };
        let done = put();
        if done.is_err() {
            let _ = fs::remove_file(&new);
        }
        done
    }
}

/// Refuses what is not ours to replace.
fn check(real: &Path, meta: &Metadata) -> Result<()> {
    let name = real.display();
    let refuse = |why: String, remedy: String| Err(Error::new(Code::Io, why).remedy(remedy));
    if !meta.is_file() {
        return refuse(format!("{name} is not a file"), "put a file in its place".into());
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return refuse(
            format!("{name} belongs to another user"),
            "copy it to a file of your own and name that in OS_CLIENT_SECURE_FILE".into(),
        );
    }
    if meta.mode() & 0o200 == 0 {
        return refuse(format!("{name} is write-protected"), format!("chmod u+w {}", quoted(real)));
    }
    Ok(())
}

fn read(real: &Path) -> Result<Option<String>> {
    match fs::read_to_string(real) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(real, &error)),
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    let what = Error::new(Code::Io, format!("{}: {error}; nothing was changed", path.display()));
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => what
            .remedy("name a file of your own in OS_CLIENT_SECURE_FILE, or make that place writable for you"),
        _ => what,
    }
}
