//! Asking for a password or a one-time code on the terminal.

use std::collections::BTreeMap;

use serde_json::json;
use tokio::signal::unix::Signal;

use crate::api::{FactorsRequest, SignIn};
use crate::cli::output::errln;
use crate::cli::terminal::Keys;
use crate::client::Client;
use crate::error::{Code, Result};
use crate::model::Secret;

/// How the user answered.
pub(in crate::cli) enum Answered {
    Typed,
    /// By Ctrl-C.
    Interrupted,
}

/// Asks for everything that the sign-in waits for, until Keystone takes it or has had enough.
pub(in crate::cli) async fn ask(
    client: &Client,
    sign_in: &SignIn,
    keys: &mut Keys,
    interrupt: &mut Signal,
) -> Result<Answered> {
    let path = format!("/v1/sign-ins/{}", sign_in.id);
    // Nobody else needs to ask.
    client.post(&format!("{path}/opened"), &json!({})).await?;
    loop {
        let mut factors = BTreeMap::new();
        for ask in &sign_in.asks {
            let question = format!("ksb: {}: {}", sign_in.cloud, ask.text);
            let typed = tokio::select! {
                typed = typed(keys, &question) => typed,
                _ = interrupt.recv() => {
                    // Unlike a browser, a terminal that is gone answers no more.
                    client.delete(&path).await.ok();
                    return Ok(Answered::Interrupted);
                }
            };
            factors.insert(ask.factor.name().to_owned(), typed);
        }
        match client.post(&format!("{path}/factors"), &FactorsRequest { factors }).await {
            // Over: what there is to say comes with the sign-in.
            Ok(_) => return Ok(Answered::Typed),
            Err(error) if error.code == Code::UnknownSignIn => return Ok(Answered::Typed),
            Err(error) if error.code == Code::FactorRefused => {
                errln!("ksb: {}: {}", sign_in.cloud, error.detail);
            }
            Err(error) => return Err(error),
        }
    }
}

/// A line with something in it.
async fn typed(keys: &mut Keys, question: &str) -> Secret {
    loop {
        let line = keys.line(question).await;
        if !line.expose().trim().is_empty() {
            return line;
        }
    }
}
