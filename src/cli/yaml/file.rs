//! The user's clouds.yaml and secure.yaml: which ones they are, and how they are replaced in one step.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Gid, fchown};

use super::quoted;
use crate::clouds::{CLOUDS_VARIABLE, Config, Environment, SECURE_VARIABLE};
use crate::error::{Code, Error, Result, reason};
use crate::model::Source;
use crate::platform::owner;

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Kind {
    Clouds,
    Secure,
}

impl Kind {
    fn stem(self) -> &'static str {
        match self {
            Self::Clouds => "clouds",
            Self::Secure => "secure",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Clouds => CLOUDS_VARIABLE,
            Self::Secure => SECURE_VARIABLE,
        }
    }

    /// The one that is read here.
    fn read<'c>(self, config: &'c Config<'_>) -> Option<&'c Source> {
        match self {
            Self::Clouds => config.clouds_file(),
            Self::Secure => config.secure_file(),
        }
    }

    fn new_file(self, config: &Config<'_>) -> PathBuf {
        match self {
            Self::Clouds => config.new_clouds_file(),
            Self::Secure => config.new_secure_file(),
        }
    }
}

/// The file to write to: the one that is read here, as the first that is found hides all others, and only if
/// it is the user's; where none is read, a new one.
pub(in crate::cli) fn target(env: &Environment, config: &Config<'_>, kind: Kind) -> Result<PathBuf> {
    let Some(read) = kind.read(config) else { return Ok(kind.new_file(config)) };
    let (file, variable) = (&read.file, kind.variable());
    let named = env.get(variable).is_some_and(|path| env.current_dir.join(path) == *file);
    if named || own_folders(env).iter().any(|folder| file.parent() == Some(folder)) {
        return Ok(file.clone());
    }
    let own = own_folders(env)[0].join(format!("{}.yaml", kind.stem()));
    let shown = file.display();
    if !read.current_folder {
        let why = format!(
            "{shown} is read here and is for all users of this machine, and a file of your own would hide it"
        );
        let copy = format!("install -D -m 600 {} {}", quoted(file), quoted(&own));
        return Err(Error::new(Code::InvalidConfig, why).remedy(format!("{copy}, then this command again")));
    }
    let elsewhere = "run this command in another directory";
    if kind == Kind::Clouds {
        // It may be a repository's, and would be handed on with an entry that is good on this machine only.
        let why =
            format!("{shown} is read here and lies in the current directory, which may be others' as well");
        let remedy = format!("{elsewhere}, or if the file is yours alone, set {variable}={}", quoted(file));
        return Err(Error::new(Code::InvalidConfig, why).remedy(remedy));
    }
    // The two belong together: a project's directory with secrets of its own.
    if config.clouds_file().is_some_and(|clouds| clouds.file.parent() == file.parent()) {
        return Ok(file.clone());
    }
    let why = format!(
        "{shown} in the current directory is read here instead of {}, where this would be written",
        own.display()
    );
    let mut remedy = elsewhere.to_owned();
    if own.exists() {
        remedy = format!("{remedy}, or set {variable}={} here", quoted(&own));
    }
    Err(Error::new(Code::InvalidConfig, why).remedy(remedy))
}

/// Where something may have been written for the user: also files that another one hides here.
pub(in crate::cli) fn own_places(env: &Environment, config: &Config<'_>, kind: Kind) -> Vec<PathBuf> {
    let names = ["yaml", "yml"].map(|ending| format!("{}.{ending}", kind.stem()));
    let own = own_folders(env).into_iter().flat_map(|folder| names.clone().map(|name| folder.join(name)));
    let read = kind.read(config).map(|source| source.file.clone());
    let mut seen = BTreeSet::new();
    read.into_iter()
        .chain([kind.new_file(config)])
        .chain(own)
        .filter(|path| seen.insert(path.clone()))
        .collect()
}

/// The directories of the search path that are the user's, the first one first.
fn own_folders(env: &Environment) -> Vec<PathBuf> {
    let home = |variable| env.get(variable).map(Path::new).filter(|path| path.is_absolute());
    let config = home("XDG_CONFIG_HOME").map_or_else(|| env.home.join(".config"), Path::to_owned);
    let real = home("SNAP_REAL_HOME").unwrap_or(&env.home).join(".config");
    vec![config.join("openstack"), real.join("openstack")]
}

/// One of the user's files, that no other `ksb` changes meanwhile.
pub(in crate::cli) struct PersonsFile {
    /// As the SDK names it.
    path: PathBuf,
    kind: Kind,
    /// Where links lead.
    real: PathBuf,
    /// What it says; nothing while there is no file.
    text: Option<String>,
    meta: Option<Metadata>,
    _locks: Rc<Vec<File>>,
}

