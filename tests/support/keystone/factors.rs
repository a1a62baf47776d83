//! A user of Keystone's own whose `multi_factor_auth_rules` ask for a password and a one-time code: receipts as a real
//! Keystone 30 gives them. It takes a code again for as long as it lives, as the real one was seen to.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::identity::{Answer, digest};

/// Who it is, in domain Default.
pub const USER: &str = "mfa0";
/// What the user knows.
pub const PASSWORD: &str = "canary correct horse";

const LIFE: SignedDuration = SignedDuration::from_mins(5);

pub struct Factors {
    /// The code that the user's telephone shows.
    pub code: String,
    /// What every user has to show.
    pub rule: Vec<&'static str>,
    /// What was shown, and when, by receipt.
    receipts: HashMap<String, (Vec<String>, Timestamp)>,
    /// Passwords and codes that came in, right or wrong.
    pub tried: Vec<(String, String)>,
}

impl Factors {
    pub fn new() -> Self {
        Self {
            code: "123456".into(),
            rule: vec!["password", "totp"],
            receipts: HashMap::new(),
            tried: Vec::new(),
        }
    }

    /// The user's name when that is enough, else Keystone's answer.
    pub fn prove(&mut self, now: Timestamp, identity: &Value, receipt: &str) -> Result<String, Answer> {
        let mut shown = Vec::new();
        for method in identity["methods"].as_array().unwrap() {
            let method = method.as_str().unwrap();
            let user = &identity[method]["user"];
            let (key, right) =
                if method == "totp" { ("passcode", self.code.as_str()) } else { ("password", PASSWORD) };
            let given = user[key].as_str().unwrap_or_default();
            self.tried.push((method.into(), given.into()));
            if user["name"] != USER || user["domain"]["name"] != "Default" || given != right {
                return Err(Answer::unauthorized());
            }
            shown.push(method.to_owned());
        }
        if !receipt.is_empty() {
            let known = self.receipts.get(receipt).filter(|(_, issued)| now.duration_since(*issued) < LIFE);
            let Some((before, _)) = known else {
                return Err(Answer::error(401, &format!("Could not find auth receipt: {receipt}.")));
            };
            shown.extend(before.iter().cloned());
        }
        if self.rule.iter().all(|method| shown.iter().any(|known| known == method)) {
            return Ok(USER.into());
        }
        let id = format!("canary-receipt-{}", digest(&format!("{} {now}", self.receipts.len())));
        let body = json!({
            "receipt": {
                "methods": shown,
                "user": {"id": digest(USER), "name": USER, "domain": {"id": "default", "name": "Default"}},
                "expires_at": format!("{:.6}", now + LIFE),
                "issued_at": format!("{now:.6}"),
            },
            "required_auth_methods": [self.rule],
        });
        self.receipts.insert(id.clone(), (shown, now));
        Err(Answer::json(401, &body).with("Openstack-Auth-Receipt", id))
    }
}
