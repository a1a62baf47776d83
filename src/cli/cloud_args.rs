//! Which cloud, which scope: arguments that several commands share.

use clap::Args;

use super::sign_in::interactive;
use crate::cli::output::errln;
use crate::client::Client;
use crate::clouds::{Config, Environment, Overrides, Resolved};
use crate::error::Result;
use crate::platform::paths::Paths;

/// A cloud and the account on it.
#[derive(Args, Clone)]
pub(super) struct CloudArgs {
    /// Entry of clouds.yaml [default: $OS_CLOUD, then the only entry there is]
    cloud: Option<String>,
    /// The same, as the `openstack` command has it
    #[arg(long, value_name = "CLOUD", conflicts_with = "cloud")]
    os_cloud: Option<String>,
    #[command(flatten)]
    account: AccountArgs,
}

impl CloudArgs {
    /// The entry's name, where one is given.
    pub(super) fn name(&self) -> Option<&str> {
        self.cloud.as_deref().or(self.os_cloud.as_deref())
    }
}

/// Clouds that are used at once, with the same account on each.
#[derive(Args)]
pub(super) struct CloudsArgs {
    /// Entries of clouds.yaml [default: $OS_CLOUD, then the only entry there is]
    #[arg(value_name = "CLOUD")]
    clouds: Vec<String>,
    /// The same, as the `openstack` command has it
    #[arg(long, value_name = "CLOUD", conflicts_with = "clouds")]
    os_cloud: Option<String>,
    #[command(flatten)]
    account: AccountArgs,
}

impl CloudsArgs {
    /// One by one.
    pub(super) fn each(&self) -> Vec<CloudArgs> {
        let named = self.clouds.iter().chain(&self.os_cloud).cloned().map(Some);
        let default = (self.clouds.is_empty() && self.os_cloud.is_none()).then_some(None);
        let one = |cloud| CloudArgs { cloud, os_cloud: None, account: self.account.clone() };
        named.chain(default).map(one).collect()
    }
}

/// An account, and how to sign in to it.
#[derive(Args, Clone)]
struct AccountArgs {
    /// Label that keeps several accounts on one cloud apart
    #[arg(long, value_name = "LABEL")]
    account: Option<String>,
    /// Browser (`oidc_code`), any device (`oidc_device`), or whichever fits, for an entry with an OAuth client
    #[arg(long, value_name = "WAY", value_parser = ["auto", "oidc_code", "oidc_device"])]
    sign_in: Option<String>,
}

/// A scope other than the entry's own.
#[derive(Args, Clone, Default)]
#[group(multiple = true)]
pub(super) struct ScopeArgs {
    /// Project, by name or id
    #[arg(long, short, value_name = "NAME|ID", conflicts_with_all = ["domain", "system", "trust", "unscoped"])]
    project: Option<String>,
    /// Domain that the project's name lives in, by name or id
    #[arg(long, value_name = "NAME|ID", requires = "project")]
    project_domain: Option<String>,
    /// Domain, by name or id
    #[arg(long, value_name = "NAME|ID", conflicts_with_all = ["system", "trust", "unscoped"])]
    domain: Option<String>,
    /// The whole deployment
    #[arg(long, conflicts_with_all = ["trust", "unscoped"])]
    system: bool,
    /// Trust, by id
    #[arg(long, value_name = "ID", conflicts_with = "unscoped")]
    trust: Option<String>,
    /// No scope
    #[arg(long)]
    unscoped: bool,
}

/// Which `OS_*` variables count beside an entry.
enum Variables {
    None,
    All,
    WithoutScope,
}

/// Resolves the cloud in this process's directory and environment; warnings go to standard error.
pub(super) fn resolve(cloud: &CloudArgs, scope: &ScopeArgs) -> Result<Resolved> {
    resolve_beside(&Variables::All, cloud, scope)
}

/// The same for a command that needs no scope.
pub(super) fn resolve_unscoped(cloud: &CloudArgs) -> Result<Resolved> {
    resolve_beside(&Variables::WithoutScope, cloud, &ScopeArgs::default())
}

/// The same for the plugin, which has what the user asks for beside the entry from its caller.
pub(super) fn resolve_entry(cloud: &CloudArgs, scope: &ScopeArgs) -> Result<Resolved> {
    resolve_beside(&Variables::None, cloud, scope)
}

fn resolve_beside(variables: &Variables, cloud: &CloudArgs, scope: &ScopeArgs) -> Result<Resolved> {
    let environment = Environment::of_this_process()?;
    let config = Config::load(&environment)?;
    let (project_id, project_name) = id_or_name(scope.project.as_deref());
    let (domain_id, domain_name) = id_or_name(scope.domain.as_deref());
    let (project_domain_id, project_domain_name) = id_or_name(scope.project_domain.as_deref());
    let overrides = Overrides {
        account: cloud.account.account.clone(),
        sign_in: cloud.account.sign_in.clone(),
        region: None,
        project_id,
        project_name,
        project_domain_id,
        project_domain_name,
        domain_id,
        domain_name,
        trust_id: scope.trust.clone(),
        system: scope.system,
        unscoped: scope.unscoped,
    };
    let name = cloud.name();
    let resolved = match variables {
        Variables::None => config.resolve(name, &overrides),
        Variables::All => config.resolve_with_variables(name, &overrides, true),
        Variables::WithoutScope => config.resolve_with_variables(name, &overrides, false),
    }?;
    for warning in &resolved.warnings {
        errln!("ksb: {warning}");
    }
    Ok(resolved)
}

/// Keystone makes its ids as 32 hexadecimal digits; everything else is a name.
fn id_or_name(text: Option<&str>) -> (Option<String>, Option<String>) {
    match text {
        Some(text) if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            (Some(text.to_owned()), None)
        }
        text => (None, text.map(str::to_owned)),
    }
}

/// A client of this user's agent.
pub(super) fn client() -> Result<Client> {
    let paths = Paths::from_env()?;
    paths.reachable_socket()?;
    let client = Client::new(paths);
    Ok(if interactive::has_terminal() { client.at_a_terminal() } else { client })
}
