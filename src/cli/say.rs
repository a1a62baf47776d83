//! Words for people: times, durations, failures.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::api::{Incomplete, NotRevoked, Session};
use crate::error::Error;
use crate::model::User;
use crate::platform::clock::SystemClock;
use crate::time::Clock;

/// The time now.
pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

/// `ksb: demo: what failed. Try: ksb login demo`
pub(super) fn failure(error: &Error) -> String {
    let id = error.request_id.as_ref().map_or(String::new(), |id| format!(" ({id})"));
    let remedy = error.remedy.as_ref().map_or(String::new(), |remedy| format!(". Try: {remedy}"));
    format!("ksb: {error}{id}{remedy}")
}

/// `since 15:30`
pub(super) fn since(start: Timestamp) -> String {
    let zone = TimeZone::system();
    format!("since {}", start.to_zoned(zone).strftime("%a %H:%M"))
}

/// `15:30 (58 min)`, with the date unless it is today's.
pub(super) fn until(end: Timestamp) -> String {
    let zone = TimeZone::system();
    let (end_there, now_there) = (end.to_zoned(zone.clone()), now().to_zoned(zone));
    let clock = if end_there.date() == now_there.date() {
        end_there.strftime("%H:%M").to_string()
    } else {
        end_there.strftime("%a %-d %b %H:%M").to_string()
    };
    format!("{clock} ({})", span(end.duration_since(now())))
}

/// `2 h 5 min`, `58 min`, `40 s`, `over`.
pub(super) fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..=0 => "over".into(),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `4:58`; nothing less than none.
pub(super) fn countdown(left: SignedDuration) -> String {
    let seconds = left.as_secs().max(0);
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// `until 15:30 (58 min), does not renew`
pub(super) fn lasts(session: &Session) -> String {
    let renews = match (session.ends_at, session.kept_by_tab, session.renews) {
        (Some(end), ..) if end == session.expires_at => "then it is logged out",
        (_, true, _) => "a browser tab keeps it signed in",
        (_, _, true) => "renews itself",
        _ => "does not renew",
    };
    format!("until {}, {renews}", until(session.expires_at))
}

/// Why a session ends sooner than was asked.
pub(super) fn why_no_longer(session: &Session) -> &str {
    session.renewal_failure.as_deref().unwrap_or("this cloud's sign-ins do not last longer")
}

/// What Keystone still honours after it was to be revoked.
pub(super) fn not_revoked(cloud: &str, what: &NotRevoked) -> String {
    let lives = what.expires_at.map_or(String::new(), |end| format!(", lives until {}", until(end)));
    format!("{cloud}: NOT revoked: {} token{lives} ({})", what.scope, what.reason)
}

/// Why there may be more than was said.
pub(super) fn incomplete(Incomplete { reason, remedy, expires_at }: &Incomplete) -> String {
    let expires =
        expires_at.map_or(String::new(), |end| format!("; its tokens have expired by {}", until(end)));
    let remedy = remedy.as_ref().map_or(String::new(), |remedy| format!(". Try: {remedy}"));
    format!("there may be more: {reason}{expires}{remedy}")
}

/// `alice (lab)`
pub(super) fn user(user: &User) -> String {
    format!("{} ({})", user.name, user.domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_countdown_ends_at_zero() {
        let said: Vec<_> =
            [-1, 0, 9, 298].map(|seconds| countdown(SignedDuration::from_secs(seconds))).into();
        assert_eq!(said, ["0:00", "0:00", "0:09", "4:58"]);
    }

    #[test]
    fn spans_read_as_people_say_them() {
        let said: Vec<_> = [-5, 0, 40, 119, 120, 3540, 7200, 7500, 200_000]
            .map(|seconds| span(SignedDuration::from_secs(seconds)))
            .into();
        assert_eq!(
            said,
            ["over", "over", "40 s", "119 s", "2 min", "59 min", "2 h 0 min", "2 h 5 min", "2 days"]
        );
    }
}
