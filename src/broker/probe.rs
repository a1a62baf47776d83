//! What can be found of a cloud without signing in, each by a question of its own: for `ksb doctor`.

use std::net::IpAddr;
use std::time::Duration;

use jiff::SignedDuration;
use url::{Host, Url};

use super::{Broker, Inner};
use crate::api::{CloudRequest, Finding, Found, ProbeReply};
use crate::error::{Code, Error, Result};
use crate::http_client;
use crate::keystone::{Keystone, Met};
use crate::model::{Cloud, Identity, Way};
use crate::signin;
use crate::sync::lock_unpoisoned;
use crate::time::SharedClock;

/// One question's time. Whoever takes longer is of no use to a user who waits for a token.
const PATIENCE: Duration = Duration::from_secs(15);
/// What the way of an answer and whole seconds explain.
const UNCERTAIN: SignedDuration = SignedDuration::from_secs(5);
/// From here on other programs than we stumble: Keystone's own tokens last minutes at least, an ID token often no more.
const WRONG: SignedDuration = SignedDuration::from_secs(60);

impl Broker {
    /// Asks the cloud whatever needs no sign-in. Faults are findings; an error is about the request alone.
    pub async fn probe(&self, request: &CloudRequest) -> Result<ProbeReply> {
        let cloud = &request.cloud;
        let in_cloud = |error: Error| error.cloud(cloud.label());
        // A cloned repository's cloud is asked nothing either.
        let identity = self.admit(cloud).map_err(in_cloud)?;
        let mut probe = Probe { cloud, clock: self.inner.clock.clone(), findings: Vec::new() };
        probe.names().await;
        let keystone = match self.inner.keystone(cloud) {
            Ok(keystone) => keystone,
            Err(error) => {
                probe.failed("tls", &error);
                return Ok(probe.reply());
            }
        };
        if probe.discovery(&keystone).await {
            probe.sign_in(&self.inner, &identity, &keystone).await;
        }
        Ok(probe.reply())
    }
}

struct Probe<'c> {
    cloud: &'c Cloud,
    clock: SharedClock,
    findings: Vec<Finding>,
}

