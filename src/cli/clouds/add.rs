//! `ksb clouds add`

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Add;
use super::draft::{Draft, Entry};
use super::own::{Own, own_entries};
use super::remove::remove;
use crate::api::{KeyKind, LeasesReply, Reach, Status, VaultState};
use crate::cli::lease_env::{self, Shape};
use crate::cli::lease_request::{self, Grant, Limits};
use crate::cli::output::{errln, outln};
use crate::cli::yaml::quoted;
use crate::cli::{cloud_args, lease, projects, service};
use crate::client::Client;
use crate::clouds::{Config, Environment, Resolved};
use crate::error::{Code, Error, Result};
use crate::model::{ProjectRef, Scope};

const SECRET: &str = "application_credential_secret";

/// An entry that is to be.
struct Wanted {
    name: String,
    scope: Scope,
}

pub(super) async fn run(args: Add) -> Result<()> {
    let env = Environment::of_this_process()?;
    let resolved = cloud_args::resolve_unscoped(&args.cloud)?;
    let name = args.name.unwrap_or_else(|| format!("{}-ksb", resolved.cloud.label()));
    let client = cloud_args::client()?;
    let wanted = if args.each_project {
        let projects = projects::reach(&client, &resolved.cloud).await?.projects;
        let mut wanted = each_project(&name, &projects);
        if wanted.is_empty() {
            outln!("You have no role on any project of this cloud.");
        }
        renew(&env, &client, &mut wanted, true).await?;
        wanted
    } else {
        let mut wanted = vec![Wanted { name, scope: resolved.scope.clone() }];
        renew(&env, &client, &mut wanted, false).await?;
        wanted
    };
    if wanted.is_empty() {
        return Ok(());
    }
    // What cannot be written is said before there are leases.
    let room = |wanted: &Wanted| Entry {
        name: wanted.name.clone(),
        open: json!({"auth_type": "v3applicationcredential"}),
        secret: json!({"auth": {SECRET: "none"}}),
    };
    Draft::make(&env, &wanted.iter().map(room).collect::<Vec<_>>())?;

    let mut grants = Vec::new();
    match write(&env, &client, &resolved, &wanted, &mut grants).await {
        Ok(draft) => {
            for grant in &grants {
                lease_request::notices(&grant.reply.lease);
            }
            report(&env, &draft, &wanted)?;
            if let Some(end) = end_of_leases(&client).await {
                outln!("Note: {end}, and the entry with it; to renew it, run this again (ksb vault)");
            }
            if !service::is_installed() {
                outln!(
                    "Note: the entry works while an agent runs; to have it started when needed: ksb service install"
                );
            }
            Ok(())
        }
        Err(error) => Err(take_back(&client, &grants, error).await),
    }
}

/// Makes the leases and writes their entries.
async fn write(
    env: &Environment,
    client: &Client,
    resolved: &Resolved,
    wanted: &[Wanted],
    grants: &mut Vec<Grant>,
) -> Result<Draft> {
    let mut entries = Vec::new();
    for Wanted { name, scope } in wanted {
        let resolved = Resolved { scope: scope.clone(), ..resolved.clone() };
        let mut request = Limits::default().request(&resolved);
        request.name = Some(name.clone());
        let grant = lease_request::make(client, resolved, request, false).await?;
        entries.push(parts(name, lease_env::entry(&grant, Shape::Appcred)));
        grants.push(grant);
    }
    let mut draft = Draft::make(env, &entries)?;
    draft.write()?;
    Ok(draft)
}

fn parts(name: &str, mut open: Value) -> Entry {
    let auth = open.get_mut("auth").and_then(Value::as_object_mut);
    let secret = auth.and_then(|auth| auth.shift_remove(SECRET));
    Entry { name: name.to_owned(), open, secret: json!({"auth": {SECRET: secret}}) }
}

/// Nobody has the secrets of leases that are in no file.
async fn take_back(client: &Client, grants: &[Grant], mut error: Error) -> Error {
    for Grant { reply, .. } in grants {
        let id = &reply.lease.id;
        match lease::end(client, id).await {
            Err(other) if other.code != Code::UnknownLease => {
                let left =
                    format!("its lease could not be revoked ({}): ksb lease revoke {id}", other.detail);
                error.detail = format!("{}; {left}", error.detail);
            }
            _ => {}
        }
    }
    error
}

