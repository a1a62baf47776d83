//! Keystone's WebSSO: OIDC or SAML, whatever the dashboard uses. Keystone itself sends a token back with the browser.

use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use url::Url;

use super::browser_flow::{self, Errand};
use super::door::Door;
use super::loopback::{Brought, CallbackPort, Loopback};
use super::{SignedIn, Started, Task};
use crate::error::Result;
use crate::keystone::Verdict;
use crate::model::{Secret, Token};

/// Keystone's times are whole seconds, and so is the `Date` that its clock is read from.
const ROUNDING: SignedDuration = SignedDuration::from_secs(2);

/// Binds the callback and starts to wait.
pub(super) async fn start(task: Task, loopback: &Loopback) -> Result<Started> {
    let options = &task.cloud.sign_in;
    let door = if task.remote { Door::Sockets } else { Door::Ports };
    let port = loopback
        .open(&options.redirect_host, options.redirect_port, door)
        .await
        .map_err(|error| error.cloud(task.cloud.label()))?;
    let start = loopback.start(&options.redirect_host, door)?;
    let errand = Websso::at(&port, &task)?;
    Ok(browser_flow::start(task, &port, start, errand))
}

pub(super) struct Websso {
    callback_url: String,
    address: Url,
}

impl Websso {
    pub(super) fn at(port: &CallbackPort, task: &Task) -> Result<Self> {
        let callback_url = port.websso_callback();
        let address = task.keystone.websso_url(&callback_url)?;
        Ok(Self { callback_url, address })
    }
}

impl Errand for Websso {
    /// Nothing else renews what came in a form.
    fn may_be_kept(&self) -> bool {
        true
    }

    fn address(&self) -> &Url {
        &self.address
    }

    fn redeem<'a>(&'a self, task: &'a Task, brought: Brought) -> BoxFuture<'a, Result<SignedIn>> {
        Box::pin(async move {
            match brought {
                Brought::Token(id) => examine(task, &id).await.map(SignedIn::without_grant),
                Brought::Response(_) => Err(task.refused("it is not what Keystone sends")),
            }
        })
    }

    /// What only Keystone's own page says, the broker cannot see. Keystone says little more than a number there.
    fn hint(&self, task: &Task) -> String {
        let cloud = &task.cloud;
        let idp = cloud
            .identity_provider
            .as_ref()
            .map_or(String::new(), |idp| format!("identity provider {idp} with "));
        format!(
            "still waiting. If Keystone's page shows 404, the cloud has no {idp}protocol {}: correct the entry; if it \
             shows 401, ask the operator for this line in keystone.conf, [federation]: trusted_dashboard = {}; if that \
             is there, or it shows 403, no mapping rule fits your account; if it shows 500 or another 5xx, or the \
             identity provider an error page, its operator has to mend that: name the time and the number on the page",
            cloud.protocol, self.callback_url
        )
    }
}

/// Asks Keystone about a token and checks that it is what this sign-in asked for: new, federated
/// by this protocol, from this identity provider. A rescoped token has `token` among its methods.
async fn examine(task: &Task, id: &Secret) -> Result<Token> {
    let Verdict::Valid(token) = task.keystone.validate(id).await? else {
        return Err(task.refused("Keystone does not know it"));
    };
    let protocol = &task.cloud.protocol;
    if token.methods != [protocol.as_str()] {
        return Err(task.refused("it does not come from a browser sign-in"));
    }
    if token.issued_at < task.started_at - ROUNDING {
        return Err(task.refused("it is older than this sign-in"));
    }
    if let Some((idp, by)) = &token.federation {
        let wanted = task.cloud.identity_provider.as_ref();
        if wanted.is_some_and(|wanted| wanted != idp) || by != protocol {
            return Err(task.refused(&format!("it comes from {idp} by {by}")));
        }
    }
    Ok(*token)
}
