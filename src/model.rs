//! The words of the project as types: `Cloud`, `Identity`, `Scope`, `Token`, `Secret`.
//!
//! Uses nothing of the rest of the crate but [`crate::error`]; everything may use it.

pub mod address;
pub mod duration;
mod page_words;
mod password;
mod workload;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;
use utoipa::ToSchema;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use page_words::{is_tricky, page_words};
pub use password::{Factor, LocalUser, UserRef, password_first};
pub use workload::{ClientCredentials, Workload, command_limit};

/// A string that must not be seen: redacted in `Debug`, without `Display`, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Hash, Zeroize, ZeroizeOnDrop, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Secret(String);

impl Secret {
    /// Takes the string over.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// 256 random bits as 64 hexadecimal digits.
    pub fn random() -> Self {
        Self(random_hex::<32>())
    }

    /// The one way to the value: search for this name to find every use of a secret.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// `N` random bytes of the operating system, in hexadecimal.
///
/// # Panics
/// When the system has no randomness to give: nothing safe can follow.
pub fn random_hex<const N: usize>() -> String {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    hex(&bytes)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// An entry of clouds.yaml, resolved by the client in the caller's directory and environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cloud {
    /// The entry's name; absent when a caller gave its options inline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Keystone's address in any of its usual shapes: `…/`, `…/v3`, `…/v3/`, `…/identity`.
    #[serde(deserialize_with = "address::required")]
    #[schema(value_type = String, format = "uri")]
    pub auth_url: Url,
    /// Keystone's identity provider; absent when Keystone finds it by the protocol alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_provider: Option<String>,
    /// Keystone's federation protocol, such as `openid` or `saml2`; none for Keystone's own users.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// Label that keeps several accounts on one cloud apart (`username` of `v3websso`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Region, passed on to tools; no part of the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// How Keystone's certificate is checked, and with which one of our own we answer.
    #[serde(default)]
    pub tls: Tls,
    /// The proxy that the caller's environment names for `auth_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// How a user signs in.
    #[serde(default)]
    pub sign_in: SignInOptions,
    /// Page that ends the *browser's* session, where the cloud has one.
    #[serde(default, deserialize_with = "address::optional", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uri")]
    pub logout_url: Option<Url>,
    /// Where the entry was read; decides whether `ksb trust` must be asked first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// TLS settings as keystoneauth understands `verify`, `cacert`, `cert` and `key`. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Tls {
    /// `false` accepts any certificate; such an entry shares its sign-in with no other.
    #[serde(default = "yes")]
    pub verify: bool,
    /// PEM bundle that replaces the system's (as in requests).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM; may hold the key as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub cert_file: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key_file: Option<PathBuf>,
    /// The variables, or options and files, that name them: for messages.
    #[serde(default, skip_serializing_if = "TlsSources::is_empty")]
    pub sources: TlsSources,
}

/// Where the user named each file of [`Tls`]. It makes no difference between two clouds.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TlsSources {
    /// Such as `REQUESTS_CA_BUNDLE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Such as `` `cert` in /etc/openstack/clouds.yaml``.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// The same for the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
}

impl TlsSources {
    fn is_empty(&self) -> bool {
        [&self.ca_file, &self.cert_file, &self.key_file].into_iter().all(Option::is_none)
    }
}

