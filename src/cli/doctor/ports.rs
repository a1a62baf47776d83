//! The callback's ports: who has them now, and what a browser may keep of those who had them before.

use std::collections::BTreeSet;

use super::cloud::Entry;
use super::{Helped, finding};
use crate::api::{Finding, Found, Status};
use crate::model::Way;
use crate::platform::tcp_owner;

/// Each port once, however many entries have it.
pub(super) fn check(clouds: &[Entry], agent: Option<&Status>) -> Vec<Finding> {
    let browser = |entry: &&Entry| matches!(entry.cloud.sign_in.way, Way::Websso | Way::OidcCode);
    // 0 is any port that is free.
    let ports: BTreeSet<_> = clouds
        .iter()
        .filter(browser)
        .map(|entry| (entry.cloud.sign_in.redirect_port, entry.cloud.sign_in.redirect_host.clone()))
        .filter(|(port, _)| *port != 0)
        .collect();
    let mut findings = Vec::new();
    for (port, host) in ports {
        findings.push(holder(port, agent));
        // Which ones there are, a browser tells nobody but the origin itself.
        findings.push(finding(
            "service-worker",
            format!("{host}:{port}"),
            Found::Unknown,
            "what earlier programs at this port left in a browser is not seen from here; every sign-in has the \
             browser clear it first",
        ));
    }
    findings
}

fn holder(port: u16, agent: Option<&Status>) -> Finding {
    let subject = port.to_string();
    let Some(holder) = tcp_owner::holder_of(port) else {
        return finding("callback-port", subject, Found::Ok, "free");
    };
    let ours = agent.is_some_and(|agent| holder.ends_with(&format!("(process {})", agent.pid)));
    if ours {
        return finding("callback-port", subject, Found::Ok, "the agent has it");
    }
    finding("callback-port", subject, Found::Fail, format!("held by {holder}: no sign-in can begin")).remedy(
        format!(
            "{}ask the operator to list another port in trusted_dashboard, and set redirect_port",
            if tcp_owner::is_held_by_us(port) { "end that program; or " } else { "" }
        ),
    )
}
