//! The (auth URL, identity provider) pairs that have been used or confirmed: `known-clouds.json`.
//!
//! A clouds.yaml in the current folder may come with a cloned repository. It must not send a person
//! to a stranger's Keystone without a word.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::error::{Code, Error, Result};
use crate::model::Cloud;
use crate::platform::paths::private_folder;
use crate::sync::locked;

type Pair = (String, Option<String>);

/// The known pairs and their file.
pub(super) struct KnownClouds {
    file: PathBuf,
    pairs: Mutex<BTreeSet<Pair>>,
}

impl KnownClouds {
    /// Reads the file; a missing one is empty, an unreadable one knows nothing and is said in the log.
    pub(super) fn load(file: PathBuf) -> Self {
        let pairs = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(file = %file.display(), %error, "known clouds cannot be read; starting empty");
                BTreeSet::new()
            }),
            Err(_) => BTreeSet::new(),
        };
        Self { file, pairs: Mutex::new(pairs) }
    }

    /// Refuses an entry of the current folder whose pair is not known.
    pub(super) fn check(&self, cloud: &Cloud) -> Result<()> {
        let Some(source) = cloud.source.as_ref().filter(|source| source.current_folder) else {
            return Ok(());
        };
        if locked(&self.pairs).contains(&pair(cloud)) {
            return Ok(());
        }
        let idp = cloud.identity_provider.as_deref().unwrap_or("unnamed");
        Err(Error::new(
            Code::CloudNotTrusted,
            format!(
                "{} in the current folder names a cloud that you have not used before: {} (identity provider {idp})",
                source.file.display(),
                cloud.auth_url,
            ),
        )
        .cloud(cloud.label())
        .remedy(format!("if you trust it: ksb trust {}", cloud.argument())))
    }

    /// Remembers the cloud's pair.
    pub(super) fn add(&self, cloud: &Cloud) -> Result<()> {
        let text = {
            let mut pairs = locked(&self.pairs);
            if !pairs.insert(pair(cloud)) {
                return Ok(());
            }
            serde_json::to_vec_pretty(&*pairs).unwrap_or_default()
        };
        self.save(&text).map_err(|error| Error::new(Code::Io, format!("{}: {error}", self.file.display())))
    }

    fn save(&self, text: &[u8]) -> std::io::Result<()> {
        let folder = self.file.parent().unwrap_or(&self.file);
        private_folder(folder).map_err(|error| std::io::Error::other(error.to_string()))?;
        let new = self.file.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, &self.file)
    }
}

fn pair(cloud: &Cloud) -> Pair {
    (cloud.keystone_root(), cloud.identity_provider.clone())
}
