//! Who may read and change what is ours: the socket, the state, the settings, clouds.yaml, files with secrets.

use crate::error::reason;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::cloud::Entry;
use super::{Helped, failed, finding};
use crate::agent;
use crate::api::{Finding, Found};
use crate::cli::yaml::quoted;
use crate::clouds::{Config, Environment};
use crate::config;
use crate::model::Workload;
use crate::platform::owner;
use crate::platform::paths::{Homeless, Paths, replaceable_by};

const OTHERS_WRITE: u32 = 0o022;
const OTHERS_ANYTHING: u32 = 0o077;

/// All of them; what is not there yet is no fault.
pub(super) fn check(paths: &Paths, env: &Environment) -> Vec<Finding> {
    let mut findings = Vec::new();
    let socket = paths.reachable_socket().unwrap_or(&paths.socket);
    let runtime = socket.parent().unwrap_or(Path::new("."));
    findings.extend(private("socket-directory", runtime, 0o700));
    if let Ok(meta) = fs::metadata(socket) {
        if meta.file_type().is_socket() {
            findings.extend(private("socket", socket, 0o600));
        } else {
            let detail = format!("{} is no socket", socket.display());
            let remedy = owner::remedy_at(socket, format!("rm {}", quoted(socket)));
            findings.push(finding("socket", "", Found::Fail, detail).remedy(remedy));
        }
    }
    match &paths.homeless {
        None => findings.extend(private("state-directory", &paths.state, 0o700)),
        Some(Homeless { why, remedy }) => {
            let detail = format!("{why}: sign-ins are kept in memory, until the agent ends");
            findings.push(finding("state-directory", "", Found::Warn, detail).remedy(*remedy));
        }
    }
    for file in kept(&paths.state) {
        findings.extend(private("vault-file", &file, 0o600));
    }
    match config::Config::load(&paths.config) {
        Ok(config) => {
            findings.extend(config.overruled.iter().map(|why| finding("config", "", Found::Warn, why)));
            let there = [Path::new(config::SYSTEM), &paths.config].into_iter().filter(|file| file.exists());
            findings.extend(there.map(|file| unchanged("config", file)));
        }
        Err(error) => findings.push(failed("config", "", error)),
    }
    if let Some(file) = agent::passphrase_file() {
        findings.push(secret("passphrase-file", &file));
    }
    if let Ok(config) = Config::load(env) {
        findings.extend(config.clouds_file().map(|source| unchanged("clouds.yaml", &source.file)));
        findings.extend(config.secure_file().and_then(|source| private("secure.yaml", &source.file, 0o600)));
        for warning in config.warnings() {
            findings.push(finding("clouds.yaml", "", Found::Warn, warning));
        }
    }
    findings
}

/// The files that entries have a workload's token from.
pub(super) fn of_clouds(clouds: &[Entry]) -> Vec<Finding> {
    let token_file = |Entry { cloud }: &Entry| match &cloud.sign_in.workload {
        Some(Workload::File { path }) => {
            Some(Finding { subject: cloud.label().into(), ..secret("token-file", path) })
        }
        _ => None,
    };
    clouds.iter().filter_map(token_file).collect()
}

/// What proves who we are. Root's own is as its giver meant it: systemd gives a credential by an ACL, and what Kubernetes
/// projects is for all who are in the container.
fn secret(check: &str, path: &Path) -> Finding {
    match fs::metadata(path) {
        Err(error) => {
            let detail = format!("{}: {}", path.display(), reason(&error));
            finding(check, "", Found::Fail, detail).remedy("put the secret there, or name another file")
        }
        Ok(meta) if meta.uid() == 0 && rustix::process::getuid().as_raw() != 0 => unchanged(check, path),
        Ok(meta) => said(check, path, private_fault(path, &meta, 0o600)),
    }
}

fn kept(state: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_kept = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("vault-"))
    };
    let mut files: Vec<_> = files.filter(is_kept).collect();
    files.sort();
    files
}

/// Nobody else may read or change it, nor put another in its place.
fn private(check: &str, path: &Path, mode: u32) -> Option<Finding> {
    let meta = fs::metadata(path).ok()?;
    Some(said(check, path, private_fault(path, &meta, mode)))
}

fn private_fault(path: &Path, meta: &Metadata, mode: u32) -> Option<Fault> {
    fault(path, meta).or_else(|| {
        let open = meta.mode() & OTHERS_ANYTHING;
        (open != 0).then(|| Fault {
            found: if open & OTHERS_WRITE == 0 { Found::Warn } else { Found::Fail },
            why: format!("has mode {:04o}: others than you may use it", meta.mode() & 0o7777),
            remedy: format!("chmod {mode:o} {}", quoted(path)),
        })
    })
}

/// Nobody else may change it; to read it does no harm.
fn unchanged(check: &str, path: &Path) -> Finding {
    let fault = fs::metadata(path).ok().and_then(|meta| {
        // A file of the system's, for all of its users, is root's.
        if meta.uid() == 0 && meta.mode() & OTHERS_WRITE == 0 { parents(path) } else { fault(path, &meta) }
    });
    said(check, path, fault)
}

struct Fault {
    found: Found,
    why: String,
    remedy: String,
}

fn said(check: &str, path: &Path, fault: Option<Fault>) -> Finding {
    let shown = path.display();
    match fault {
        None => finding(check, "", Found::Ok, shown.to_string()),
        Some(Fault { found, why, remedy }) => {
            finding(check, "", found, format!("{shown} {why}")).remedy(remedy)
        }
    }
}

fn fault(path: &Path, meta: &Metadata) -> Option<Fault> {
    let ours = rustix::process::getuid().as_raw();
    if meta.uid() != ours {
        return Some(Fault {
            found: Found::Fail,
            why: format!("belongs to uid {}, not to you ({ours})", meta.uid()),
            remedy: owner::remedy(meta.uid()).to_owned(),
        });
    }
    if meta.mode() & OTHERS_WRITE != 0 {
        let mode = meta.mode() & 0o7777;
        return Some(Fault {
            found: Found::Fail,
            why: format!("has mode {mode:04o}: others than you may change it"),
            remedy: format!("chmod go-w {}", quoted(path)),
        });
    }
    parents(path)
}

fn parents(path: &Path) -> Option<Fault> {
    replaceable_by(path).map(|above| Fault {
        found: Found::Fail,
        why: format!("can be replaced by others: {} is not yours alone", above.display()),
        remedy: owner::remedy_at(&above, format!("chmod go-w {}", quoted(&above))),
    })
}