impl PartialEq for TlsSources {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for TlsSources {}

impl Hash for TlsSources {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

fn yes() -> bool {
    true
}

impl Default for Tls {
    fn default() -> Self {
        Self { verify: true, ca_file: None, cert_file: None, key_file: None, sources: TlsSources::default() }
    }
}

/// How a user signs in, in the option names of keystoneauth's `v3websso`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SignInOptions {
    /// The way to sign in.
    pub way: Way,
    /// Host of the callback URL: what the operator lists in `trusted_dashboard`, or registers at the identity provider.
    pub redirect_host: String,
    /// Port of that URL; 0 is any free one (RFC 8252 section 7.3), which only `oidc_code` can use.
    pub redirect_port: u16,
    /// Seconds a user has to finish (`login_timeout` of `v3websso`).
    pub timeout: u64,
    /// The OAuth client that we are, where the way needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcClient>,
    /// Who a program without a user is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// Who a user is that Keystone itself knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<LocalUser>,
}

impl SignInOptions {
    /// Whether something in it must not be kept longer than it is needed.
    pub fn carries_secret(&self) -> bool {
        self.oidc.as_ref().is_some_and(|oidc| oidc.client_secret.is_some())
            || self.workload.as_ref().is_some_and(Workload::carries_secret)
            || self.password.as_ref().is_some_and(|user| user.password.is_some())
    }

    /// The same without a workload's token and a user's password.
    #[must_use]
    pub fn without_proof(mut self) -> Self {
        if let Some(workload) = &mut self.workload {
            workload.forget_proof();
        }
        if let Some(user) = &mut self.password {
            user.password = None;
        }
        self
    }

    /// Whether the agent fetches the proof by itself, for as long as its source gives any.
    pub fn renews(&self) -> bool {
        self.workload.as_ref().is_some_and(Workload::renews)
    }
}

impl Default for SignInOptions {
    fn default() -> Self {
        Self {
            way: Way::Websso,
            redirect_host: "localhost".into(),
            redirect_port: 9990,
            timeout: 300,
            oidc: None,
            workload: None,
            password: None,
        }
    }
}

/// What we are to an OpenID provider, in the option names of keystoneauth's `v3oidcauthcode`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OidcClient {
    /// Address of the provider's metadata (OpenID Connect Discovery 1.0).
    #[serde(deserialize_with = "address::required")]
    #[schema(value_type = String, format = "uri")]
    pub discovery_endpoint: Url,
    /// Our name at the provider.
    pub client_id: String,
    /// The secret of a confidential client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    /// How a confidential client shows its secret (`token_endpoint_auth_method`), where the provider's metadata leave it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_method: Option<AuthMethod>,
    /// Scopes to ask for (`openid_scope`), separated by spaces.
    #[serde(default = "openid_scope")]
    pub scope: String,
    /// Which of the provider's tokens Keystone takes.
    #[serde(default)]
    pub bearer: Bearer,
    /// Path of the callback URL, as it is registered at the provider.
    #[serde(default = "callback_path")]
    pub redirect_path: String,
    /// `prompt`, `max_age`, `acr_values` and `login_hint` of the authorization request, where set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<(String, String)>,
    /// What a sign-in must show to be used, by this entry.
    #[serde(default, skip_serializing_if = "Requirements::is_empty")]
    pub require: Requirements,
    /// The proxy that the caller's environment names for the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// How a confidential client shows its secret (OpenID Connect Core 1.0, section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// In the `Authorization` header.
    ClientSecretBasic,
    /// In the form.
    ClientSecretPost,
}

/// What keystoneauth's own plugins ask for when the entry does not say.
pub fn openid_scope() -> String {
    "openid profile".into()
}

/// The callback's path where none was registered.
pub fn callback_path() -> String {
    "/callback".into()
}

/// What a cloud demands of a sign-in beyond the identity provider's word that there was one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Requirements {
    /// Methods that must be among the ID token's `amr`, such as `otp` or `hwk` (RFC 8176).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<String>,
    /// Seconds that may have passed since the user proved who they are (`auth_time`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_auth_age: Option<u64>,
}

impl OidcClient {
    /// Whether it asks for a refresh token that outlives the user's session at the provider
    /// (OpenID Connect Core 1.0, section 11).
    pub fn asks_offline_access(&self) -> bool {
        self.scope.split_ascii_whitespace().any(|scope| scope == "offline_access")
    }
}

