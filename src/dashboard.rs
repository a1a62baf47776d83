//! What the address that people know, the dashboard's, tells of a cloud's Keystone: for `ksb setup`.
//!
//! Horizon's own SSO redirect names Keystone, protocol and identity provider (`openstack_auth.utils.get_websso_url`), Skyline
//! lists them, openstacksdk's vendor profile lies under `.well-known`. Nothing that is read here is believed: a user is asked.

mod horizon;
mod html;
mod others;

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use url::{Host, Url, form_urlencoded};

use crate::api::{Choice, DiscoverReply};
use crate::error::{Code, Error, Result};
use crate::http_client::{self, Answer, Client, Outbound, Peer};
use crate::model::{Cloud, is_tricky, page_words};

/// All of it together. A user waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// A login page is a hundredth of this.
const LARGEST: usize = 1 << 20;
/// From the address that people know to the login page it is two or three.
const MOST_REDIRECTS: usize = 5;
const MOST_CHOICES: usize = 16;
/// Longer than any name of an identity provider.
const LONGEST_NAME: usize = 255;

/// Looks at `cloud.auth_url`, whatever it is the address of. With `plain_http` also where others can read along.
pub async fn look(cloud: &Cloud, outbound: &Outbound, plain_http: bool) -> Result<DiscoverReply> {
    let client = outbound.client(cloud)?;
    let mut visit = Visit { cloud, client, plain_http, seen: Vec::new() };
    let looking = Box::pin(visit.look());
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| {
        let why = format!("{} does not answer within {} s", shown(&cloud.auth_url), PATIENCE.as_secs());
        Err(Error::new(Code::KeystoneUnreachable, why).remedy("check the network (VPN, proxy)"))
    })
}

/// One look around, by its rules: no redirect that nobody sees, no plain HTTP, nothing large.
struct Visit<'c> {
    cloud: &'c Cloud,
    client: Client,
    plain_http: bool,
    /// Where redirects led.
    seen: Vec<String>,
}

/// A page, or the start of a sign-in at Keystone.
enum Reached {
    Page(Url, Answer),
    Keystone(Choice),
}

impl Visit<'_> {
    async fn look(&mut self) -> Result<DiscoverReply> {
        let address = self.cloud.auth_url.clone();
        let choices = match self.open(address.clone()).await? {
            Reached::Keystone(choice) => vec![choice],
            Reached::Page(at, answer) if others::is_keystone(&answer) => {
                vec![Choice { label: "Keystone".into(), auth_url: shown(&at), ..Choice::default() }]
            }
            Reached::Page(at, answer) => self.of_page(&address, &at, &answer).await,
        };
        if choices.is_empty() {
            let why = format!(
                "{} is no Keystone, and neither a Horizon nor a Skyline that names one",
                shown(&address)
            );
            return Err(Error::new(Code::NotKeystone, why)
                .remedy("ask the operator for Keystone's address (auth URL), then: ksb setup ADDRESS"));
        }
        Ok(DiscoverReply { choices, redirects: std::mem::take(&mut self.seen) })
    }

    async fn of_page(&mut self, address: &Url, at: &Url, answer: &Answer) -> Vec<Choice> {
        let found = self.horizon(at, answer).await;
        if !found.is_empty() {
            return found;
        }
        let found = self.skyline(at).await;
        if !found.is_empty() {
            return found;
        }
        self.profile(address).await
    }

    /// `GET`, along redirects that may be followed, until a page or Keystone.
    async fn open(&mut self, mut url: Url) -> Result<Reached> {
        for _ in 0..=MOST_REDIRECTS {
            self.check(&url)?;
            if let Some(choice) = websso(&url, "single sign-on") {
                return Ok(Reached::Keystone(choice));
            }
            let answer = self.get(&url).await?;
            match goes_to(&url, &answer) {
                Some(next) => {
                    self.follows(&url, &next).await?;
                    url = next;
                }
                None => return Ok(Reached::Page(url, answer)),
            }
        }
        Err(unfit(format!("{} redirects again and again", shown(&url))))
    }

    /// Takes note of where a redirect leads. Nobody out there has a reason to send us to this computer.
    async fn follows(&mut self, from: &Url, to: &Url) -> Result<()> {
        self.check(to)?;
        // Whoever sends us may have given this computer a name of theirs.
        if to.host() != from.host() && !is_here(from) && (is_here(to) || leads_here(to).await) {
            return Err(unfit(format!("{} redirects to this computer, {}", shown(from), shown(to))));
        }
        if to.host() != from.host() {
            self.seen.push(shown(to));
        }
        Ok(())
    }

    /// Whoever can change what comes from there chooses where the user signs in.
    fn check(&self, url: &Url) -> Result<()> {
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.plain_http || is_here(url) => Ok(()),
            "http" => {
                Err(unfit(format!("{} begins with http: anyone on the way could change it", shown(url)))
                    .remedy("take the address with https; or, if you must, --plain-http"))
            }
            _ => Err(unfit(format!("{url} is no address of a web page"))),
        }
    }

    async fn get(&self, url: &Url) -> Result<Answer> {
        self.send(self.client.get(url.clone()).header("Accept", "text/html, application/json;q=0.9")).await
    }

    /// What a form sends.
    async fn post(&self, url: &Url, from: &Url, cookies: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.client.request(Method::POST, url.clone()).body(body);
        let request = request.header("Content-Type", "application/x-www-form-urlencoded");
        // Django compares it with its own host for a form that comes by https.
        self.send(request.header("Referer", from.as_str()).header("Cookie", cookies)).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer> {
        let answer =
            http_client::send(self.cloud, Peer::Dashboard, request).await.map_err(|error| Error {
                remedy: match error.code {
                    Code::KeystoneTls => {
                        Some("name the CA that signed its certificate: --cacert FILE".into())
                    }
                    _ => Some("check the address and the network (VPN, proxy)".into()),
                },
                cloud: None,
                ..error
            })?;
        if answer.body.len() > LARGEST {
            return Err(unfit("the answer is larger than any login page".into()));
        }
        Ok(answer)
    }
}

