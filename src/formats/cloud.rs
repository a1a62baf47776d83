//! An entry of clouds.yaml, a scope and a user, as sessions and leases are stored with them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::model::{
    AuthMethod, Bearer, ClientCredentials, Cloud, DomainRef, Factor, LocalUser, OidcClient, ProjectRef,
    Requirements, Scope, Secret, SignInOptions, Source, Tls, TlsSources, User, UserRef, Way, Workload,
};

/// A [`Cloud`].
#[derive(Serialize, Deserialize)]
pub struct StoredCloud {
    name: Option<String>,
    auth_url: Url,
    identity_provider: Option<String>,
    #[serde(default)]
    protocol: String,
    account: Option<String>,
    region: Option<String>,
    tls: StoredTls,
    proxy: Option<String>,
    sign_in: StoredSignIn,
    logout_url: Option<Url>,
    source: Option<StoredSource>,
}

/// A [`Tls`].
#[derive(Serialize, Deserialize)]
struct StoredTls {
    verify: bool,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    #[serde(default)]
    sources: StoredTlsSources,
}

/// A [`TlsSources`].
#[derive(Default, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "as in the TLS settings")]
struct StoredTlsSources {
    ca_file: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
}

/// A [`SignInOptions`].
#[derive(Serialize, Deserialize)]
struct StoredSignIn {
    #[serde(alias = "way")]
    method: StoredMethod,
    redirect_host: String,
    redirect_port: u16,
    timeout: u64,
    oidc: Option<StoredOidcClient>,
    workload: Option<StoredWorkload>,
    password: Option<StoredLocalUser>,
}

/// A [`Way`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredMethod {
    Websso,
    OidcCode,
    OidcDevice,
    Workload,
    Password,
}

/// An [`OidcClient`].
#[derive(Serialize, Deserialize)]
struct StoredOidcClient {
    discovery_endpoint: Url,
    client_id: String,
    client_secret: Option<Secret>,
    auth_method: Option<StoredAuthMethod>,
    scope: String,
    bearer: StoredBearer,
    redirect_path: String,
    #[serde(default)]
    extra: Vec<(String, String)>,
    #[serde(default)]
    require: StoredRequirements,
    proxy: Option<String>,
}

/// An [`AuthMethod`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredAuthMethod {
    ClientSecretBasic,
    ClientSecretPost,
}

/// A [`Bearer`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredBearer {
    AccessToken,
    IdToken,
}

/// [`Requirements`].
#[derive(Default, Serialize, Deserialize)]
struct StoredRequirements {
    #[serde(default)]
    amr: Vec<String>,
    max_auth_age: Option<u64>,
}

/// A [`Workload`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredWorkload {
    File { path: PathBuf },
    Token { from: String, token: Secret },
    Command { command: String, limit: u64, token: Option<Secret> },
    Github { url: Url, request_token: Secret, audience: Option<String>, proxy: Option<String> },
    Client(StoredClientCredentials),
}

/// [`ClientCredentials`].
#[derive(Serialize, Deserialize)]
struct StoredClientCredentials {
    token_endpoint: Option<Url>,
    discovery_endpoint: Option<Url>,
    client_id: String,
    client_secret: Secret,
    scope: String,
    bearer: StoredBearer,
    proxy: Option<String>,
}

/// A [`LocalUser`].
#[derive(Serialize, Deserialize)]
struct StoredLocalUser {
    user: StoredUserRef,
    methods: Vec<StoredFactor>,
    password: Option<Secret>,
}

/// A [`UserRef`].
#[derive(Serialize, Deserialize)]
struct StoredUserRef {
    id: Option<String>,
    name: Option<String>,
    domain: Option<StoredDomain>,
}

/// A [`Factor`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredFactor {
    Password,
    Totp,
}

/// A [`Source`].
#[derive(Serialize, Deserialize)]
struct StoredSource {
    file: PathBuf,
    #[serde(alias = "current_folder")]
    current_directory: bool,
}

/// A [`Scope`], in the shape of Keystone's `auth.scope`.
#[derive(Serialize, Deserialize)]
pub enum StoredScope {
    /// No scope.
    #[serde(rename = "unscoped")]
    Unscoped,
    /// A project.
    #[serde(rename = "project")]
    Project(StoredProject),
    /// A domain.
    #[serde(rename = "domain")]
    Domain(StoredDomain),
    /// The whole deployment.
    #[serde(rename = "system")]
    System {
        /// Always true.
        all: bool,
    },
    /// A trust.
    #[serde(rename = "OS-TRUST:trust")]
    Trust {
        /// Its id.
        id: String,
    },
}

/// A [`ProjectRef`].
#[derive(Serialize, Deserialize)]
pub struct StoredProject {
    id: Option<String>,
    name: Option<String>,
    domain: Option<StoredDomain>,
}

/// A [`DomainRef`].
#[derive(Serialize, Deserialize)]
pub struct StoredDomain {
    id: Option<String>,
    name: Option<String>,
}

/// A [`User`].
#[derive(Serialize, Deserialize)]
pub struct StoredUser {
    id: String,
    name: String,
    domain: StoredDomain,
}

