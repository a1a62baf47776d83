//! What a `config.toml` may hold. docs/configuration.md describes each key.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::Deserialize;
use url::Url;

use crate::model::duration;
use crate::vault::Wish;

/// One file. Unknown keys are an error: a misspelt setting must not look as if it worked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) facade_port: Option<u16>,
    pub(super) vault: Option<Wish>,
    pub(super) lock: Locking,
    pub(super) session: Session,
    pub(super) lease: Lease,
    pub(super) browser: Option<String>,
    pub(super) confirm: Option<bool>,
    pub(super) prompt: Prompt,
    pub(super) hosts: BTreeMap<String, HostLimits>,
    pub(super) clouds: BTreeMap<String, CloudSettings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Locking {
    pub(super) idle: Option<Span>,
    pub(super) on_screen_lock: Option<bool>,
    pub(super) on_sleep: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Session {
    pub(super) lifetime: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Lease {
    pub(super) lifetime: Option<Span>,
    pub(super) unattended: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Prompt {
    pub(super) programs: Option<Vec<String>>,
    pub(super) cool_down: Option<Time>,
}

/// Limits of the clouds whose `auth_url` has one host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HostLimits {
    pub(super) confirm: Option<bool>,
    pub(super) prompt: Prompt,
}

/// Settings of one cloud, by its name in clouds.yaml.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CloudSettings {
    pub(super) browser: Option<String>,
    pub(super) logout_url: Option<Url>,
}

/// A time, such as `"30min"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Time(pub(super) SignedDuration);

/// A time, or `"off"`, which stands for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Span(pub(super) Option<SignedDuration>);

impl File {
    /// Limits of the clouds at hosts without a table.
    pub(super) fn limits(&self) -> HostLimits {
        HostLimits { confirm: self.confirm, prompt: self.prompt.clone() }
    }
}

impl HostLimits {
    /// These, and `others` where there are none.
    pub(super) fn or(self, others: &Self) -> Self {
        let (own, others_prompt) = (self.prompt, others.prompt.clone());
        Self {
            confirm: self.confirm.or(others.confirm),
            prompt: Prompt {
                programs: own.programs.or(others_prompt.programs),
                cool_down: own.cool_down.or(others_prompt.cool_down),
            },
        }
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        /// Far beyond what anybody means, and within what a calendar can add.
        const LONGEST: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
        let time = duration::parse(&text).map_err(|why| format!("{text:?}: {why}"))?;
        if time > LONGEST { Err(format!("{text:?}: more than ten years")) } else { Ok(Self(time)) }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "off" { Ok(Self(None)) } else { Time::try_from(text).map(|Time(time)| Self(Some(time))) }
    }
}

impl Span {
    /// For comparisons: for ever is longer than anything.
    pub(super) fn length(self) -> SignedDuration {
        self.0.unwrap_or(SignedDuration::MAX)
    }
}
