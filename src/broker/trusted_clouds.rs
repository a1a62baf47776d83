//! The clouds that have been used or confirmed: `known-clouds-MACHINE.json`.
//!
//! A clouds.yaml in the current directory may come with a cloned repository. It must not send a user
//! to a stranger's Keystone without a word, nor to a known one while trusting a stranger's CA.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::error::{Code, Error, Result};
use crate::formats::Format;
use crate::formats::trusted_clouds::{TrustedCloud, TrustedClouds};
use crate::http_client::TrustDigest;
use crate::model::{Cloud, Workload, hex};
use crate::platform::files;
use crate::platform::paths::make_private;
use crate::sync::lock_unpoisoned;

/// Auth URL, identity provider with its address, and how Keystone's certificate is checked (and where a client's secret goes).
type Known = (String, Option<String>, String);

/// The known clouds and their file.
pub(super) struct KnownClouds {
    file: PathBuf,
    known: Mutex<BTreeSet<Known>>,
}

impl KnownClouds {
    /// Reads the file; a missing one is empty, an unreadable one knows nothing and is said in the log.
    pub(super) fn load(file: PathBuf) -> Self {
        let known = match fs::read(&file) {
            Ok(text) => match TrustedClouds::read(&text) {
                Ok(stored) => restore(stored),
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "known clouds cannot be read; starting empty");
                    BTreeSet::new()
                }
            },
            Err(_) => BTreeSet::new(),
        };
        Self { file, known: Mutex::new(known) }
    }

    /// Refuses an entry of the current directory that names a cloud which is not known.
    pub(super) fn check(&self, cloud: &Cloud, trust: &TrustDigest) -> Result<()> {
        let Some(source) = cloud.source.as_ref().filter(|source| source.current_folder) else {
            return Ok(());
        };
        if lock_unpoisoned(&self.known).contains(&known(cloud, trust)) {
            return Ok(());
        }
        let idp = provider(cloud).unwrap_or_else(|| "unnamed".to_owned());
        Err(Error::new(
            Code::CloudNotTrusted,
            format!(
                "{} in the current directory names a cloud that you have not used before: {} (identity provider {idp}{})",
                source.file.display(),
                cloud.auth_url,
                trusting(cloud),
            ),
        )
        .cloud(cloud.label())
        .remedy(format!("if you trust it: ksb trust {}", cloud.argument())))
    }

    /// Remembers the cloud.
    pub(super) fn add(&self, cloud: &Cloud, trust: &TrustDigest) -> Result<()> {
        let text = {
            let mut all = lock_unpoisoned(&self.known);
            if !all.insert(known(cloud, trust)) {
                return Ok(());
            }
            store(&all).write().map_err(|error| Error::new(Code::Internal, error.to_string()))?
        };
        self.save(&text).map_err(|error| Error::io(self.file.display(), &error))
    }

    fn save(&self, text: &[u8]) -> std::io::Result<()> {
        let folder = self.file.parent().unwrap_or(&self.file);
        make_private(folder).map_err(|error| std::io::Error::other(error.to_string()))?;
        files::replace(&self.file, text)
    }
}

fn store(all: &BTreeSet<Known>) -> TrustedClouds {
    let clouds = all.iter().cloned().map(|(keystone, identity_provider, tls)| TrustedCloud {
        keystone,
        identity_provider,
        tls,
    });
    TrustedClouds { version: TrustedClouds::VERSION, clouds: clouds.collect() }
}

fn restore(stored: TrustedClouds) -> BTreeSet<Known> {
    stored.clouds.into_iter().map(|cloud| (cloud.keystone, cloud.identity_provider, cloud.tls)).collect()
}

fn known(cloud: &Cloud, trust: &TrustDigest) -> Known {
    let mut check = if cloud.tls.verify { hex(trust) } else { "unverified".to_owned() };
    // A stranger's file may name a known cloud, and its own address for the secret that lies in the user's secure.yaml.
    if let Some(Workload::Client(client)) = &cloud.sign_in.workload {
        for address in [&client.token_endpoint, &client.discovery_endpoint].into_iter().flatten() {
            check.push(' ');
            check.push_str(address.as_str());
        }
    }
    (cloud.keystone_root(), provider(cloud), check)
}

/// Keystone's name for the identity provider, and its address where the entry has one: there the user types a password.
fn provider(cloud: &Cloud) -> Option<String> {
    let name = cloud.identity_provider.clone();
    match &cloud.sign_in.oidc {
        Some(oidc) => {
            Some(format!("{} at {}", name.as_deref().unwrap_or("unnamed"), oidc.discovery_endpoint))
        }
        None => name,
    }
}

/// What an entry says about certificates, for the user who is asked.
fn trusting(cloud: &Cloud) -> String {
    match (&cloud.tls.verify, &cloud.tls.ca_file) {
        (false, _) => ", its certificate NOT checked".to_owned(),
        (true, Some(file)) => format!(", its certificate checked by {}", file.display()),
        (true, None) => String::new(),
    }
}
