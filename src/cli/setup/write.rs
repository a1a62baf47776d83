//! The entry's way into the user's clouds.yaml: what the file will say is looked at before it does.

use std::path::Path;

use serde_json::Value;

use crate::cli::yaml::{self, CLOUDS, Kind, Mark, PersonsFile};
use crate::clouds::{Config, Environment};
use crate::error::{Code, Error, Result};

const BY_HAND: &str = "give `clouds` and each entry in that file lines of their own, without `{…}`";

/// Whether there is a file that may be written to.
pub(super) fn possible(env: &Environment) -> Result<()> {
    yaml::target(env, &Config::load(env)?, Kind::Clouds).map(drop)
}

/// The file with what it is to say. Nobody else changes it meanwhile.
pub(super) struct Draft {
    file: PersonsFile,
    text: String,
}

impl Draft {
    /// Puts the entry in, before those that are there.
    pub(super) fn make(env: &Environment, name: &str, entry: &Value) -> Result<Self> {
        let path = yaml::target(env, &Config::load(env)?, Kind::Clouds)?;
        let [file] = PersonsFile::open([(Kind::Clouds, &path)])?;
        // What counts is what is found now that the file is ours alone.
        let before = Config::load(env)?;
        file.must_be_read(&before)?;
        let stays = |why: String| Error::new(Code::InvalidConfig, why).cloud(name).remedy(BY_HAND);
        if before.entries().contains_key(name) {
            return Err(stays("there is an entry of this name, and it is not written over".into())
                .remedy("--name with another"));
        }
        let text = yaml::put(file.text(), &[CLOUDS, name], entry, Mark::Setup).map_err(|_| {
            stays(format!("{} is written in a way that no line can be put in safely", path.display()))
        })?;
        let mut drafted = env.clone();
        drafted.drafts.insert(path.clone(), text.clone());
        let after = Config::load(&drafted)?;
        let others = before.entries().iter().all(|(name, was)| after.entries().get(name) == Some(was));
        if !others || after.entries().get(name) != Some(entry) {
            return Err(stays(format!(
                "once written, {} would not mean what it should; nothing was changed",
                path.display()
            )));
        }
        Ok(Self { file, text })
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// The lines that are new.
    pub(super) fn lines(&self) -> String {
        let ours = self.text.lines().filter_map(|line| line.strip_suffix(Mark::Setup.text()));
        ours.collect::<Vec<_>>().join("\n")
    }

    pub(super) fn write(&mut self) -> Result<()> {
        self.file.write(Some(&self.text))
    }
}
