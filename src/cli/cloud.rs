//! `ksb clouds show`

use serde_json::json;

use super::cloud_args;
use crate::cli::output::{self, outln};
use crate::clouds::Resolved;
use crate::error::Result;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cloud: cloud_args::CloudArgs,
    #[command(flatten)]
    scope: cloud_args::ScopeArgs,
    /// With --json: the secrets themselves, for the plugin
    #[arg(long, hide = true, requires = "json")]
    with_secrets: bool,
    /// Print JSON: {"cloud": …, "scope": …} as the agent's API takes them, and "entry", the merged file
    #[arg(long)]
    json: bool,
}

/// What under `sign_in` nobody should see on a screen.
const SECRETS: [&str; 6] = [
    "oidc/client_secret",
    "password/password",
    "workload/client/client_secret",
    "workload/command/token",
    "workload/github/request_token",
    "workload/token/token",
];

pub(super) fn run(args: Args) -> Result<()> {
    let Args { cloud, scope, with_secrets, json } = args;
    let resolve = if with_secrets { cloud_args::resolve_entry } else { cloud_args::resolve };
    let resolved = resolve(&cloud, &scope)?;
    if json {
        let mut shown = json!({"cloud": resolved.cloud, "scope": resolved.scope, "entry": resolved.merged});
        if !with_secrets {
            for secret in SECRETS {
                if let Some(secret) = shown.pointer_mut(&format!("/cloud/sign_in/{secret}")) {
                    *secret = json!("••••");
                }
            }
        }
        output::json(&shown);
    } else {
        show(&resolved);
    }
    Ok(())
}

fn show(resolved: &Resolved) {
    let cloud = &resolved.cloud;
    let line = |name: &str, value: &str| outln!("{name:<18} {value}");
    line("cloud", cloud.label());
    if let Some(source) = &cloud.source {
        line("file", &source.file.display().to_string());
    }
    line("auth_type", &resolved.auth_type);
    line("auth_url", cloud.auth_url.as_str());
    if let Some(user) = &cloud.sign_in.password {
        line("user", &user.user.to_string());
        let methods: Vec<_> = user.methods.iter().map(|method| method.name()).collect();
        line("auth_methods", &methods.join(", "));
    } else {
        line("identity_provider", cloud.identity_provider.as_deref().unwrap_or("(found by protocol)"));
        line("protocol", &cloud.protocol);
    }
    for (name, value) in [("account", &cloud.account), ("region", &cloud.region), ("proxy", &cloud.proxy)] {
        if let Some(value) = value {
            line(name, value);
        }
    }
    line("scope", &resolved.scope.to_string());
    let trust = match (&cloud.tls.verify, &cloud.tls.ca_file) {
        (false, _) => "off: anyone on the way can read the token".to_owned(),
        (true, Some(path)) => format!("by {}", path.display()),
        (true, None) => "by the system's CAs".to_owned(),
    };
    line("certificate check", &trust);
    let sign_in = &cloud.sign_in;
    if let Some(workload) = &sign_in.workload {
        line("token", &format!("from {}", workload.source()));
    }
    if sign_in.workload.is_some() || sign_in.password.is_some() {
        return;
    }
    let port = match sign_in.redirect_port {
        0 => "(any free port)".to_owned(),
        port => port.to_string(),
    };
    let path = sign_in.oidc.as_ref().map_or("/auth/websso/", |oidc| &oidc.redirect_path);
    line("callback", &format!("http://{}:{port}{path}", sign_in.redirect_host));
    if let Some(oidc) = &sign_in.oidc {
        line("discovery_endpoint", oidc.discovery_endpoint.as_str());
        line("client_id", &oidc.client_id);
        line("openid_scope", &oidc.scope);
    }
}