impl PersonsFile {
    /// Opens files that may be replaced, or that are not there yet.
    pub(in crate::cli) fn open<const N: usize>(wanted: [(Kind, &Path); N]) -> Result<[Self; N]> {
        let mut folders = BTreeSet::new();
        let mut places = Vec::new();
        for (kind, path) in wanted {
            let real = real(path, kind)?;
            let folder = folder_of(&real);
            if !real.exists() && owner::is_of_another_for_root(folder) {
                let why = format!("{} would be root's in another user's directory", real.display());
                return Err(Error::new(Code::NotAllowed, why).remedy(owner::WITHOUT_SUDO));
            }
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| failed(folder, kind, &error))?;
            folders.insert(folder.to_owned());
            places.push(real);
        }
        // In the order of their names, and each once: nobody waits for somebody who waits for them. File systems
        // without locks are left to the comparison before a file is replaced.
        let lock = |folder| File::open(folder).ok().filter(|folder| folder.lock().is_ok());
        let locks = Rc::new(folders.into_iter().filter_map(lock).collect::<Vec<_>>());
        let mut files = Vec::new();
        for ((kind, path), real) in wanted.into_iter().zip(places) {
            let meta = match fs::metadata(&real) {
                Ok(meta) => Some(meta),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(failed(&real, kind, &error)),
            };
            if let Some(meta) = &meta {
                check(&real, kind, meta)?;
            }
            let text = read(&real, kind)?;
            files.push(Self { path: path.to_owned(), kind, real, text, meta, _locks: locks.clone() });
        }
        files.try_into().map_err(|_| Error::new(Code::Internal, "a file got lost"))
    }

    pub(in crate::cli) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::cli) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Refuses a file that is there and is not the one that is read: it is broken, or another one hides it.
    pub(in crate::cli) fn must_be_read(&self, config: &Config<'_>) -> Result<()> {
        if self.text.is_none() || self.kind.read(config).is_some_and(|read| read.file == self.path) {
            return Ok(());
        }
        let why = format!("{} cannot be used as it stands", self.path.display());
        let why = config.warnings().iter().fold(why, |all, note| format!("{all}; {note}"));
        Err(Error::new(Code::InvalidConfig, why).remedy("correct that file"))
    }

    /// A warning, where others can read what should be secret.
    pub(in crate::cli) fn exposed(&self) -> Option<String> {
        let mode = self.meta.as_ref()?.mode();
        (mode & 0o044 != 0).then(|| {
            format!("{} can be read by others. Try: chmod 600 {}", self.path.display(), quoted(&self.path))
        })
    }

    /// Puts another text in the place of the file, or takes the file away. Owner, group and mode stay.
    pub(in crate::cli) fn write(&mut self, text: Option<&str>) -> Result<()> {
        if read(&self.real, self.kind)? != self.text {
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
        .map_err(|error| failed(folder_of(&self.real), self.kind, &error))?;
        // The change is made; whether it outlives a power cut is all that is at stake here.
        let _ = File::open(folder_of(&self.real)).and_then(|folder| folder.sync_all());
        self.text = text.map(str::to_owned);
        Ok(())
    }

    fn replace(&self, text: &str) -> std::io::Result<()> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
        let name = format!(".ksb-{:016x}", u64::from_ne_bytes(random));
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
fn check(real: &Path, kind: Kind, meta: &Metadata) -> Result<()> {
    let name = real.display();
    let refuse = |why: String, remedy: String| Err(Error::new(Code::Io, why).remedy(remedy));
    if !meta.is_file() {
        return refuse(format!("{name} is not a file"), "put a file in its place".into());
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        let remedy = if rustix::process::geteuid().is_root() {
            owner::WITHOUT_SUDO.into()
        } else {
            format!("copy it to a file of your own and name that in {}", kind.variable())
        };
        return refuse(format!("{name} belongs to another user"), remedy);
    }
    if meta.mode() & 0o200 == 0 {
        return refuse(format!("{name} is write-protected"), format!("chmod u+w {}", quoted(real)));
    }
    Ok(())
}

/// Where links lead.
fn real(path: &Path, kind: Kind) -> Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(real) => Ok(real),
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => Ok(path.to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let why = format!("{} is a link that leads nowhere", path.display());
            Err(Error::new(Code::Io, why).remedy(owner::remedy_at(path, format!("rm {}", quoted(path)))))
        }
        Err(error) => Err(failed(path, kind, &error)),
    }
}

fn read(real: &Path, kind: Kind) -> Result<Option<String>> {
    match fs::read_to_string(real) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(real, kind, &error)),
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}

fn failed(path: &Path, kind: Kind, error: &std::io::Error) -> Error {
    let what = Error::new(Code::Io, format!("{}: {}; nothing was changed", path.display(), reason(error)));
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            what.remedy(format!("name a file of your own in {}", kind.variable()))
        }
        _ => what,
    }
}
