//! Entries on their way into clouds.yaml and secure.yaml: what the files will say is looked at before they do.

use serde_json::Value;

use crate::cli::yaml::{self, CLOUDS, Fault, Kind, Mark, PersonsFile};
use crate::clouds::{Config, Environment};
use crate::error::{Code, Error, Result};

const BY_HAND: &str = "give `clouds` and each entry in that file lines of their own, without `{…}`; or write the entry \
                       yourself, with what this prints: ksb lease create --json";

/// An entry in its two parts.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    /// For clouds.yaml.
    pub(super) open: Value,
    /// For secure.yaml.
    pub(super) secret: Value,
}

/// Both files with what they are to say. Nobody else changes them meanwhile.
pub(super) struct Draft {
    pub(super) clouds: PersonsFile,
    pub(super) secure: PersonsFile,
    clouds_text: String,
    secure_text: String,
}

impl Draft {
    /// Puts the entries in, in their order, before those that are there.
    pub(super) fn make(env: &Environment, entries: &[Entry]) -> Result<Self> {
        let config = Config::load(env)?;
        let (clouds, secure) =
            (yaml::target(env, &config, Kind::Clouds)?, yaml::target(env, &config, Kind::Secure)?);
        let [clouds, secure] = PersonsFile::open([(Kind::Clouds, &clouds), (Kind::Secure, &secure)])?;
        // What counts is what is found now that the files are ours alone.
        let config = Config::load(env)?;
        clouds.must_be_read(&config)?;
        secure.must_be_read(&config)?;
        for entry in entries {
            is_new(&config, &entry.name)?;
        }
        let clouds_text = with(&clouds, entries, |entry| &entry.open)?;
        let secure_text = with(&secure, entries, |entry| &entry.secret)?;
        let mut drafted = env.clone();
        drafted.drafts.insert(clouds.path().to_owned(), clouds_text.clone());
        drafted.drafts.insert(secure.path().to_owned(), secure_text.clone());
        check(&config, &Config::load(&drafted)?, entries)?;
        Ok(Self { clouds, secure, clouds_text, secure_text })
    }

    /// Writes both files, or neither.
    pub(super) fn write(&mut self) -> Result<()> {
        let before = self.secure.text().map(str::to_owned);
        // The secret first: without the other part it is an entry that leads nowhere, and `remove` finds it.
        self.secure.write(Some(&self.secure_text))?;
        self.clouds.write(Some(&self.clouds_text)).map_err(|error| {
            match self.secure.write(before.as_deref()) {
                Ok(()) => error,
                Err(other) => Error { detail: format!("{}; {}", error.detail, other.detail), ..error },
            }
        })
    }
}

fn is_new(config: &Config<'_>, name: &str) -> Result<()> {
    if !config.entries().contains_key(name) {
        return Ok(());
    }
    let why = "there is an entry of this name, and it is not written over";
    Err(Error::new(Code::InvalidRequest, why).cloud(name).remedy("--name with another"))
}

fn with(file: &PersonsFile, entries: &[Entry], part: impl Fn(&Entry) -> &Value) -> Result<String> {
    let mut text = file.text().map(str::to_owned);
    // Each goes before those that are there.
    for entry in entries.iter().rev() {
        let put = yaml::put(text.as_deref(), &[CLOUDS, &entry.name], part(entry), Mark::Add);
        text = Some(put.map_err(|fault| refusal(file, &entry.name, &fault))?);
    }
    Ok(text.unwrap_or_default())
}

fn refusal(file: &PersonsFile, name: &str, fault: &Fault) -> Error {
    let shown = file.path().display();
    let why = match fault {
        Fault::Says(_) => format!("{shown} has something under that name that does not count as an entry"),
        Fault::Form => format!("{shown} is written in a way that no line can be put in safely"),
    };
    Error::new(Code::InvalidConfig, why).cloud(name).remedy(BY_HAND)
}

/// Whether the files then mean the new entries, and all others as before.
fn check(before: &Config<'_>, after: &Config<'_>, entries: &[Entry]) -> Result<()> {
    let bad = |name: &str, why: &str| Err(Error::new(Code::InvalidConfig, why).cloud(name).remedy(BY_HAND));
    for entry in entries {
        let mut whole = entry.open.clone();
        merge(&mut whole, &entry.secret);
        if after.entries().get(&entry.name) != Some(&whole) {
            return bad(
                &entry.name,
                "once written, the entry would not mean what it should; nothing was changed",
            );
        }
    }
    for (name, was) in before.entries() {
        if after.entries().get(name) != Some(was) {
            return bad(
                name,
                "this entry would change as well, though it was not meant; nothing was changed",
            );
        }
    }
    Ok(())
}

fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn home(folder: &Path, clouds: &str, secure: Option<&str>) -> Environment {
        let own = folder.join(".config/openstack");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("clouds.yaml"), clouds).unwrap();
        if let Some(secure) = secure {
            fs::write(own.join("secure.yaml"), secure).unwrap();
        }
        Environment { home: folder.into(), current_dir: "/".into(), ..Environment::default() }
    }

    fn new() -> Entry {
        Entry {
            name: "new".into(),
            open: json!({"auth": {"auth_url": "http://127.0.0.1:21000/v3"}}),
            secret: json!({"auth": {"application_credential_secret": "hush"}}),
        }
    }

    #[test]
    fn a_failure_between_the_two_files_leaves_both_as_they_were() {
        for secure in [None, Some("clouds:\n  demo: {}\n")] {
            let folder = tempfile::tempdir().unwrap();
            let env = home(folder.path(), "clouds:\n  demo:\n    verify: true\n", secure);
            let mut draft = Draft::make(&env, &[new()]).unwrap();
            fs::write(draft.clouds.path(), "# another program\n").unwrap();
            let error = draft.write().unwrap_err();
            assert!(error.detail.contains("was changed by another program"), "{error}");
            assert_eq!(fs::read_to_string(draft.clouds.path()).unwrap(), "# another program\n");
            assert_eq!(fs::read_to_string(draft.secure.path()).ok().as_deref(), secure);
        }
    }

    #[test]
    fn what_would_change_other_entries_is_refused() {
        for (clouds, why) in [
            // A `clouds` of the file's own would hide the one that is merged in.
            ("base: &base\n  clouds:\n    demo: {}\n<<: *base\n", "this entry would change as well"),
            ("all: &all\n  demo: {}\nclouds: *all\n", "no line can be put in safely"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let env = home(folder.path(), clouds, None);
            let Err(error) = Draft::make(&env, &[new()]) else { panic!("{clouds}") };
            assert!(error.detail.contains(why) && error.remedy.is_some(), "{error}");
        }
    }
}
