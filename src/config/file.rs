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
    /// Keys that the person's file may not loosen; in the system's file only.
    pub(super) locked: Vec<String>,
    pub(super) facade_port: Option<u16>,
    pub(super) vault: Option<Wish>,
    pub(super) lock: Locking,
    pub(super) session: Session,
    pub(super) lease: Lease,
    pub(super) browser: Option<String>,
    pub(super) confirm: Option<bool>,
    pub(super) prompt: Prompt,
    pub(super) clouds: BTreeMap<String, PerCloud>,
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
    pub(super) per_hour: Option<u32>,
    pub(super) cool_down: Option<Time>,
}

/// What one cloud may have otherwise.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PerCloud {
    pub(super) browser: Option<String>,
    pub(super) logout_url: Option<Url>,
    pub(super) confirm: Option<bool>,
    pub(super) prompt: Prompt,
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
    /// What holds for clouds without settings of their own.
    pub(super) fn everywhere(&self) -> PerCloud {
        PerCloud {
            browser: self.browser.clone(),
            logout_url: None,
            confirm: self.confirm,
            prompt: self.prompt.clone(),
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
