//! OpenID Connect's authorization code with PKCE on a loopback redirect (RFC 8252), then Keystone's bearer exchange.

use futures_util::future::BoxFuture;
use url::Url;

use super::browser_flow::{self, Errand};
use super::door::Door;
use super::loopback::{Brought, Loopback};
use super::{SignedIn, Started, Task};
use crate::error::{Code, Error, Result};
use crate::oidc::{Authorization, Provider};

/// Binds the callback and starts to wait.
pub(super) async fn start(task: Task, provider: Provider, loopback: &Loopback) -> Result<Started> {
    let options = &task.cloud.sign_in;
    let path = options.oidc.as_ref().map_or("/", |oidc| &oidc.redirect_path);
    let port = loopback
        .open(&options.redirect_host, options.redirect_port, Door::Ports)
        .await
        .map_err(|error| error.cloud(task.cloud.label()))?;
    // From the other end of an SSH session the user pastes the address at which the browser ended.
    let start = loopback.start(&options.redirect_host, Door::Ports)?;
    let authorization = provider.authorization(port.url(path))?;
    Ok(browser_flow::start(task, &port, start, OidcCode { provider, authorization }))
}

struct OidcCode {
    provider: Provider,
    authorization: Authorization,
}

impl Errand for OidcCode {
    fn address(&self) -> &Url {
        &self.authorization.url
    }

    fn elsewhere(&self) -> Option<&Url> {
        Some(&self.authorization.url)
    }

    fn redeem<'a>(&'a self, task: &'a Task, brought: Brought) -> BoxFuture<'a, Result<SignedIn>> {
        Box::pin(async move {
            let Brought::Response(answer) = brought else {
                return Err(Error::new(
                    Code::TokenRefused,
                    "not used: it is not what an identity provider sends",
                )
                .cloud(task.cloud.label()));
            };
            let granted = self.provider.exchange(&self.authorization, *answer).await?;
            task.redeem(&self.provider, granted).await
        })
    }

    /// An identity provider that does not like the request says so on a page of its own (RFC 6749 section 4.1.2.1).
    fn hint(&self, task: &Task) -> String {
        let client = task.cloud.client_id();
        let mut redirect = self.authorization.redirect_uri().to_owned();
        let mut register = "exactly";
        if task.cloud.sign_in.redirect_port == 0 {
            // Another one the next time: the provider must allow any (RFC 8252 section 7.3).
            if let Ok(mut any) = Url::parse(&redirect)
                && any.set_port(None).is_ok()
            {
                redirect = any.into();
            }
            register = "with any port";
        }
        format!(
            "still waiting. If the identity provider's page speaks of an invalid redirect, ask its operator to register \
             {redirect} ({register}) for client {client}, or set redirect_uri to one that is registered; if of an unknown \
             client, correct client_id; if it shows 5xx or another error, its operator has to mend that: name the time and \
             the number on the page"
        )
    }
}
