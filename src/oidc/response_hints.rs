//! What an identity provider's answers say beside their bodies: what its clock shows, and when it wants to be left alone.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::http_client::Answer;
use crate::sync::lock_unpoisoned;

/// A `Date` has whole seconds and was written a moment ago: this much tells nothing of a clock.
const UNCERTAIN: SignedDuration = SignedDuration::from_secs(5);
/// No provider is left alone for longer, whatever it says: its people would be signed out.
const LONGEST_REST: SignedDuration = SignedDuration::from_hours(1);

/// What was heard last.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Last>>);

#[derive(Default)]
struct Last {
    /// How far its clock is before ours, if it says.
    ahead: Option<SignedDuration>,
    not_before: Option<Timestamp>,
}

impl Heard {
    /// Takes note of an answer (`Date`, `Retry-After`).
    pub(super) fn note(&self, answer: &Answer, now: Timestamp) {
        let mut last = lock_unpoisoned(&self.0);
        last.ahead = answer.date().map(|its_now| its_now.duration_since(now)).or(last.ahead);
        last.not_before = answer.retry_after(now).map(|wanted| now + wanted.min(LONGEST_REST));
    }

    /// How far the provider's clock is before ours, where that is more than the way of an answer explains. Keycloak sends
    /// no `Date`; there, what it has just issued tells.
    pub(super) fn ahead(&self, issued: Option<Timestamp>, now: Timestamp) -> Option<SignedDuration> {
        let ahead = lock_unpoisoned(&self.0).ahead.or_else(|| Some(issued?.duration_since(now)))?;
        (ahead.abs() >= UNCERTAIN).then_some(ahead)
    }

    /// For how long it still wants to be left alone.
    pub(super) fn rest(&self, now: Timestamp) -> Option<Duration> {
        let not_before = lock_unpoisoned(&self.0).not_before?;
        not_before.duration_since(now).try_into().ok().filter(|rest: &Duration| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_an_hour_at_most() {
        let now: Timestamp = "2026-03-29T00:59:57Z".parse().unwrap();
        let rest = |status, after: &str| {
            let mut headers = reqwest::header::HeaderMap::new();
            // The provider's clock is five minutes before ours.
            headers.insert("date", "Sun, 29 Mar 2026 01:04:57 GMT".parse().unwrap());
            headers.insert("retry-after", after.parse().unwrap());
            let heard = Heard::default();
            heard.note(&Answer { status, headers, body: String::new() }, now);
            assert_eq!(heard.ahead(None, now), Some(SignedDuration::from_secs(300)));
            heard.rest(now).map(|rest| rest.as_secs())
        };
        assert_eq!(rest(429, "120"), Some(120));
        assert_eq!(rest(503, "Sun, 29 Mar 2026 01:05:57 GMT"), Some(60));
        assert_eq!(rest(429, "999999"), Some(3600));
        assert_eq!(rest(429, "soon"), None);
        assert_eq!(rest(429, "Sun, 29 Mar 2026 01:00:00 GMT"), None, "that is over");
        assert_eq!(rest(200, "120"), None);
    }
}
