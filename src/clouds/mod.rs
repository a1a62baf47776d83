//! clouds.yaml, clouds-public.yaml, secure.yaml and `OS_*`: found and merged as openstacksdk 4.22 does it, in
//! the caller's directory and environment.
//!
//! `find` knows where files are, `yaml` how PyYAML reads them, `merge` how an entry comes together and `keys`
//! what may stand in it; `resolve` makes of it what the broker needs, with `scope`, `tls` and `proxy`.
//! Agreement is measured: `tests/clouds/` holds what the SDK itself made of over a hundred configurations.
//! Where we differ on purpose, its cases say why.
//!
//! Which `OS_*` variables count:
//! * all of them form the cloud `envvars` (`OS_CLOUD_NAME` renames it), as in the SDK;
//! * for an entry of a file only `OS_REGION_NAME`, `OS_CACERT`, `OS_CERT` and `OS_KEY` do, over the file's
//!   values. The SDK reads none of these, but the `openstack` command does, and with another CA bundle or
//!   client certificate it would be another identity;
//! * what the user asks for within an entry's cloud, its scope and interface, counts for commands as it does for
//!   `openstack`, and a line says so (`variables`).

mod entry;
mod keys;
mod nested;
mod password;
mod proxy;
mod resolve;
mod scope;
mod search;
mod sign_in;
mod tls;
mod variables;
mod workload;
mod yaml;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use url::Url;

pub use nested::{EXEC_VARIABLE, Outer};
pub use resolve::{Overrides, Resolved};

use self::entry::Dict;
use self::search::Found;
use crate::error::{Code, Error, Result};
use crate::model::Source;
use crate::platform::browser::BrowserLocation;

/// Names the clouds.yaml.
pub const CLOUDS_VARIABLE: &str = "OS_CLIENT_CONFIG_FILE";
/// Names the secure.yaml.
pub const SECURE_VARIABLE: &str = "OS_CLIENT_SECURE_FILE";

/// What a process passes to its children and this module reads: nothing here looks at the real one.
/// Has no `Debug`, as it may hold passwords; nor has [`Config`].
#[derive(Clone, Default)]
pub struct Environment {
    /// The environment variables that are UTF-8.
    pub vars: BTreeMap<String, String>,
    /// The current directory.
    pub current_dir: PathBuf,
    /// The home directory, also where `HOME` is not set.
    pub home: PathBuf,
    /// Texts that stand for what is in files, so that a change can be looked at before it is made.
    pub drafts: BTreeMap<PathBuf, String>,
    /// The environment around the `ksb exec` that this one is of.
    pub outer: Option<Outer>,
    /// Whether the real parents of this process, and tmux, tell where the browser is.
    pub is_of_this_process: bool,
}

impl Environment {
    /// The environment of this process.
    pub fn of_this_process() -> Result<Self> {
        let current_dir = std::env::current_dir()
            .map_err(|error| Error::io("the current directory cannot be read", &error).remedy("cd"))?;
        let mut vars = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let outer = Outer::take(&mut vars);
        Ok(Self {
            vars,
            outer,
            current_dir,
            home: std::env::home_dir().unwrap_or_else(|| "/".into()),
            drafts: BTreeMap::new(),
            is_of_this_process: true,
        })
    }

    /// Where the user's browser is.
    pub fn browser_location(&self) -> BrowserLocation {
        if self.is_of_this_process {
            return BrowserLocation::of_this_process();
        }
        BrowserLocation::find(|name| self.vars.get(name).cloned(), &[], "")
    }

    /// The proxy that programs of this environment ask for an address.
    pub fn proxy_for(&self, destination: &Url) -> Option<String> {
        proxy::of(self, destination)
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// A file in use, and the entries that it has a say in.
struct File {
    source: Source,
    names: Vec<String>,
}

/// The files that were found, and their entries.
pub struct Config<'e> {
    env: &'e Environment,
    clouds_file: Option<File>,
    secure_file: Option<File>,
    entries: Dict,
    /// What the cloud made of `OS_*` is called.
    environment_name: String,
    /// Files that were skipped, and why.
    notes: Vec<String>,
}

impl<'e> Config<'e> {
    /// Finds and reads the files.
    ///
    /// Only what the SDK refuses altogether is an error here: a file without a mapping, or an entry that has
    /// the name of the environment's cloud. A file that cannot be read or parsed is skipped, as there, and
    /// named in the warnings and in the error when an entry is missed.
    pub fn load(env: &'e Environment) -> Result<Self> {
        let mut notes = Vec::new();
        let clouds = search::first(env, "clouds", Some(CLOUDS_VARIABLE), &mut notes);
        let secure = search::first(env, "secure", Some(SECURE_VARIABLE), &mut notes);
        let (clouds_file, mut entries) = entries(clouds)?;
        let (secure_file, secret) = self::entries(secure)?;
        entry::over(&mut entries, secret);

        let environment_name = env.get("OS_CLOUD_NAME").unwrap_or("envvars").to_owned();
        if entries.contains_key(&environment_name) {
            let file = clouds_file.or(secure_file).map(|file| file.source.file.display().to_string());
            let file = file.unwrap_or_default();
            return Err(Error::new(
                Code::InvalidConfig,
                format!("{file}: `{environment_name}` is the name of the cloud that OS_* variables form"),
            )
            .remedy("rename the entry, or set OS_CLOUD_NAME to another name"));
        }
        let of_environment = environment_cloud(env);
        // The SDK makes a cloud of any OS_* variable, and a broken one of OS_INTERFACE alone; one that names
        // no Keystone would only stand in the way of the single entry there is.
        if of_environment.contains_key("auth_url") || of_environment.contains_key("profile") {
            entries.insert(environment_name.clone(), of_environment.into());
        }
        Ok(Self { env, clouds_file, secure_file, entries, environment_name, notes })
    }

