//! Addresses of an entry: without a name or password in them (RFC 3986 section 3.2.1), which would be shown wherever the
//! address is.

use serde::{Deserialize, Deserializer, de::Error as _};
use url::Url;

/// Why one is not taken. It is not repeated.
pub const USERINFO: &str = "holds a name or a password: leave out what stands before the @";

/// Whether somebody's name or password stands before the host.
pub fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

pub(super) fn required<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    let url = Url::deserialize(from)?;
    if has_userinfo(&url) { Err(D::Error::custom(format!("an address {USERINFO}"))) } else { Ok(url) }
}

pub(super) fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Url>, D::Error> {
    match Option::<Url>::deserialize(from)? {
        Some(url) if has_userinfo(&url) => Err(D::Error::custom(format!("an address {USERINFO}"))),
        url => Ok(url),
    }
}
