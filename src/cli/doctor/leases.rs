//! The entries that `ksb clouds add` wrote: each is good for as long as its lease.

use super::{Finding, Found, Helped, finding};
use crate::api::Status;
use crate::cli::clouds::own_entries;
use crate::cli::yaml::quoted;
use crate::cli::{lease_request, service};
use crate::clouds::{Config, Environment};

pub(super) fn check(
    env: &Environment,
    config: &Config<'_>,
    only: Option<&str>,
    status: Option<&Status>,
) -> Vec<Finding> {
    let own = own_entries(env, config).into_iter();
    let own = own.filter(|(name, _)| only.is_none_or(|only| only == name));
    own.map(|(name, own)| {
        let found = |found, detail: String| finding("clouds-add", name.clone(), found, detail);
        let Some(status) = status else {
            let detail = "its lease is good while an agent runs, and none does";
            let start =
                if service::is_installed() { "ksb login" } else { "ksb service install; or ksb login" };
            return found(Found::Warn, detail.to_owned()).remedy(start);
        };
        let lease = status.leases.iter().find(|lease| own.lease.as_ref() == Some(&lease.id));
        match (lease, &status.incomplete) {
            (Some(lease), _) => {
                found(Found::Ok, format!("its lease is good {}", lease_request::until(lease)))
            }
            (None, Some(incomplete)) => {
                found(Found::Unknown, format!("whether its lease is good: {}", incomplete.reason))
            }
            (None, None) => found(Found::Fail, "its lease has ended".to_owned())
                .remedy(format!("ksb clouds add CLOUD --name {}", quoted(&name))),
        }
    })
    .collect()
}
