//! What went wrong on the way: the certificate, the clock, the proxy, or the network.

use std::error::Error as StdError;

use rustls::CertificateError;
use url::Url;

use super::Peer;
use crate::error::{Code, Error, reason};
use crate::model::Cloud;

/// Names a request's failure after whoever has to see to it.
pub(super) fn of(cloud: &Cloud, peer: Peer, error: &reqwest::Error) -> Error {
    let (unreachable, untrusted, _) = peer.codes();
    let address = address(error.url());
    // What is no TLS at all is no matter of certificates.
    let is_tls = |tls: &&rustls::Error| !matches!(tls, rustls::Error::InvalidMessage(_));
    if let Some(tls) = causes(error).find_map(tls_error).filter(is_tls) {
        return Error::new(untrusted, format!("TLS with {address} failed: {tls}"))
            .cloud(cloud.label())
            .remedy(tls_remedy(cloud, peer, tls));
    }
    let refused = |code: Code, why: String| {
        Error::new(code, format!("{} at {address} cannot be reached: {why}", peer.name()))
            .cloud(cloud.label())
    };
    if cloud.proxy.is_none() || !error.is_connect() {
        return refused(unreachable, cause(error))
            .remedy(format!("check the network (VPN, proxy), then: ksb login {}", cloud.argument()));
    }
    // hyper-util's tunnel keeps its error's type to itself.
    let tunnel = causes(error).map(ToString::to_string).find(|said| said.starts_with("tunnel error: "));
    match tunnel.as_deref() {
        Some("tunnel error: proxy authorization required") => proxy_wants_a_name(cloud, peer),
        // The tunnel is there, and what is at its other end does not speak TLS.
        None if error.url().is_some_and(|url| url.scheme() == "https") => {
            refused(unreachable, format!("through the proxy {}: {}", proxy_of(cloud), cause(error)))
                .remedy(around(error.url()))
        }
        Some("tunnel error: failed to create underlying connection") | None => {
            refused(unreachable, format!("the proxy {} does not answer: {}", proxy_of(cloud), cause(error)))
                .remedy(around(error.url()))
        }
        Some(_) => refused(unreachable, format!("the proxy {} does not connect to it", proxy_of(cloud)))
            .remedy(format!("ask the proxy's operator to allow {address}, or {}", around(error.url()))),
    }
}

/// HTTP 407.
pub(super) fn proxy_wants_a_name(cloud: &Cloud, peer: Peer) -> Error {
    let why = format!(
        "the proxy {} lets nobody through to {} without a name and password",
        proxy_of(cloud),
        peer.name()
    );
    Error::new(peer.codes().0, why)
        .cloud(cloud.label())
        .remedy("put them into the variable: https_proxy=http://NAME:PASSWORD@HOST:PORT")
}

/// The proxy without the password that may be in its address.
pub fn proxy_of(cloud: &Cloud) -> String {
    address(cloud.proxy.as_deref().and_then(|proxy| Url::parse(proxy).ok()).as_ref())
}

/// What helps against a proxy.
pub fn around(url: Option<&Url>) -> String {
    let host = url.and_then(Url::host_str).unwrap_or("HOST");
    format!("correct https_proxy, or go around it: no_proxy={host}")
}

fn tls_remedy(cloud: &Cloud, peer: Peer, error: &rustls::Error) -> String {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    if let rustls::Error::InvalidCertificate(
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
    ) = error
    {
        return "check this computer's clock (timedatectl); if it is right, the operator must renew the certificate".into();
    }
    let whose = match peer {
        Peer::Keystone => "Keystone's certificate",
        Peer::Dashboard => "its certificate",
        Peer::IdentityProvider => "this certificate too (a file may hold several)",
    };
    let opened = match cloud.proxy {
        Some(_) => format!(", or to the one of the proxy {}, if that opens TLS", proxy_of(cloud)),
        None => String::new(),
    };
    format!("set cacert in the cloud's entry to the CA that signed {whose}{opened}")
}

/// Host and port.
fn address(url: Option<&Url>) -> String {
    let host = url.and_then(Url::host_str).unwrap_or("?");
    match url.and_then(Url::port_or_known_default) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// An I/O error may hold another one, and only the innermost holds rustls's; `source` skips what it holds.
fn tls_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    let held = || error.downcast_ref::<std::io::Error>()?.get_ref();
    error.downcast_ref().or_else(|| tls_error(held()?))
}

/// What an error comes from, outermost first.
fn causes<'e>(error: &'e reqwest::Error) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(error.source(), |error: &&'e (dyn StdError + 'static)| (*error).source())
}

/// The innermost cause says most; reqwest's own text repeats the URL.
pub(super) fn cause(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| reason(error), reason)
}