fn unfit(why: String) -> Error {
    Error::new(Code::NotKeystone, why).remedy("ask the operator for Keystone's address (auth URL)")
}

fn goes_to(url: &Url, answer: &Answer) -> Option<Url> {
    let location =
        answer.header("location").filter(|_| (300..400).contains(&answer.status) && answer.status != 300)?;
    url.join(location).ok()
}

/// This computer by name or address.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(ip)) => is_ours(ip.into()),
        Some(Host::Ipv6(ip)) => is_ours(ip.into()),
        None => false,
    }
}

/// Whether a name's addresses are this computer's.
async fn leads_here(url: &Url) -> bool {
    let (Some(Host::Domain(name)), Some(port)) = (url.host(), url.port_or_known_default()) else {
        return false;
    };
    http_client::addresses(name, port, PATIENCE).await.is_ok_and(|found| found.into_iter().any(is_ours))
}

/// Linux takes the unspecified address for the loopback one (ip(7)).
fn is_ours(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

/// An address without what may be secret or misleading in it (RFC 3986 section 7.6: `https://bank@evil/`).
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail for addresses that have no host, which are shown to nobody.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// What an address that starts a sign-in says: `…/auth/OS-FEDERATION/identity_providers/IDP/protocols/PROTOCOL/websso`
/// or `…/auth/OS-FEDERATION/websso/PROTOCOL`.
fn websso(url: &Url, label: &str) -> Option<Choice> {
    let segments: Vec<_> = url.path_segments()?.collect();
    let start = segments.windows(2).position(|pair| pair == ["auth", "OS-FEDERATION"])?;
    let (idp, protocol) = match segments[start + 2..] {
        ["identity_providers", idp, "protocols", protocol, "websso"] => (Some(idp), protocol),
        ["websso", protocol] => (None, protocol),
        _ => return None,
    };
    let name = |segment: &str| {
        let decoded: String = form_urlencoded::parse(format!("n={}", segment.replace('+', "%2B")).as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())?;
        is_name(&decoded).then_some(decoded)
    };
    let identity_provider = match idp {
        Some(idp) => Some(name(idp)?),
        None => None,
    };
    let mut root = url.clone();
    root.set_path(&segments[..start].join("/"));
    Some(Choice {
        label: page_words(label),
        auth_url: shown(&root),
        identity_provider,
        protocol: Some(name(protocol)?),
        region: None,
    })
}

/// What a user can read and a file can hold.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_NAME && !text.chars().any(is_tricky)
}

/// The cookies that an answer sets, as the next request brings them.
fn cookies(headers: &HeaderMap) -> String {
    let set = headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    let pairs: Vec<_> = set.filter_map(|cookie| cookie.split(';').next()).map(str::trim).take(8).collect();
    pairs.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Option<(String, Option<String>, Option<String>)> {
        let choice = websso(&Url::parse(url).unwrap(), "x")?;
        Some((choice.auth_url, choice.identity_provider, choice.protocol))
    }

    #[test]
    fn an_sso_address_names_keystone_protocol_and_provider() {
        let some = |auth_url: &str, idp: Option<&str>, protocol: &str| {
            Some((auth_url.to_owned(), idp.map(str::to_owned), Some(protocol.to_owned())))
        };
        for (url, expected) in [
            (
                "https://ks.example/v3/auth/OS-FEDERATION/identity_providers/acme/protocols/oidc/websso?origin=x",
                some("https://ks.example/v3", Some("acme"), "oidc"),
            ),
            (
                "https://ks.example:5000/identity/v3/auth/OS-FEDERATION/websso/saml2",
                some("https://ks.example:5000/identity/v3", None, "saml2"),
            ),
            (
                "https://bank@ks.example/v3/auth/OS-FEDERATION/identity_providers/a%20b/protocols/o+c/websso",
                some("https://ks.example/v3", Some("a b"), "o+c"),
            ),
            ("https://ks.example/v3/auth/OS-FEDERATION/identity_providers/a%0ab/protocols/x/websso", None),
            ("https://ks.example/v3/auth/OS-FEDERATION/identity_providers/a/protocols/x/auth", None),
            ("https://ks.example/v3/auth/OS-FEDERATION/websso/", None),
            ("https://ks.example/auth/login/", None),
        ] {
            assert_eq!(of(url), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn this_computer_is_known_by_any_name_and_address() {
        let ours = ["localhost", "localhost.", "a.localhost", "127.8.8.8", "0.0.0.0", "0", "[::1]", "[::]"];
        for host in ours.into_iter().chain(["[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]"]) {
            assert!(is_here(&Url::parse(&format!("https://{host}/")).unwrap()), "{host}");
        }
        for host in ["192.0.2.1", "[2001:db8::1]", "localhost.example", "notlocalhost"] {
            assert!(!is_here(&Url::parse(&format!("https://{host}/")).unwrap()), "{host}");
        }
        // The one name that leads here on every machine; somebody else's is looked up in the same way.
        assert!(leads_here(&Url::parse("https://localhost/").unwrap()).await);
        assert!(!leads_here(&Url::parse("https://192.0.2.1/").unwrap()).await);
    }
}
