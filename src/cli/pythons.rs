//! The Pythons behind `openstack`, Ansible and `python3`: whether they have openstacksdk and the plugin.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use crate::cli::output::{errln, outln};
use crate::cli::yaml::quoted;
use crate::clouds::Environment;

pub(super) const PLUGIN: &str = "keystoneauth-broker";
/// What pip installs, in a clone of keystone-broker: on PyPI the name is not ours.
const SOURCE: &str = "./plugin-shim";
/// The oldest Python that the plugin runs on.
const OLDEST: (u8, u8) = (3, 10);
const PATIENCE: Duration = Duration::from_secs(5);

/// Not `-I`: what is meant is the Python that `openstack` gets, with the user's own packages and PYTHONPATH.
/// But nothing is imported from the current directory.
const QUESTION: &str = "\
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import json, os, sysconfig
from importlib import metadata, util
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
def has(name):
    return version(name) is not None
def providers(plugin):
    found = []
    for one in metadata.distributions():
        for point in one.entry_points:
            if (point.group, point.name) == ('keystoneauth1.plugin', plugin):
                found.append(one.metadata['Name'])
    return sorted(set(found))
managed = os.path.join(sysconfig.get_path('stdlib'), 'EXTERNALLY-MANAGED')
print(json.dumps({
    'executable': sys.executable,
    'prefix': sys.prefix,
    'version': sys.version_info[:2],
    'sdk': has('openstacksdk'),
    'plugin': has('keystoneauth-broker'),
    'plugin_version': version('keystoneauth-broker'),
    'sdk_version': version('openstacksdk'),
    'v3websso': providers('v3websso'),
    'v3broker': providers('v3broker'),
    'pip': util.find_spec('pip') is not None,
    'managed': sys.prefix == sys.base_prefix and os.path.exists(managed),
}))
";

#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "what the script says, as it says it")]
struct Answer {
    executable: PathBuf,
    prefix: PathBuf,
    version: (u8, u8),
    sdk: bool,
    plugin: bool,
    pip: bool,
    managed: bool,
    #[serde(default)]
    plugin_version: Option<String>,
    #[serde(default)]
    sdk_version: Option<String>,
    #[serde(default)]
    v3websso: Vec<String>,
    #[serde(default)]
    v3broker: Vec<String>,
}

/// A Python that has openstacksdk.
pub(super) struct WithSdk {
    pub(super) executable: PathBuf,
    /// Python's own, such as `3.13`.
    pub(super) python: String,
    /// openstacksdk's.
    pub(super) sdk: String,
    /// Our plugin's, where it is there.
    pub(super) plugin: Option<String>,
    /// The distributions that say `v3websso` is theirs.
    pub(super) websso: Vec<String>,
    /// The same for `v3broker`.
    pub(super) broker: Vec<String>,
    /// How to get the plugin.
    pub(super) install: String,
}

/// What was found out.
#[derive(Default)]
struct Report {
    /// How to get the plugin into each Python that lacks it.
    missing: Vec<String>,
    /// How many have both.
    complete: usize,
    /// Those that did not answer in time.
    silent: Vec<PathBuf>,
}

/// Tells the user of an entry for the plugin where it will not work yet.
pub(super) fn tell(env: &Environment) {
    let report = look(env);
    for python in &report.silent {
        errln!("ksb: {} did not answer within 5 s and was left out", python.display());
    }
    if !report.missing.is_empty() {
        outln!(
            "These have openstacksdk without the plugin that `v3broker` needs. To install it, in a clone of keystone-broker:"
        );
        for line in &report.missing {
            outln!("  {line}");
        }
    } else if report.complete > 0 {
        outln!("The Python behind `openstack`, Ansible or `python3` has the plugin");
    } else {
        outln!(
            "No openstacksdk is behind `openstack`, Ansible or `python3` on PATH; where it is, install beside it, in a clone of keystone-broker: {SOURCE}"
        );
    }
}

/// Asks every Python once, all at the same time, and waits for none longer than five seconds.
fn look(env: &Environment) -> Report {
    let (found, silent) = with_sdk(env);
    let mut report = Report { silent, ..Report::default() };
    for python in found {
        match python.plugin {
            Some(_) => report.complete += 1,
            None => report.missing.push(python.install),
        }
    }
    report
}

/// Those that have openstacksdk, and those that did not answer.
pub(super) fn with_sdk(env: &Environment) -> (Vec<WithSdk>, Vec<PathBuf>) {
    let (answers, silent) = ask(candidates(env));
    let mut seen = BTreeSet::new();
    let new = |answer: &Answer| answer.sdk && seen.insert((answer.prefix.clone(), answer.version));
    let found = answers.into_iter().filter(new).map(|answer| WithSdk {
        install: install_line(&answer, env),
        python: format!("{}.{}", answer.version.0, answer.version.1),
        sdk: answer.sdk_version.unwrap_or_default(),
        plugin: answer.plugin.then(|| answer.plugin_version.unwrap_or_default()),
        websso: answer.v3websso,
        broker: answer.v3broker,
        executable: answer.executable,
    });
    (found.collect(), silent)
}

