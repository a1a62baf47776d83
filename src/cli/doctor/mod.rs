//! `ksb doctor`: looks for whatever is wrong, here and at the clouds, and says what helps.
//!
//! One file per group of checks. A check is a function that returns findings; none of them changes anything.

mod agent;
mod cloud;
mod files;
mod leases;
mod ports;
mod python;
mod service;
mod show;
mod variables;

use super::clouds::own_entries;
use super::{Done, say};
use crate::api::{Finding, Found, Status};
use crate::cli::output;
use crate::client::Client;
use crate::clouds::{Config, Environment};
use crate::error::{Error, Result};
use crate::platform::paths::Paths;

#[derive(clap::Args)]
#[command(after_help = "\
Without CLOUD: this machine and every entry that uses v3broker. Nothing is changed, and nobody is asked to
sign in without --try; the agent is started only to ask a cloud something. What a finding means:
docs/doctor.md. Exit status: 1 if something fails, else 0.")]
pub(super) struct Args {
    /// Entry of clouds.yaml [default: every entry that uses v3broker]
    cloud: Option<String>,
    /// The same, as the `openstack` command has it
    #[arg(long, value_name = "CLOUD", conflicts_with = "cloud")]
    os_cloud: Option<String>,
    /// Sign in as well: only so it shows whether Keystone takes your callback and your provider's tokens
    #[arg(long)]
    r#try: bool,
    /// Print JSON: an array of {check, subject, finding, detail, remedy, request_id, at}
    #[arg(long, conflicts_with = "report")]
    json: bool,
    /// Print what can be pasted into a ticket: versions, UTC times, request ids; no names of users, no tokens
    #[arg(long)]
    report: bool,
}

/// A finding of now.
fn finding(check: &str, subject: impl Into<String>, finding: Found, detail: impl Into<String>) -> Finding {
    Finding {
        check: check.to_owned(),
        subject: subject.into(),
        finding,
        detail: detail.into(),
        remedy: None,
        request_id: None,
        at: say::now(),
    }
}

trait Helped {
    /// With what helps.
    fn remedy(self, remedy: impl Into<String>) -> Self;
}

impl Helped for Finding {
    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// A failure of a command as a finding.
fn failed(check: &str, subject: impl Into<String>, error: Error) -> Finding {
    Finding {
        remedy: error.remedy,
        request_id: error.request_id,
        ..finding(check, subject, Found::Fail, error.detail)
    }
}

impl Args {
    fn name(&self) -> Option<&str> {
        self.cloud.as_deref().or(self.os_cloud.as_deref())
    }
}

pub(super) async fn run(args: Args) -> Result<Done> {
    let env = Environment::of_this_process()?;
    let client = Client::new(Paths::from_env()?);
    let pythons = {
        let env = env.clone();
        tokio::task::spawn_blocking(move || python::check(&env))
    };
    let mut findings = files::check(client.paths(), &env);
    let (state, status) = agent::check(client.paths()).await;
    findings.push(state);

    let config = Config::load(&env);
    let clouds = match &config {
        Ok(config) => {
            let only = args.name();
            match only.filter(|name| own_entries(&env, config).contains_key(*name)) {
                Some(_) => Vec::new(),
                None => cloud::entries(config, only, &mut findings),
            }
        }
        Err(error) => {
            findings.push(failed("clouds.yaml", "", error.clone()));
            Vec::new()
        }
    };
    findings.extend(files::of_clouds(&clouds));
    let mut at_clouds = Vec::new();
    // An agent that hangs or is not ours answers nothing.
    if status.is_some() || agent::may_start(&findings) {
        at_clouds = cloud::check(&client, clouds.clone(), args.r#try).await;
    }
    // The clouds may have started one.
    let status = match status {
        None => agent::status(client.paths()).await.ok(),
        known => known,
    };
    // What a settings file says in vain was read from it already.
    let within = agent::within(status.as_ref(), client.paths()).await;
    let is_new = |one: &Finding| findings.iter().all(|said| said.detail != one.detail);
    findings.extend(within.into_iter().filter(is_new).collect::<Vec<_>>());
    if let Ok(config) = &config {
        findings.extend(leases::check(&env, config, args.name(), status.as_ref()));
    }
    findings.extend(ports::check(&clouds, status.as_ref()));
    findings.extend(service::check(client.paths()));
    findings.extend(variables::check(&env, config.as_ref().ok()));
    findings.extend(pythons.await.unwrap_or_default());
    findings.extend(at_clouds);

    if args.json {
        output::json(&findings);
    } else if args.report {
        show::report(&findings, status.as_ref().map(version), &env);
    } else {
        show::lines(&findings);
    }
    let unwell = findings.iter().any(|finding| finding.finding == Found::Fail);
    Ok(if unwell { Done::Failed } else { Done::Ok })
}

fn version(status: &Status) -> &str {
    &status.version
}
