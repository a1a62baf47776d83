//! Users that Keystone itself knows, and what they prove themselves with.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DomainRef, Secret};

/// A user of Keystone's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LocalUser {
    /// Who.
    pub user: UserRef,
    /// What the entry wants shown, in this order. Keystone says itself what is missing then (its `multi_factor_auth_rules`).
    #[serde(default = "password_first")]
    pub methods: Vec<Factor>,
    /// The password, where the entry has it; else a user is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

/// A user by id, or by name and domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserRef {
    /// The user's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The domain that the name lives in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainRef>,
}

/// Something that a user shows to Keystone, by the name that Keystone has for the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    /// A password.
    Password,
    /// A one-time code by the clock (RFC 6238).
    Totp,
}

/// What is shown first where the entry does not say.
pub fn password_first() -> Vec<Factor> {
    vec![Factor::Password]
}

impl Factor {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Password, Self::Totp];

    /// Keystone's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Totp => "totp",
        }
    }

    /// By Keystone's name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|factor| factor.name() == name)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password => "password",
            Self::Totp => "one-time code",
        })
    }
}

impl fmt::Display for UserRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().or(self.id.as_deref()).unwrap_or("?"))?;
        self.domain.as_ref().map_or(Ok(()), |domain| write!(f, " ({domain})"))
    }
}

impl LocalUser {
    /// What tells this user from another one of the same cloud.
    pub(super) fn tell_apart(&self, part: &mut impl FnMut(&str)) {
        let domain = self.user.domain.as_ref();
        let domain = [
            domain.and_then(|domain| domain.id.as_deref()),
            domain.and_then(|domain| domain.name.as_deref()),
        ];
        for text in [self.user.id.as_deref(), self.user.name.as_deref()].into_iter().chain(domain) {
            part(text.unwrap_or(""));
        }
    }
}