impl Requirements {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is missing, in words; nothing when `evidence` meets all of it.
    fn missing(&self, evidence: Option<&Evidence>, now: Timestamp) -> Option<String> {
        let (amr, auth_time) =
            evidence.map_or((&[][..], None), |evidence| (&evidence.amr[..], evidence.auth_time));
        if let Some(method) = self.amr.iter().find(|method| !amr.contains(method)) {
            let shown = if amr.is_empty() { "none".to_owned() } else { amr.join(", ") };
            return Some(format!(
                "the cloud's entry requires the method {method} (amr), the sign-in shows {shown}"
            ));
        }
        let limit = self.max_auth_age?;
        match auth_time.map(|when| now.duration_since(when).as_secs()) {
            None => Some(
                "the cloud's entry limits the sign-in's age, and the identity provider does not say it"
                    .into(),
            ),
            Some(age) if u64::try_from(age).is_ok_and(|age| age > limit) => {
                Some(format!("the sign-in is {age} s old, and the cloud's entry allows {limit} s"))
            }
            Some(_) => None,
        }
    }
}

/// What an ID token says of how the user signed in (OpenID Connect Core 1.0, section 2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// Authentication context class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    /// Authentication methods (RFC 8176).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<String>,
    /// When the user proved who they are, by our clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub auth_time: Option<Timestamp>,
}

/// Which of an OpenID provider's tokens Keystone takes (`access_token_type`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bearer {
    /// The OAuth access token.
    #[default]
    AccessToken,
    /// The ID token.
    IdToken,
}

/// A way to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Keystone's WebSSO in a browser: OIDC or SAML, whatever the dashboard uses.
    Websso,
    /// OpenID Connect's authorization code with PKCE in a browser (RFC 8252), then Keystone's bearer exchange.
    OidcCode,
    /// OAuth's device authorization (RFC 8628), approved on any device, then Keystone's bearer exchange.
    OidcDevice,
    /// A token that a program without a user has, by Keystone's bearer exchange. Nobody is asked anything.
    Workload,
    /// Keystone's own users: a password and what its rules ask for besides, on the caller's terminal.
    Password,
}

/// The file an entry came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Source {
    /// Absolute path.
    #[schema(value_type = String)]
    pub file: PathBuf,
    /// Found in the caller's current directory, which may be a repository someone else wrote.
    pub current_folder: bool,
}

impl Cloud {
    /// Whether it, or the identity provider of its entry, is spoken to by TLS.
    pub fn speaks_tls(&self) -> bool {
        let provider = self.sign_in.oidc.as_ref().map(|oidc| &oidc.discovery_endpoint);
        let is_https = |url: &Url| url.scheme() == "https";
        is_https(&self.auth_url) || provider.is_some_and(is_https) || self.sign_in.way == Way::Workload
    }

    /// How messages call this cloud.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.auth_url.host_str().unwrap_or("cloud"))
    }

    /// The cloud as an argument of a `ksb` command in a remedy.
    pub fn argument(&self) -> &str {
        self.name.as_deref().unwrap_or("CLOUD")
    }

    /// Our name at the identity provider, in what is said to people.
    pub fn client_id(&self) -> &str {
        self.sign_in.oidc.as_ref().map_or("?", |oidc| &oidc.client_id)
    }

    /// What `evidence` lacks of what this entry requires of a sign-in, in words.
    pub fn missing(&self, evidence: Option<&Evidence>, now: Timestamp) -> Option<String> {
        self.sign_in.oidc.as_ref()?.require.missing(evidence, now)
    }

    /// `auth_url` without trailing slash and version: the root below which `/v3` lies.
    pub fn keystone_root(&self) -> String {
        let url = self.auth_url.as_str().trim_end_matches('/');
        url.strip_suffix("/v3").unwrap_or(url).trim_end_matches('/').to_owned()
    }
}

/// Who: everything that makes one sign-in stand for another. Two clouds that differ only in
/// project or region have the same identity; an unverified one shares with no other entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity([u8; 32]);

