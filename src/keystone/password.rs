//! `POST /v3/auth/tokens` with the methods `password` and `totp`, and the receipts of multi-factor rules (Identity API v3,
//! "Multi-Factor Authentication").

use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::json;

use super::{Keystone, own_words, wire};
use crate::error::{Code, Result};
use crate::http_client::Answer;
use crate::model::{Factor, Secret, Token, UserRef};

const RECEIPT: &str = "openstack-auth-receipt";

/// What Keystone makes of a factor.
pub enum Proof {
    /// It is enough.
    Token(Box<Token>),
    /// It is good, and others are missing.
    More(Receipt),
    /// It is not good. Keystone's own words, where they say more than that.
    Refused(Option<String>),
    /// The receipt is over: everything has to be shown again.
    TooLate,
}

/// Keystone's word for the factors that were shown so far.
pub struct Receipt {
    id: Secret,
    /// By our clock.
    expires_at: Timestamp,
    /// Keystone's rules, each with what is still missing to it. One of them is to be met.
    pub missing: Vec<Vec<String>>,
}

impl Keystone {
    /// Shows one factor of a user, with the receipt for those before it. The token is not scoped, whatever the user's
    /// default project.
    pub async fn prove(
        &self,
        user: &UserRef,
        factor: Factor,
        secret: &Secret,
        receipt: Option<&Receipt>,
    ) -> Result<Proof> {
        if receipt.is_some_and(|receipt| receipt.expires_at <= self.clock.now()) {
            return Ok(Proof::TooLate);
        }
        let key = if factor == Factor::Totp { "passcode" } else { "password" };
        let mut who = json!(user);
        who[key] = secret.expose().into();
        let method = factor.name();
        let body = json!({"auth": {
            "identity": {"methods": [method], method: {"user": who}},
            "scope": "unscoped",
        }});
        let mut request =
            self.request(Method::POST, "/auth/tokens").header("Content-Type", "application/json");
        if let Some(mut id) = receipt.and_then(|receipt| HeaderValue::from_str(receipt.id.expose()).ok()) {
            id.set_sensitive(true);
            request = request.header(RECEIPT, id);
        }
        let answer = self.send(request.body(body.to_string())).await?;
        match answer.status {
            201 => {
                let id = self.subject(&answer)?;
                Ok(Proof::Token(Box::new(self.token(id, answer)?)))
            }
            401 if answer.header(RECEIPT).is_some() || own_words(&answer).is_some() => {
                self.unproven(&answer, receipt)
            }
            _ => Err(self.refusal(&answer, Code::KeystoneError)),
        }
    }

    fn unproven(&self, answer: &Answer, receipt: Option<&Receipt>) -> Result<Proof> {
        if let Some(id) = answer.header(RECEIPT) {
            let receipt = serde_json::from_str::<wire::ReceiptDocument>(&answer.body)
                .map_err(|error| self.error(Code::NotKeystone, format!("the receipt is not one: {error}")))?;
            return Ok(Proof::More(receipt.read(Secret::new(id), self.clock.now())));
        }
        let said = own_words(answer).unwrap_or_default();
        // It repeats the receipt that it does not know (any more), which is nobody's business.
        if receipt.is_some_and(|receipt| said.contains(receipt.id.expose())) {
            return Ok(Proof::TooLate);
        }
        // What it says to everything is no news; of a locked account or an expired password it tells.
        let news = !said.is_empty() && !said.starts_with("The request you have made requires authentication");
        Ok(Proof::Refused(news.then(|| said.trim().trim_end_matches('.').to_owned())))
    }
}

impl wire::ReceiptDocument {
    fn read(self, id: Secret, now: Timestamp) -> Receipt {
        let Self { receipt, required_auth_methods } = self;
        let missing = required_auth_methods
            .into_iter()
            .map(|rule| rule.into_iter().filter(|method| !receipt.methods.contains(method)).collect())
            .collect();
        // Its life is Keystone's word, its beginning was just now: so no clock but ours counts.
        let expires_at = now + receipt.expires_at.0.duration_since(receipt.issued_at.0);
        Receipt { id, expires_at, missing }
    }
}