impl Probe<'_> {
    fn reply(self) -> ProbeReply {
        ProbeReply { findings: self.findings }
    }

    fn add(&mut self, check: &str, finding: Found, detail: impl Into<String>) -> &mut Finding {
        self.findings.push(Finding {
            check: check.to_owned(),
            subject: self.cloud.label().to_owned(),
            finding,
            detail: detail.into(),
            remedy: None,
            request_id: None,
            at: self.clock.now(),
        });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    fn failed(&mut self, check: &str, error: &Error) {
        let finding = self.add(check, Found::Fail, &error.detail);
        finding.remedy.clone_from(&error.remedy);
        finding.request_id.clone_from(&error.request_id);
    }

    /// Whether the name of Keystone's host has an address. Behind a proxy that is the proxy's to know.
    async fn names(&mut self) {
        let url = &self.cloud.auth_url;
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return };
        if self.cloud.proxy.is_some() {
            self.add("dns", Found::Skipped, format!("the proxy looks {host} up"));
            return;
        }
        if !matches!(url.host(), Some(Host::Domain(_))) {
            self.add("dns", Found::Ok, format!("{host} is an address"));
            return;
        }
        match http_client::addresses(host, port, PATIENCE).await {
            Ok(found) => {
                let found: Vec<_> = found.iter().map(IpAddr::to_string).collect();
                self.add("dns", Found::Ok, format!("{host} is {}", found.join(", ")));
            }
            Err(why) => {
                let remedy =
                    "check the name in auth_url, the network, and the VPN if the name is known there only";
                let finding = self.add("dns", Found::Fail, format!("{host} has no address: {why}"));
                finding.remedy = Some(remedy.into());
            }
        }
    }

    /// Whether a Keystone answers, and who vouches for it. The rest makes no sense without.
    async fn discovery(&mut self, keystone: &Keystone) -> bool {
        match within(self.cloud, keystone.discover()).await {
            Ok(met) => {
                self.tls();
                self.proxy();
                self.add(
                    "discovery",
                    Found::Ok,
                    format!("Keystone {} at {}/v3", met.version, shown(&self.cloud.auth_url)),
                )
                .request_id
                .clone_from(&met.request_id);
                self.clock("Keystone", &met);
                true
            }
            Err(error) => {
                let check = match error.code {
                    Code::KeystoneTls | Code::InvalidConfig => "tls",
                    Code::KeystoneUnreachable if self.cloud.proxy.is_some() => "proxy",
                    _ => "discovery",
                };
                self.failed(check, &error);
                self.add("sign-in-path", Found::Skipped, "Keystone has to answer first");
                false
            }
        }
    }

    fn tls(&mut self) {
        let tls = &self.cloud.tls;
        let here = match self.cloud.auth_url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        if self.cloud.auth_url.scheme() == "http" {
            if here {
                self.add("tls", Found::Ok, "none, and nothing leaves this computer");
            } else {
                self.add(
                    "tls",
                    Found::Warn,
                    "auth_url begins with http: whoever is on the way reads your tokens",
                )
                .remedy = Some("ask the operator for the address with https, and correct auth_url".into());
            }
            return;
        }
        match (tls.verify, &tls.ca_file) {
            (false, _) => {
                self.add("tls", Found::Warn, "verify: false: whoever is on the way can read your tokens").remedy = Some(
                    "set cacert in the cloud's entry to the CA that signed Keystone's certificate, and remove verify".into(),
                );
            }
            (true, Some(file)) => {
                self.add("tls", Found::Ok, format!("the certificate is signed by {}", file.display()));
            }
            (true, None) => {
                self.add("tls", Found::Ok, "the certificate is signed by a CA of this system");
            }
        }
    }

    /// Says of a proxy that it let us through; without one there is nothing to say, but that.
    fn proxy(&mut self) {
        let said = match &self.cloud.proxy {
            Some(_) => format!("{} lets us through", http_client::proxy_of(self.cloud)),
            None => "none".into(),
        };
        self.add("proxy", Found::Ok, said);
    }

    fn clock(&mut self, whose: &str, met: &Met) {
        match met.ahead {
            Some(ahead) => self.ahead(whose, ahead),
            None => drop(self.add(
                "clock",
                Found::Unknown,
                format!("the answers of {whose} do not say what time it is there"),
            )),
        }
    }

    fn ahead(&mut self, whose: &str, ahead: SignedDuration) {
        let (seconds, off) = (ahead.as_secs().unsigned_abs(), ahead.abs());
        if off <= UNCERTAIN {
            self.add("clock", Found::Ok, format!("as {whose} has it"));
            return;
        }
        let which = if ahead.is_negative() { "ahead of" } else { "behind" };
        let finding = if off > WRONG { Found::Fail } else { Found::Warn };
        self.add("clock", finding, format!("this computer's clock is {seconds} s {which} that of {whose}"))
            .remedy = Some(
            "set this computer's clock (timedatectl shows it); if it is right, tell the operator".into(),
        );
    }

    /// What the way to sign in goes through.
    async fn sign_in(&mut self, inner: &Inner, identity: &Identity, keystone: &Keystone) {
        let lives = lock_unpoisoned(&inner.state).sessions.contains_key(identity);
        match self.cloud.sign_in.way {
            Way::Websso => self.websso(keystone, lives).await,
            Way::OidcCode | Way::OidcDevice => {
                self.provider(inner).await;
                self.bearer(keystone, lives).await;
            }
            Way::Workload => self.bearer(keystone, lives).await,
            Way::Password => {}
        }
    }

    async fn websso(&mut self, keystone: &Keystone, lives: bool) {
        let callback = signin::loopback::websso_callback(self.cloud);
        match within(self.cloud, keystone.websso_door(&callback)).await {
            Ok(said) => drop(self.add("websso", Found::Ok, said)),
            Err(error) => self.failed("websso", &error),
        }
        if lives {
            self.add("trusted_dashboard", Found::Ok, format!("a sign-in came back to {callback}"));
        } else {
            // A web server may send everybody to its identity provider first, whatever the entry names.
            let knows = match &self.cloud.identity_provider {
                Some(idp) => format!(", and knows identity provider {idp},"),
                None => String::new(),
            };
            let why = format!("whether Keystone lists {callback}{knows} shows at a sign-in, and not before");
            self.add("trusted_dashboard", Found::Unknown, why).remedy =
                Some(format!("ksb doctor {} --try", self.cloud.argument()));
        }
    }

    async fn provider(&mut self, inner: &Inner) {
        let Some(client) = &self.cloud.sign_in.oidc else { return };
        let discovering = signin::look(self.cloud, &inner.outbound, self.clock.clone());
        match within(self.cloud, discovering).await {
            Ok(ahead) => {
                let at = client.discovery_endpoint.host_str().unwrap_or_default();
                self.add(
                    "identity-provider",
                    Found::Ok,
                    format!("its discovery document and keys are at {at}"),
                );
                if let Some(ahead) = ahead {
                    self.ahead("the identity provider", ahead);
                }
            }
            Err(error) => self.failed("identity-provider", &error),
        }
    }

    async fn bearer(&mut self, keystone: &Keystone, lives: bool) {
        if lives {
            self.add("bearer", Found::Ok, "Keystone took a token of the identity provider");
            return;
        }
        match within(self.cloud, keystone.bearer_door()).await {
            Ok(()) => {
                let why =
                    "tokens are looked at there; whether yours are taken shows at a sign-in, and not before";
                self.add("bearer", Found::Unknown, why).remedy =
                    Some(format!("ksb doctor {} --try", self.cloud.argument()));
            }
            Err(error) => self.failed("bearer", &error),
        }
    }
}

/// The answer, or that there was none in time.
async fn within<T>(cloud: &Cloud, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, Box::pin(work)).await.unwrap_or_else(|_| {
        let why = format!("no answer within {} s", PATIENCE.as_secs());
        Err(Error::new(Code::KeystoneUnreachable, why)
            .cloud(cloud.label())
            .remedy("check the network (VPN, proxy)"))
    })
}

/// Without what may be secret in an address.
fn shown(url: &Url) -> String {
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    let path = url.path().trim_end_matches('/').trim_end_matches("/v3");
    format!("{}://{}{port}{path}", url.scheme(), url.host_str().unwrap_or_default())
}