fn install_line(answer: &Answer, env: &Environment) -> String {
    let python = quoted(&answer.executable);
    let (major, minor) = answer.version;
    if answer.version < OLDEST {
        return format!("{python} is Python {major}.{minor}: the plugin needs {}.{}", OLDEST.0, OLDEST.1);
    }
    // pip refuses to touch a distribution's Python, even the user's own directory, without being told so.
    let (options, note) = if answer.managed {
        ("--user --break-system-packages ", "  # goes into your home directory, not into the system")
    } else {
        ("", "")
    };
    if answer.pip {
        return format!("{python} -m pip install {options}{SOURCE}{note}");
    }
    if !answer.managed && folders(env).iter().any(|folder| is_program(&folder.join("uv"))) {
        return format!("uv pip install --python {python} {SOURCE}");
    }
    format!("{python} -m pip install {options}{SOURCE}  # once pip is there: this Python has none")
}

/// The directories of PATH. Not the relative ones: what is found there depends on whose directory one stands in.
fn folders(env: &Environment) -> Vec<PathBuf> {
    let path = env.get("PATH").unwrap_or_default();
    std::env::split_paths(path).filter(|folder| folder.is_absolute()).collect()
}

/// The interpreters behind `openstack`, Ansible and `python3` on PATH. A virtual environment's Python is a link to
/// another's: the directory counts as well as the file.
fn candidates(env: &Environment) -> Vec<PathBuf> {
    let folders = folders(env);
    let first = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|path| is_program(path));
    let scripts = ["openstack", "ansible", "ansible-playbook"].into_iter().filter_map(first);
    let mut found: Vec<_> = scripts.filter_map(|script| interpreter(&script)).collect();
    found.extend(first("python3"));
    let mut seen = BTreeSet::new();
    found.retain(|python| {
        let folder = python.parent().and_then(|folder| fs::canonicalize(folder).ok());
        let file = fs::canonicalize(python).ok();
        python.is_absolute() && is_program(python) && seen.insert((folder, file))
    });
    found
}

/// `python`, `python3`, `python3.13`, `python3.13t`: not `python3-config`.
fn is_python(name: &OsStr) -> bool {
    name.to_str().and_then(|name| name.strip_prefix("python")).is_some_and(|rest| {
        let version = rest.strip_suffix('t').unwrap_or(rest);
        rest.is_empty()
            || version.starts_with('3') && version.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The Python that runs a script: `#!/path/python3`, or what pip writes where that would be too long.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut lines = BufReader::new(fs::File::open(script).ok()?.take(4096)).lines();
    let first = lines.next()?.ok()?;
    let program = match first.strip_prefix("#!")?.split_whitespace().next()? {
        "/bin/sh" => {
            let command = lines.next()?.ok()?;
            shlex::split(command.strip_prefix("'''exec' ")?)?.into_iter().next()?.into()
        }
        program => PathBuf::from(program),
    };
    program.file_name().is_some_and(is_python).then_some(program)
}

/// Runs all of them; gives back the answers in the same order, and those that did not come.
fn ask(pythons: Vec<PathBuf>) -> (Vec<Answer>, Vec<PathBuf>) {
    let deadline = Instant::now() + PATIENCE;
    let (said, hear) = mpsc::channel();
    let mut running: Vec<Option<Child>> = Vec::new();
    for (place, python) in pythons.iter().enumerate() {
        let child = Command::new(python)
            .args(["-c", QUESTION])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut child = child.ok();
        if let Some(output) = child.as_mut().and_then(|child| child.stdout.take()) {
            let said = said.clone();
            // One line is the answer: what a wrapper leaves running may keep the pipe open.
            thread::spawn(move || {
                let mut line = String::new();
                let read = BufReader::new(output).read_line(&mut line);
                let _ =
                    said.send((place, read.ok().and_then(|_| serde_json::from_str::<Answer>(&line).ok())));
            });
        }
        running.push(child);
    }
    drop(said);

    let mut answers: Vec<_> = pythons.iter().map(|_| None).collect();
    while let Ok((place, answer)) = hear.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        answers[place] = answer;
        running[place] = None;
    }
    let mut silent = Vec::new();
    for (child, python) in running.into_iter().zip(pythons) {
        if let Some(child) = child {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            silent.push(python);
        }
    }
    (answers.into_iter().flatten().collect(), silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_are_known_by_name() {
        for name in ["python", "python3", "python3.10", "python3.13t", "python3t"] {
            assert!(is_python(name.as_ref()), "{name}");
        }
        for name in
            ["python2", "python3-config", "python3.11-config", "pythonw", "ipython3", "python-argcomplete"]
        {
            assert!(!is_python(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn a_script_names_its_python() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("openstack");
        for (text, expected) in [
            ("#!/opt/v/bin/python\nimport x\n", Some("/opt/v/bin/python")),
            ("#! /usr/bin/python3 -sP\n", Some("/usr/bin/python3")),
            (
                "#!/bin/sh\n'''exec' \"/opt/a b/bin/python3\" \"$0\" \"$@\"\n' '''\n",
                Some("/opt/a b/bin/python3"),
            ),
            ("#!/bin/sh\n'''exec' /opt/v/bin/python3 \"$0\" \"$@\"\n", Some("/opt/v/bin/python3")),
            ("#!/usr/bin/env bash\n", None),
            ("#!/bin/sh\nexec x\n", None),
            ("\u{7f}ELF", None),
            ("", None),
        ] {
            fs::write(&script, text).unwrap();
            assert_eq!(interpreter(&script), expected.map(PathBuf::from), "{text}");
        }
    }
}
