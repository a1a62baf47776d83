//! The entries of clouds.yaml and the clouds behind them.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Helped, failed, finding};
use crate::api::{CloudRequest, Finding, Found, ProbeReply};
use crate::cli::sign_in::interactive;
use crate::cli::{login, say};
use crate::client::Client;
use crate::clouds::{Config, Overrides};
use crate::error::{Code, Error};
use crate::model::{Cloud, Way};

/// Several questions, each of which the agent gives up by itself.
const PATIENCE: Duration = Duration::from_mins(1);
const OURS: &str = "v3broker";

/// An entry that makes sense.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) cloud: Cloud,
}

/// The one that is named, or all that use our plugin.
pub(super) fn entries(config: &Config<'_>, only: Option<&str>, findings: &mut Vec<Finding>) -> Vec<Entry> {
    let resolve = |name: &str| config.resolve(Some(name), &Overrides::default());
    if let Some(name) = only {
        return take(name, resolve(name), findings).into_iter().collect();
    }
    let ours = |name: &&str| config.auth_type(name).is_ok_and(|kind| kind == OURS);
    let names: Vec<_> = config.names().filter(ours).collect();
    if names.is_empty() {
        let detail = "no entry of clouds.yaml uses v3broker";
        findings.push(
            finding("entry", "", Found::Skipped, detail)
                .remedy("ksb setup, or for entries that are there: ksb clouds adopt --all"),
        );
    }
    names.iter().filter_map(|name| take(name, resolve(name), findings)).collect()
}

fn take(
    name: &str,
    resolved: Result<crate::clouds::Resolved, Error>,
    findings: &mut Vec<Finding>,
) -> Option<Entry> {
    match resolved {
        Ok(resolved) => {
            for warning in &resolved.warnings {
                findings.push(
                    finding("entry", name, Found::Warn, warning).remedy(format!("ksb clouds show {name}")),
                );
            }
            if resolved.warnings.is_empty() {
                findings.push(finding("entry", name, Found::Ok, way(&resolved.cloud)));
            }
            Some(Entry { cloud: resolved.cloud })
        }
        Err(error) => {
            findings.push(failed("entry", name, error));
            None
        }
    }
}

fn way(cloud: &Cloud) -> &'static str {
    match cloud.sign_in.way {
        Way::Websso => "signs in by Keystone's WebSSO",
        Way::OidcCode => "signs in at the identity provider, in the browser",
        Way::OidcDevice => "signs in at the identity provider, on any device",
        Way::Workload => "signs in with a workload's token",
        Way::Password => "signs in with a password",
    }
}

/// Asks all clouds at once. Sign-ins come before, one after the other: there is one user.
pub(super) async fn check(client: &Client, clouds: Vec<Entry>, sign_in: bool) -> Vec<Finding> {
    let mut signed_in = Vec::new();
    if sign_in {
        for entry in &clouds {
            signed_in.push(sign_in_to(client, &entry.cloud).await);
        }
    }
    let probed = join_all(clouds.iter().map(|entry| probe(client, &entry.cloud))).await;
    let mut findings = Vec::new();
    for (place, mut of_cloud) in probed.into_iter().enumerate() {
        if let Some(Some(finding)) = signed_in.get(place) {
            // It went further than the probe could look.
            of_cloud.retain(|probed| probed.check != finding.check);
            of_cloud.push(finding.clone());
        }
        findings.extend(of_cloud);
    }
    findings
}

async fn probe(client: &Client, cloud: &Cloud) -> Vec<Finding> {
    let request = CloudRequest { cloud: cloud.clone() };
    let asking = async { client.post("/v1/probe", &request).await?.json::<ProbeReply>() };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(reply)) => reply.findings,
        // An agent that is older than this command.
        Ok(Err(error)) if error.code == Code::InvalidRequest => {
            let detail = "the agent is too old to look at clouds";
            vec![
                finding("cloud", cloud.label(), Found::Unknown, detail)
                    .remedy("ksb agent stop, then this again"),
            ]
        }
        Ok(Err(error)) if error.code == Code::Locked => {
            vec![Finding { finding: Found::Skipped, ..failed("cloud", cloud.label(), error) }]
        }
        Ok(Err(error)) => vec![failed("cloud", cloud.label(), error)],
        Err(_) => {
            let detail = format!("the agent found nothing out within {} s", PATIENCE.as_secs());
            vec![finding("cloud", cloud.label(), Found::Unknown, detail)]
        }
    }
}

async fn sign_in_to(client: &Client, cloud: &Cloud) -> Option<Finding> {
    const CHECK: &str = "sign-in";
    if cloud.sign_in.way != Way::Workload && !interactive::may_prompt() {
        let detail = "a sign-in is needed, and this caller may not prompt";
        return Some(
            finding(CHECK, cloud.label(), Found::Skipped, detail).remedy("KSB_PROMPT=always, or a terminal"),
        );
    }
    let mut request = login::request(cloud.clone());
    let ended = login::sign_in_or_say_why(client, &mut request).await;
    Some(match ended {
        Ok(session) => {
            let detail = format!("works; the session is good until {}", say::until(session.expires_at));
            finding(CHECK, cloud.label(), Found::Ok, detail)
        }
        Err(error) => {
            let error = unnamed(error);
            let check = match error.code {
                Code::BearerRefused => "bearer",
                Code::SignInTimedOut if cloud.sign_in.way == Way::Websso => {
                    return Some(no_callback(cloud, error));
                }
                _ => CHECK,
            };
            failed(check, cloud.label(), error)
        }
    })
}

/// Whose sign-in it was, and whose it had to be, is nothing for a ticket: that is what `--switch-user` helps against.
fn unnamed(error: Error) -> Error {
    if error.remedy.as_ref().is_some_and(|remedy| remedy.ends_with("--switch-user")) {
        let detail = "another user signed in than the one of before".to_owned();
        return Error { detail, ..error };
    }
    error
}

/// Keystone's page says why, and only the user sees it.
fn no_callback(cloud: &Cloud, error: Error) -> Finding {
    let options = &cloud.sign_in;
    let callback = format!("http://{}:{}/auth/websso/", options.redirect_host, options.redirect_port);
    failed("trusted_dashboard", cloud.label(), error).remedy(format!(
        "if Keystone's page showed 401, ask the operator for this line in keystone.conf, [federation]: \
         trusted_dashboard = {callback}; if that is there, or it showed 403, no mapping rule fits your account; if it showed \
         404, correct identity_provider and protocol: ksb clouds show {}",
        cloud.argument()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_sign_in_it_was_is_nothing_for_a_ticket() {
        let other =
            Error::new(Code::TokenRefused, "that was bob, not alice").remedy("ksb login demo --switch-user");
        assert_eq!(unnamed(other).detail, "another user signed in than the one of before");
        let other = Error::new(Code::TokenRefused, "not used: no otp").remedy("ksb login demo");
        assert_eq!(unnamed(other.clone()), other);
    }
}
