//! The system's file beside the user's own: the stricter value of the two is in force.
#![expect(
    clippy::ptr_arg,
    clippy::trivially_copy_pass_by_ref,
    reason = "one signature for values of every kind"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::file::{CloudSettings, File, HostLimits, Lease, Locking, Prompt, Session, Span, Time};

/// How two files become one.
pub(super) struct SystemPolicy<'p> {
    system: &'p Path,
    user: &'p Path,
    /// The file that each limit comes from.
    pub(super) origins: BTreeMap<String, PathBuf>,
    /// The looser values of the user's file, each in a sentence.
    pub(super) overruled: Vec<String>,
}

impl<'p> SystemPolicy<'p> {
    /// For files at these paths.
    pub(super) fn new(system: &'p Path, user: &'p Path) -> Self {
        Self { system, user, origins: BTreeMap::new(), overruled: Vec::new() }
    }

    /// Both files: of limits the stricter value, of everything else the user's.
    pub(super) fn merge(&mut self, mut system: File, mut user: File) -> File {
        let (theirs, own) = (system.limits(), user.limits());
        let names = |file: &File| file.hosts.keys().cloned().collect::<BTreeSet<_>>();
        let mut hosts = BTreeMap::new();
        for host in &names(&system) | &names(&user) {
            let theirs = system.hosts.remove(&host).unwrap_or_default().or(&theirs);
            let own = user.hosts.remove(&host).unwrap_or_default().or(&own);
            let place = format!("hosts.{host}.");
            hosts.insert(host, self.limits(&place, theirs, own));
        }
        let HostLimits { confirm, prompt } = self.limits("", theirs, own);
        let (theirs, own) = (system.lock, user.lock);
        let lock = Locking {
            idle: self.stricter("lock.idle", shorter, theirs.idle, own.idle),
            on_screen_lock: self.stricter(
                "lock.on_screen_lock",
                demanded,
                theirs.on_screen_lock,
                own.on_screen_lock,
            ),
            on_sleep: self.stricter("lock.on_sleep", demanded, theirs.on_sleep, own.on_sleep),
        };
        let session = Session {
            lifetime: self.stricter(
                "session.lifetime",
                shorter,
                system.session.lifetime,
                user.session.lifetime,
            ),
        };
        let (theirs, own) = (system.lease, user.lease);
        let lease = Lease {
            lifetime: self.stricter("lease.lifetime", shorter, theirs.lifetime, own.lifetime),
            unattended: self.stricter("lease.unattended", allowed, theirs.unattended, own.unattended),
        };
        let mut clouds = system.clouds;
        for (name, own) in user.clouds {
            let theirs = clouds.remove(&name).unwrap_or_default();
            let merged = CloudSettings {
                browser: own.browser.or(theirs.browser),
                logout_url: own.logout_url.or(theirs.logout_url),
            };
            clouds.insert(name, merged);
        }
        File {
            facade_port: user.facade_port.or(system.facade_port),
            vault: user.vault.or(system.vault),
            lock,
            session,
            lease,
            browser: user.browser.or(system.browser),
            confirm,
            prompt,
            hosts,
            clouds,
        }
    }

    fn limits(&mut self, place: &str, theirs: HostLimits, own: HostLimits) -> HostLimits {
        let key = |name: &str| format!("{place}{name}");
        let (wide, narrow) = (theirs.prompt, own.prompt);
        HostLimits {
            confirm: self.stricter(&key("confirm"), demanded, theirs.confirm, own.confirm),
            prompt: Prompt {
                programs: self.stricter(&key("prompt.programs"), fewer, wide.programs, narrow.programs),
                cool_down: self.stricter(&key("prompt.cool_down"), longer, wide.cool_down, narrow.cool_down),
            },
        }
    }

    /// The user's value, unless it is looser than the system's.
    fn stricter<T>(
        &mut self,
        key: &str,
        is_within: fn(&T, &T) -> bool,
        theirs: Option<T>,
        own: Option<T>,
    ) -> Option<T> {
        let is_loose = own.as_ref().zip(theirs.as_ref()).is_some_and(|(own, theirs)| !is_within(own, theirs));
        if is_loose {
            let (user, system) = (self.user.display(), self.system.display());
            self.overruled.push(format!("{key} of {user} is not in force: {system} is stricter"));
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

fn shorter(own: &Span, theirs: &Span) -> bool {
    own.length() <= theirs.length()
}

fn longer(own: &Time, theirs: &Time) -> bool {
    own.0 >= theirs.0
}

fn fewer(own: &Vec<String>, theirs: &Vec<String>) -> bool {
    own.iter().all(|each| theirs.contains(each))
}

/// Of settings that make things safer.
fn demanded(own: &bool, theirs: &bool) -> bool {
    *own || !*theirs
}

/// Of settings that make things possible.
fn allowed(own: &bool, theirs: &bool) -> bool {
    !*own || *theirs
}