/// An entry for each project, none called like another.
fn each_project(name: &str, projects: &[Reach]) -> Vec<Wanted> {
    let plain = |project: &Reach| -> String {
        // A name may hold anything; a shell, a path and YAML each have their own letters.
        let fits = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        project.name.chars().map(fits).collect()
    };
    let mut used = BTreeMap::new();
    for project in projects {
        *used.entry(plain(project)).or_insert(0) += 1;
    }
    let wanted = |project: &Reach| {
        let mut project_name = plain(project);
        if used[&project_name] > 1 || project_name.is_empty() {
            // Of two in different domains, or with other letters in them.
            project_name = format!("{project_name}-{}", project.id);
        }
        Wanted {
            name: format!("{name}-{project_name}"),
            scope: Scope::Project(ProjectRef { id: Some(project.id.clone()), ..ProjectRef::default() }),
        }
    };
    projects.iter().map(wanted).collect()
}

/// Takes out the entries that are to be written anew. With `is_for_all`, those whose leases live stay as they are: after a
/// role in one more project the command is run again.
async fn renew(env: &Environment, client: &Client, wanted: &mut Vec<Wanted>, is_for_all: bool) -> Result<()> {
    let config = Config::load(env)?;
    let own = own_entries(env, &config);
    let leases = client.get("/v1/leases").await?.json::<LeasesReply>()?.leases;
    let lives = |own: &Own| leases.iter().any(|lease| own.lease.as_ref() == Some(&lease.id));
    wanted.retain(|wanted| {
        let stays = match own.get(&wanted.name) {
            Some(own) => lives(own),
            None => config.entries().contains_key(&wanted.name),
        };
        if stays && is_for_all {
            outln!("{}: is there already and left as it is", wanted.name);
        }
        !(stays && is_for_all)
    });
    for Wanted { name, .. } in wanted.iter().filter(|wanted| own.contains_key(&wanted.name)) {
        remove(env, client, name).await.map_err(|error| error.cloud(name))?;
    }
    Ok(())
}

fn report(env: &Environment, draft: &Draft, wanted: &[Wanted]) -> Result<()> {
    let (clouds, secure) = (draft.clouds.path().display(), draft.secure.path().display());
    for Wanted { name, .. } in wanted {
        outln!("{name}: written to {clouds}, its secret to {secure}");
    }
    if let Some(warning) = draft.secure.exposed() {
        errln!("ksb: {warning}");
    }
    // gophercloud reads neither OS_CLIENT_SECURE_FILE nor XDG_CONFIG_HOME.
    let usual = env.home.join(".config/openstack");
    if draft.secure.path().parent() != Some(&usual) {
        outln!(
            "Note: Terraform and other programs in Go find a secure.yaml in {} or the directory they run in only",
            usual.display()
        );
    }
    let names: Vec<_> = wanted.iter().map(|wanted| quoted(&wanted.name)).collect();
    outln!("Use: export OS_CLOUD={}", names[0]);
    outln!("Undo: ksb clouds remove {}", names.join(" "));
    if let Some(remedy) = lease_env::no_proxy_for_loopback(env) {
        errln!(
            "ksb: programs here would ask your proxy for 127.0.0.1, where the lease is good. Try: {remedy}"
        );
    }
    let config = Config::load(env)?;
    if env.get("OS_CLOUD").is_none() && config.names().count() == wanted.len() + 1 {
        outln!("Note: with more than one entry there, name the one you mean or set OS_CLOUD");
    }
    Ok(())
}

/// When leases end that have no end of their own.
async fn end_of_leases(client: &Client) -> Option<&'static str> {
    let vault = client.get("/v1/status").await.ok()?.json::<Status>().ok()?.vault;
    match (vault.state, vault.key) {
        (VaultState::Memory, _) => Some("nothing is kept here: the lease ends with the agent"),
        (_, Some(KeyKind::Kernel)) => {
            Some("the vault's key is kept until the reboot: the lease ends with it")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_project_has_a_name_of_its_own() {
        let project =
            |id: &str, name: &str| Reach { id: id.into(), name: name.into(), domain_id: Some("d".into()) };
        let projects = [
            project("1", "dev"),
            project("2", "a b"),
            project("3", "a/b"),
            project("4", "käse"),
            project("5", ""),
        ];
        let names: Vec<_> = each_project("demo", &projects).into_iter().map(|wanted| wanted.name).collect();
        assert_eq!(names, ["demo-dev", "demo-a-b-2", "demo-a-b-3", "demo-k-se", "demo--5"]);
    }
}