/// Conversions in both directions between a struct and its stored form. `into`, `option` and `list` say that a field is
/// converted itself. The compiler sees that no field is left out.
macro_rules! convert_structs {
    ($($model:ident, $stored:ident { $($field:ident = $stored_field:ident $($how:ident)?,)* })*) => {$(
        impl From<$model> for $stored {
            fn from($model { $($field,)* }: $model) -> Self {
                Self { $($stored_field: convert!($field $($how)?),)* }
            }
        }
        impl From<$stored> for $model {
            fn from($stored { $($stored_field,)* }: $stored) -> Self {
                Self { $($field: convert!($stored_field $($how)?),)* }
            }
        }
    )*};
}
macro_rules! convert {
    ($value:ident) => {
        $value
    };
    ($value:ident into) => {
        $value.into()
    };
    ($value:ident option) => {
        $value.map(Into::into)
    };
    ($value:ident list) => {
        $value.into_iter().map(Into::into).collect()
    };
}
/// The same between two enums without fields.
macro_rules! convert_enums {
    ($($model:ident, $stored:ident { $($variant:ident),* })*) => {$(
        impl From<$model> for $stored {
            fn from(model: $model) -> Self {
                match model { $($model::$variant => Self::$variant,)* }
            }
        }
        impl From<$stored> for $model {
            fn from(stored: $stored) -> Self {
                match stored { $($stored::$variant => Self::$variant,)* }
            }
        }
    )*};
}

convert_structs! {
    Cloud, StoredCloud {
        name = name,
        auth_url = auth_url,
        identity_provider = identity_provider,
        protocol = protocol,
        account = account,
        region = region,
        tls = tls into,
        proxy = proxy,
        sign_in = sign_in into,
        logout_url = logout_url,
        source = source option,
    }
    Tls, StoredTls {
        verify = verify,
        ca_file = ca_file,
        cert_file = cert_file,
        key_file = key_file,
        sources = sources into,
    }
    TlsSources, StoredTlsSources {
        ca_file = ca_file,
        cert_file = cert_file,
        key_file = key_file,
    }
    SignInOptions, StoredSignIn {
        way = method into,
        redirect_host = redirect_host,
        redirect_port = redirect_port,
        timeout = timeout,
        oidc = oidc option,
        workload = workload option,
        password = password option,
    }
    OidcClient, StoredOidcClient {
        discovery_endpoint = discovery_endpoint,
        client_id = client_id,
        client_secret = client_secret,
        auth_method = auth_method option,
        scope = scope,
        bearer = bearer into,
        redirect_path = redirect_path,
        extra = extra,
        require = require into,
        proxy = proxy,
    }
    Requirements, StoredRequirements {
        amr = amr,
        max_auth_age = max_auth_age,
    }
    ClientCredentials, StoredClientCredentials {
        token_endpoint = token_endpoint,
        discovery_endpoint = discovery_endpoint,
        client_id = client_id,
        client_secret = client_secret,
        scope = scope,
        bearer = bearer into,
        proxy = proxy,
    }
    LocalUser, StoredLocalUser {
        user = user into,
        methods = methods list,
        password = password,
    }
    UserRef, StoredUserRef {
        id = id,
        name = name,
        domain = domain option,
    }
    Source, StoredSource {
        file = file,
        current_folder = current_directory,
    }
    ProjectRef, StoredProject {
        id = id,
        name = name,
        domain = domain option,
    }
    DomainRef, StoredDomain {
        id = id,
        name = name,
    }
    User, StoredUser {
        id = id,
        name = name,
        domain = domain into,
    }
}

convert_enums! {
    Way, StoredMethod { Websso, OidcCode, OidcDevice, Workload, Password }
    AuthMethod, StoredAuthMethod { ClientSecretBasic, ClientSecretPost }
    Bearer, StoredBearer { AccessToken, IdToken }
    Factor, StoredFactor { Password, Totp }
}

impl From<Workload> for StoredWorkload {
    fn from(model: Workload) -> Self {
        match model {
            Workload::File { path } => Self::File { path },
            Workload::Token { from, token } => Self::Token { from, token },
            Workload::Command { command, limit, token } => Self::Command { command, limit, token },
            Workload::Github { url, request_token, audience, proxy } => {
                Self::Github { url, request_token, audience, proxy }
            }
            Workload::Client(client) => Self::Client(client.into()),
        }
    }
}

impl From<StoredWorkload> for Workload {
    fn from(stored: StoredWorkload) -> Self {
        match stored {
            StoredWorkload::File { path } => Self::File { path },
            StoredWorkload::Token { from, token } => Self::Token { from, token },
            StoredWorkload::Command { command, limit, token } => Self::Command { command, limit, token },
            StoredWorkload::Github { url, request_token, audience, proxy } => {
                Self::Github { url, request_token, audience, proxy }
            }
            StoredWorkload::Client(client) => Self::Client(client.into()),
        }
    }
}

impl From<Scope> for StoredScope {
    fn from(model: Scope) -> Self {
        match model {
            Scope::Unscoped => Self::Unscoped,
            Scope::Project(project) => Self::Project(project.into()),
            Scope::Domain(domain) => Self::Domain(domain.into()),
            Scope::System { all } => Self::System { all },
            Scope::Trust { id } => Self::Trust { id },
        }
    }
}

impl From<StoredScope> for Scope {
    fn from(stored: StoredScope) -> Self {
        match stored {
            StoredScope::Unscoped => Self::Unscoped,
            StoredScope::Project(project) => Self::Project(project.into()),
            StoredScope::Domain(domain) => Self::Domain(domain.into()),
            StoredScope::System { all } => Self::System { all },
            StoredScope::Trust { id } => Self::Trust { id },
        }
    }
}
