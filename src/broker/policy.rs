//! When a token is still good enough, and who may be prompted how often.

use jiff::{SignedDuration, Timestamp};

use crate::model::Token;

/// Remaining life below which a token is not served any more: min(130 s, a quarter of its life).
/// keystoneauth itself re-authenticates below 120 s.
pub(super) fn hard_threshold(token: &Token) -> SignedDuration {
    let life = token.expires_at.duration_since(token.issued_at);
    SignedDuration::from_secs(130).min(life / 4)
}

/// Whether `token` lives beyond the hard threshold and `min_validity` seconds.
pub(super) fn serves(token: &Token, now: Timestamp, min_validity: u64) -> bool {
    let wanted = SignedDuration::from_secs(i64::try_from(min_validity).unwrap_or(i64::MAX));
    token.expires_at.duration_since(now) > hard_threshold(token).max(wanted)
}

/// When a session that can be renewed is: with min(max(600 s, a tenth of its life), half of it) left, and up to a tenth
/// of that earlier, so that many sessions do not come at once. The id makes the same token wait for the same time.
pub(super) fn renewal(token: &Token) -> Timestamp {
    let life = token.expires_at.duration_since(token.issued_at);
    let soft = SignedDuration::from_mins(10).max(life / 10).min(life / 2);
    let spread = token.id.expose().bytes().fold(0_i32, |sum, byte| (sum + i32::from(byte)) % 100);
    token.expires_at - soft - soft / 1000 * spread
}

/// When a token is not served any more to a caller who does not ask for more life than any.
pub(super) fn hard_end(token: &Token) -> Timestamp {
    token.expires_at - hard_threshold(token)
}

/// How long a session counts as fresh: a caller who wants more life than a new sign-in gives is
/// served what there is instead of being sent to the browser again and again.
pub(super) const FRESH: SignedDuration = SignedDuration::from_secs(60);

/// How long the caller of a logout waits for servers that do not answer; they are asked on.
pub(super) const ENDING: SignedDuration = SignedDuration::from_secs(10);

/// How long the chosen opener may take to say that it opened the browser; then another one is chosen.
pub(super) const OPENER_GRACE: SignedDuration = SignedDuration::from_secs(5);

/// How long Keystone's word for a token counts, where a lease's holder comes again: they may have been refused with it.
pub(super) const CONFIRMED: SignedDuration = SignedDuration::from_secs(5);

/// Credentials that Keystone made for a lease are deleted this long before they end by themselves: with a federated
/// user's membership of a group they would only fall asleep, and wake up at the next sign-in.
pub(super) const CREDENTIAL_MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// A confined lease without an end gets new credentials after this long.
pub(super) const CREDENTIAL_LIFE: SignedDuration = SignedDuration::from_hours(24);

/// How long an unreachable Keystone is tried for a tool that waits: many take the first failure for the last word.
pub(super) const UNREACHABLE: SignedDuration = SignedDuration::from_secs(120);

/// Seconds as somebody asks for them, ten years at most.
pub(super) fn lifetime(seconds: u64) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(seconds.min(315_360_000)).unwrap_or(315_360_000))
}

/// How long a user may take to sign in: what the cloud says, a day at most.
pub(super) fn patience(seconds: u64) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(seconds.min(86_400)).unwrap_or(300))
}

/// How long the next passphrase waits after so many wrong ones: a second, doubled each time, half a minute at most. What
/// makes guessing hopeless is Argon2id; this keeps it from being cheap for whoever has the socket and not the file.
pub(super) fn unlock_pause(failures: u32) -> SignedDuration {
    match failures {
        0 => SignedDuration::ZERO,
        failures => SignedDuration::from_secs((1 << (failures - 1).min(5)).min(30)),
    }
}

/// Rests between attempts at what does not answer: a minute, doubled each time, ten at most.
pub(super) struct Rests {
    next: SignedDuration,
    over: Timestamp,
}

impl Rests {
    /// No rest yet.
    pub(super) const NONE: Self = Self { next: SignedDuration::from_mins(1), over: Timestamp::MIN };

    /// An attempt failed.
    pub(super) fn begin(&mut self, now: Timestamp) {
        *self = Self { next: SignedDuration::from_mins(10).min(self.next * 2), over: now + self.next };
    }

    /// Short ones, for somebody who waits.
    pub(super) const SHORT: Self = Self { next: SignedDuration::from_secs(1), over: Timestamp::MIN };

    /// The time of the next attempt that is due then.
    pub(super) fn after(&self, due: Timestamp) -> Timestamp {
        due.max(self.over)
    }
}
