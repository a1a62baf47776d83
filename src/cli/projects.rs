//! `ksb projects`

use super::{cloud_args, login};
use crate::api::{CloudRequest, LoginRequest, Reach, ReachReply};
use crate::cli::output::{self, outln};
use crate::cli::sign_in::interactive;
use crate::cli::trust;
use crate::client::Client;
use crate::error::{Code, Result};
use crate::model::{Cloud, Way};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cloud: cloud_args::CloudArgs,
    /// Print JSON: {"projects": [{id, name, domain_id}], "domains": [{id, name}]}
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let resolved = cloud_args::resolve_unscoped(&args.cloud)?;
    let reach = reach(&cloud_args::client()?, &resolved.cloud).await?;
    if args.json {
        output::json(&reach);
        return Ok(());
    }
    list("project", &reach.projects);
    list("domain", &reach.domains);
    if reach.projects.is_empty() && reach.domains.is_empty() {
        outln!("You have no role on any project or domain of this cloud.");
    }
    Ok(())
}

/// What the user can use, asked of Keystone just now; signs in when needed.
pub(super) async fn reach(client: &Client, cloud: &Cloud) -> Result<ReachReply> {
    let request = CloudRequest { cloud: cloud.clone() };
    loop {
        match client.post("/v1/projects", &request).await {
            Ok(reply) => return reply.json(),
            Err(error) if error.code == Code::CloudNotTrusted => trust::ask(client, cloud, error).await?,
            Err(error) if error.code == Code::SignInNeeded && may_sign_in(cloud) => {
                let (cloud, remote) = (cloud.clone(), interactive::is_remote());
                let mut login = LoginRequest {
                    cloud,
                    min_validity: 0,
                    lifetime: None,
                    switch_user: false,
                    renew: false,
                    prompt: true,
                    remote,
                };
                login::sign_in(client, &mut login).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn may_sign_in(cloud: &Cloud) -> bool {
    cloud.sign_in.way == Way::Workload || interactive::may_prompt()
}

fn list(kind: &str, reach: &[Reach]) {
    let width = reach.iter().map(|each| each.name.chars().count()).max().unwrap_or_default();
    for each in reach {
        outln!("{kind}  {:width$}  {}", each.name, each.id);
    }
}