    /// The entries' names, in the file's order; the environment's cloud comes last.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The cloud that is meant when none is named: `OS_CLOUD`, else the environment's, else the only entry.
    pub fn default_name(&self) -> Option<&str> {
        let mut names = self.names();
        self.env
            .get("OS_CLOUD")
            .or_else(|| {
                self.entries.contains_key(&self.environment_name).then_some(self.environment_name.as_str())
            })
            .or_else(|| names.next().filter(|_| names.next().is_none()))
    }

    /// The entries by name as the files have them together, with what is secret in them.
    pub fn entries(&self) -> &Map<String, Value> {
        &self.entries
    }

    /// The clouds.yaml in use.
    pub fn clouds_file(&self) -> Option<&Source> {
        self.clouds_file.as_ref().map(|file| &file.source)
    }

    /// The secure.yaml in use.
    pub fn secure_file(&self) -> Option<&Source> {
        self.secure_file.as_ref().map(|file| &file.source)
    }

    /// Where a clouds.yaml would be found that is not there yet. It is read only while none precedes it.
    pub fn new_clouds_file(&self) -> PathBuf {
        self.new_file(CLOUDS_VARIABLE, "clouds.yaml")
    }

    /// The same for a secure.yaml.
    pub fn new_secure_file(&self) -> PathBuf {
        self.new_file(SECURE_VARIABLE, "secure.yaml")
    }

    fn new_file(&self, variable: &str, name: &str) -> PathBuf {
        match self.env.get(variable) {
            Some(path) => self.env.current_dir.join(path),
            None => search::folders(self.env)[1].join(name),
        }
    }

    /// Files that were skipped, and why: for commands that resolve no cloud.
    pub fn warnings(&self) -> &[String] {
        &self.notes
    }
}

/// The entries of a file that others read, unless it is none.
pub fn entries_of(file: &Path) -> Option<Map<String, Value>> {
    let content = yaml::parse(&fs::read_to_string(file).ok()?).ok()?;
    let source = Source { file: file.to_owned(), current_folder: false };
    entries(Some(Found { source, content })).ok().map(|(_, entries)| entries)
}

/// The `clouds` of a file. An empty file is an empty configuration (and hides those after it, as in the SDK).
fn entries(found: Option<Found>) -> Result<(Option<File>, Dict)> {
    let Some(Found { source, content }) = found else { return Ok((None, Dict::new())) };
    let bad = |what: &str| {
        let what = format!("{}: {what}", source.file.display());
        Error::new(Code::InvalidConfig, what).remedy("write the entries as a mapping under the key `clouds`")
    };
    let clouds = match content {
        Value::Object(mut content) => match content.shift_remove("clouds") {
            None | Some(Value::Null) => Dict::new(),
            Some(Value::Object(clouds)) => clouds,
            Some(_) => return Err(bad("`clouds` is not a mapping")),
        },
        content if is_empty(&content) => Dict::new(),
        _ => return Err(bad("the file is not a mapping")),
    };
    let names = clouds.keys().cloned().collect();
    Ok((Some(File { source, names }), clouds))
}

/// Nothing, in any of the shapes that Python holds for false.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || text == "0",
        Value::Array(items) => items.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

/// The cloud that `OS_*` variables form, by the SDK's rules (`_get_os_environ`).
fn environment_cloud(env: &Environment) -> Dict {
    env.vars
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, value)| {
            let key = name.strip_prefix("OS_")?;
            // Variables of test frameworks; OS_LOGIN_TIMEOUT and OS_LOGOUT_URL fall with them.
            let foreign = ["TEST", "STD", "LOG"].iter().any(|prefix| key.starts_with(prefix));
            (!foreign).then(|| (key.to_lowercase(), value.as_str().into()))
        })
        .collect()
}