impl Identity {
    /// One that was stored.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What is stored of it.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// The identity of `cloud`; `trust` is what its TLS files hold (see `http_client::TrustDigest`).
    pub fn of(cloud: &Cloud, trust: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        part(&cloud.keystone_root());
        part(cloud.identity_provider.as_deref().unwrap_or(""));
        part(&cloud.protocol);
        part(cloud.account.as_deref().unwrap_or(""));
        part(if cloud.tls.verify { "" } else { cloud.label() });
        if let Some(oidc) = &cloud.sign_in.oidc {
            part(oidc.discovery_endpoint.as_str());
            part(&oidc.client_id);
            part(&oidc.scope);
        }
        if let Some(workload) = &cloud.sign_in.workload {
            workload.tell_apart(&mut part);
        }
        if let Some(user) = &cloud.sign_in.password {
            user.tell_apart(&mut part);
        }
        // Whatever the label: an empty one must not make it look like one that is checked.
        hash.update([u8::from(cloud.tls.verify)]);
        hash.update(trust);
        Self(hash.finalize().into())
    }
}

/// What a token is good for, in the shape of Keystone's own `auth.scope`
/// (Identity API v3, "Password authentication with scoped authorization").
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
pub enum Scope {
    /// No scope; the string `"unscoped"`.
    #[default]
    #[serde(rename = "unscoped")]
    Unscoped,
    /// A project.
    #[serde(rename = "project")]
    Project(ProjectRef),
    /// A domain.
    #[serde(rename = "domain")]
    Domain(DomainRef),
    /// The whole deployment.
    #[serde(rename = "system")]
    System {
        /// Always `true`.
        all: bool,
    },
    /// A trust (OS-TRUST).
    #[serde(rename = "OS-TRUST:trust")]
    Trust {
        /// Its id.
        id: String,
    },
}

/// A project by id, or by name and domain. A name alone means the identity's own domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
pub struct ProjectRef {
    /// The project's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The project's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The domain that the name lives in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainRef>,
}

/// A domain by id or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
pub struct DomainRef {
    /// The domain's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The domain's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl fmt::Display for DomainRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().or(self.id.as_deref()).unwrap_or("?"))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Unscoped => f.write_str("unscoped"),
            Scope::Project(project) => {
                let name = project.name.as_deref().or(project.id.as_deref()).unwrap_or("?");
                write!(f, "project {name}")
            }
            Scope::Domain(domain) => write!(f, "domain {domain}"),
            Scope::System { .. } => f.write_str("system"),
            Scope::Trust { id } => write!(f, "trust {id}"),
        }
    }
}

/// A user as Keystone names one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Keystone's id.
    pub id: String,
    /// Keystone's name.
    pub name: String,
    /// The user's domain.
    pub domain: DomainRef,
}

/// A Keystone token: its id, Keystone's answer byte for byte, and what we read in it.
#[derive(Clone)]
pub struct Token {
    /// The value of `X-Subject-Token`.
    pub id: Secret,
    /// Keystone's JSON, `{"token": {…}}`, untouched.
    pub body: Box<serde_json::value::RawValue>,
    /// When it ends, by our clock.
    pub expires_at: Timestamp,
    /// When Keystone made it, by our clock.
    pub issued_at: Timestamp,
    /// Whose it is.
    pub user: User,
    /// How it was obtained: a fresh WebSSO token has exactly its protocol here.
    pub methods: Vec<String>,
    /// `OS-FEDERATION`'s identity provider and protocol, where there is one.
    pub federation: Option<(String, String)>,
    /// Keystone's `x-openstack-request-id` of the answer that it came in.
    pub request_id: Option<String>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("user", &self.user.name)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_not_checked_shares_with_none_that_is_even_without_a_name() {
        let cloud = |verify: bool| -> Cloud {
            let json = serde_json::json!({
                "name": "", "auth_url": "https://keystone.example.org/v3", "tls": {"verify": verify},
            });
            serde_json::from_value(json).unwrap()
        };
        assert_ne!(Identity::of(&cloud(true), &[0; 32]), Identity::of(&cloud(false), &[0; 32]));
    }
}
