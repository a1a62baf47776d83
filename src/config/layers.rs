//! The system's file below the person's own: which of two values is in force.
#![expect(
    clippy::ptr_arg,
    clippy::trivially_copy_pass_by_ref,
    reason = "one signature for values of every kind"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::file::{File, Lease, Locking, PerCloud, Prompt, Session, Span, Time};
use super::invalid;
use crate::error::Result;

/// The keys that a system may lock: those that limit. The others are matters of taste.
const LOCKABLE: [&str; 10] = [
    "confirm",
    "lease.lifetime",
    "lease.unattended",
    "lock.idle",
    "lock.on_screen_lock",
    "lock.on_sleep",
    "prompt.cool_down",
    "prompt.per_hour",
    "prompt.programs",
    "session.lifetime",
];

/// How two files become one.
pub(super) struct Layers<'p> {
    system: &'p Path,
    user: &'p Path,
    locked: Vec<String>,
    /// Locked keys to which the system gave no value yet.
    unbound: BTreeSet<String>,
    /// The file that each limit comes from.
    pub(super) origins: BTreeMap<String, PathBuf>,
    /// What the person's file says in vain, each a sentence.
    pub(super) overruled: Vec<String>,
}

impl<'p> Layers<'p> {
    /// The keys of `system`, the file at that path, that it locks.
    pub(super) fn new(system: &'p Path, user: &'p Path, locked: Vec<String>) -> Result<Self> {
        if let Some(key) = locked.iter().find(|key| !LOCKABLE.contains(&key.as_str())) {
            return Err(invalid(system, &format!("locked: {key} is none of {}", LOCKABLE.join(", "))));
        }
        let unbound = locked.iter().cloned().collect();
        Ok(Self { system, user, locked, unbound, origins: BTreeMap::new(), overruled: Vec::new() })
    }

    /// The person's file above the system's. A lock that holds nothing is a mistake: most defaults limit nothing.
    pub(super) fn merged(&mut self, system: File, user: File) -> Result<File> {
        let merged = self.merge(system, user);
        match self.unbound.first() {
            Some(key) => {
                Err(invalid(self.system, &format!("locked: {key} has no value in this file that could hold")))
            }
            None => Ok(merged),
        }
    }

    fn merge(&mut self, mut system: File, mut user: File) -> File {
        let everywhere = system.everywhere();
        let mut clouds = BTreeMap::new();
        for name in system.clouds.keys().chain(user.clouds.keys()).cloned().collect::<BTreeSet<_>>() {
            let theirs = system.clouds.remove(&name).unwrap_or_default();
            let own = user.clouds.remove(&name).unwrap_or_default();
            let place = format!("clouds.{name}.");
            clouds.insert(name, self.cloud(&place, &everywhere, theirs, own));
        }
        let (theirs, own) = (&system.lock, &user.lock);
        let lock = Locking {
            idle: self.limit("lock.idle", shorter, theirs.idle, own.idle),
            on_screen_lock: self.limit(
                "lock.on_screen_lock",
                demanded,
                theirs.on_screen_lock,
                own.on_screen_lock,
            ),
            on_sleep: self.limit("lock.on_sleep", demanded, theirs.on_sleep, own.on_sleep),
        };
        let (theirs, own) = (&system.session, &user.session);
        let session =
            Session { lifetime: self.limit("session.lifetime", shorter, theirs.lifetime, own.lifetime) };
        let (theirs, own) = (&system.lease, &user.lease);
        let lease = Lease {
            lifetime: self.limit("lease.lifetime", shorter, theirs.lifetime, own.lifetime),
            unattended: self.limit("lease.unattended", allowed, theirs.unattended, own.unattended),
        };
        let own = user.everywhere();
        let PerCloud { browser, confirm, prompt, .. } =
            self.cloud("", &PerCloud::default(), everywhere.clone(), own);
        File {
            locked: Vec::new(),
            facade_port: user.facade_port.or(system.facade_port),
            vault: user.vault.or(system.vault),
            lock,
            session,
            lease,
            browser,
            confirm,
            prompt,
            clouds,
        }
    }

    /// What holds for one cloud, or with an empty `place` for those without settings of their own. Where the system says
    /// nothing of the cloud, it is held to what it says of all.
    fn cloud(&mut self, place: &str, everywhere: &PerCloud, theirs: PerCloud, own: PerCloud) -> PerCloud {
        let key = |name: &str| format!("{place}{name}");
        let (wide, narrow, wish) = (&everywhere.prompt, theirs.prompt, own.prompt);
        let prompt = Prompt {
            programs: self.within(
                &key("prompt.programs"),
                fewer,
                narrow.programs,
                wide.programs.as_ref(),
                wish.programs,
            ),
            per_hour: self.within(
                &key("prompt.per_hour"),
                less,
                narrow.per_hour,
                wide.per_hour.as_ref(),
                wish.per_hour,
            ),
            cool_down: self.within(
                &key("prompt.cool_down"),
                longer,
                narrow.cool_down,
                wide.cool_down.as_ref(),
                wish.cool_down,
            ),
        };
        PerCloud {
            browser: own.browser.or(theirs.browser),
            logout_url: own.logout_url.or(theirs.logout_url),
            confirm: self.within(
                &key("confirm"),
                demanded,
                theirs.confirm,
                everywhere.confirm.as_ref(),
                own.confirm,
            ),
            prompt,
        }
    }

    fn limit<T>(
        &mut self,
        key: &str,
        is_within: fn(&T, &T) -> bool,
        theirs: Option<T>,
        own: Option<T>,
    ) -> Option<T> {
        self.within(key, is_within, theirs, None, own)
    }

    /// The person's own value, unless the key is locked and theirs is looser. `key` may stand below a cloud.
    fn within<T>(
        &mut self,
        key: &str,
        is_within: fn(&T, &T) -> bool,
        theirs: Option<T>,
        everywhere: Option<&T>,
        own: Option<T>,
    ) -> Option<T> {
        let lock = self.locked.iter().find(|locked| {
            key.strip_suffix(*locked).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        let bound = theirs.as_ref().or(everywhere).filter(|_| lock.is_some());
        if let (Some(lock), Some(_)) = (lock, bound) {
            self.unbound.remove(lock);
        }
        let is_loose = own.as_ref().zip(bound).is_some_and(|(own, bound)| !is_within(own, bound));
        if is_loose {
            let (user, system) = (self.user.display(), self.system.display());
            self.overruled.push(format!("{key} of {user} is not in force: {system} locks it"));
        }
        let (value, file) = match own.filter(|_| !is_loose) {
            Some(own) => (Some(own), self.user),
            None => (theirs, self.system),
        };
        if value.is_some() {
            self.origins.insert(key.to_owned(), file.to_owned());
        }
        value
    }
}

fn shorter(own: &Span, bound: &Span) -> bool {
    own.length() <= bound.length()
}

fn longer(own: &Time, bound: &Time) -> bool {
    own.0 >= bound.0
}

fn less(own: &u32, bound: &u32) -> bool {
    own <= bound
}

fn fewer(own: &Vec<String>, bound: &Vec<String>) -> bool {
    own.iter().all(|each| bound.contains(each))
}

/// Of what makes things safer.
fn demanded(own: &bool, bound: &bool) -> bool {
    *own || !*bound
}

/// Of what makes things possible.
fn allowed(own: &bool, bound: &bool) -> bool {
    !*own || *bound
}
