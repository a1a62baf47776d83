//! `config.toml`: the person's own settings for the broker, read by the agent at its start.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use url::Url;

use crate::error::{Code, Error, Result};
use crate::model::Cloud;
use crate::vault::Wish;

/// The whole file. Unknown keys are an error: a misspelt setting must not look as if it worked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Settings by cloud name.
    #[serde(default)]
    clouds: BTreeMap<String, CloudConfig>,
    /// The browser command for clouds that name none.
    browser: Option<String>,
    /// The facade's port; 0 is any free one, another with each start.
    pub facade_port: Option<u16>,
    /// Who is to keep the vault's key.
    #[serde(default)]
    pub vault: Wish,
}

/// Settings of one cloud.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CloudConfig {
    browser: Option<String>,
    logout_url: Option<Url>,
}

impl Config {
    /// Reads the file; a missing one means the defaults.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(invalid(path, &error.to_string())),
        };
        toml::from_str(&text).map_err(|error| invalid(path, &error.to_string()))
    }

    /// The command that opens a sign-in's URL for this cloud.
    pub fn browser(&self, cloud: &Cloud) -> Option<String> {
        self.of(cloud).and_then(|own| own.browser.clone()).or_else(|| self.browser.clone())
    }

    /// The page that ends the browser's session at this cloud.
    pub fn logout_url(&self, cloud: &Cloud) -> Option<Url> {
        cloud.logout_url.clone().or_else(|| self.of(cloud)?.logout_url.clone())
    }

    fn of(&self, cloud: &Cloud) -> Option<&CloudConfig> {
        self.clouds.get(cloud.name.as_deref()?)
    }
}

fn invalid(path: &Path, why: &str) -> Error {
    Error::new(Code::InvalidConfig, format!("{}: {}", path.display(), why.trim()))
        .remedy(format!("correct {}", path.display()))
}
