//! `ksb token`: a token on standard output, and nothing else there.

use serde_json::Value;

use super::cloud_args;
use super::lease_env::Changes;
use super::shell::{self, Shell};
use super::sign_in::{interactive, recover, wait};
use crate::api::{SignInReply, TokenReply, TokenRequest};
use crate::cli::output::{self, errln};
use crate::client::Client;
use crate::clouds::Resolved;
use crate::error::{Code, Error, Result};
use crate::model::{Cloud, Scope};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cloud: cloud_args::CloudArgs,
    #[command(flatten)]
    scope: cloud_args::ScopeArgs,
    /// Print JSON: what POST /v1/tokens answers (docs/api.md)
    #[arg(long)]
    json: bool,
    /// Print variables for eval
    #[arg(long, conflicts_with = "json")]
    env: bool,
}

/// A sign-in that is done and yet gives no token is tried again this often.
const ROUNDS: u32 = 3;

pub(super) async fn run(args: Args) -> Result<()> {
    let Resolved { cloud, scope, .. } = cloud_args::resolve(&args.cloud, &args.scope)?;
    let client = cloud_args::client()?;
    let mut request = request(cloud, scope);
    let token = obtain(&client, &mut request).await?;
    if let Some(assumed) = &token.assumed {
        errln!("ksb: {}: {assumed}", request.cloud.label());
    }
    if args.json {
        output::json(&token);
    } else if args.env {
        output::exact(&shell::text(shell::Format::Shell(Shell::Sh), &variables(&request.cloud, &token))?);
    } else {
        output::exact(&format!("{}\n", token.token_id.expose()));
    }
    Ok(())
}

/// Asks until there is a token, signing in in between.
async fn obtain(client: &Client, request: &mut TokenRequest) -> Result<TokenReply> {
    for _ in 0..ROUNDS {
        match client.post("/v1/tokens", request).await {
            Ok(reply) if reply.status == 200 => return reply.json(),
            Ok(reply) => wait::until_done(client, reply.json::<SignInReply>()?.sign_in, false).await?,
            Err(error) => recover::ask(client, &mut request.cloud, error).await?,
        }
    }
    Err(Error::new(Code::Internal, "signed in, but Keystone issued no token").cloud(request.cloud.label()))
}

fn request(cloud: Cloud, scope: Scope) -> TokenRequest {
    let prompt = interactive::may_prompt();
    // Without a prompt no sign-in begins, and nothing of the browser need be found out.
    let remote = prompt && interactive::is_remote();
    TokenRequest { cloud, scope, min_validity: 0, rejected: None, prompt, remote }
}

/// Fails unless somebody is, or becomes so.
pub(super) async fn is_signed_in(client: &Client, cloud: Cloud) -> Result<()> {
    obtain(client, &mut request(cloud, Scope::Unscoped)).await.map(drop)
}

/// The id of the project that a scope names, as Keystone says it.
pub(super) async fn project_id(client: &Client, cloud: Cloud, scope: &Scope) -> Result<Option<String>> {
    let token = obtain(client, &mut request(cloud, scope.clone())).await?;
    Ok(said(&token, "/token/project/id"))
}

/// What Keystone says of a token.
fn said(token: &TokenReply, pointer: &str) -> Option<String> {
    let body: Value = serde_json::from_str(token.body.get()).unwrap_or_default();
    body.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

/// The variables that make any OpenStack tool use this token as it stands.
fn variables(cloud: &Cloud, token: &TokenReply) -> Changes {
    let ca_file = cloud.tls.ca_file.as_ref().map(|path| path.display().to_string());
    let mut changes = Changes::default();
    changes.remove("OS_CLOUD");
    for (name, value) in [
        ("OS_AUTH_TYPE", Some("v3token".to_owned())),
        ("OS_AUTH_URL", Some(format!("{}/v3", cloud.keystone_root()))),
        ("OS_IDENTITY_API_VERSION", Some("3".to_owned())),
        ("OS_TOKEN", Some(token.token_id.expose().to_owned())),
        ("OS_PROJECT_ID", said(token, "/token/project/id")),
        ("OS_DOMAIN_ID", said(token, "/token/domain/id")),
        ("OS_REGION_NAME", cloud.region.clone()),
        ("OS_CACERT", ca_file),
    ] {
        if let Some(value) = value {
            changes.insert(name, value);
        }
    }
    changes
}
