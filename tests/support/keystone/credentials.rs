//! Application credentials and EC2 credentials, as Keystone 30 was seen to make, refuse and delete them for a federated
//! user (`tests/stack/README.md`).

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::identity::{Answer, Ask, Identity, Scope, Token, digest, digest32, user_id, whole_second};

/// What the cloud thinks of its users' credentials.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    #[default]
    Allowed,
    /// The operator's policy.
    Forbidden,
    /// As before the fix of CVE-2026-90460: any token of a user reads and makes EC2 credentials.
    Unfixed,
    /// The identity provider has no `authorization_ttl`: the roles are nobody's own.
    NoLifetime,
}

/// Everything that users have made.
#[derive(Default)]
pub struct Credentials {
    pub policy: Policy,
    /// How long a sign-in's membership of its groups lasts.
    pub membership: Option<SignedDuration>,
    all: Vec<Credential>,
    ec2: Vec<(String, String, String)>,
}

struct Credential {
    id: String,
    name: String,
    owner: Token,
    secret: String,
    unrestricted: bool,
    expires_at: Timestamp,
}

impl Credentials {
    pub fn names(&self) -> Vec<String> {
        self.all.iter().map(|credential| credential.name.clone()).collect()
    }

    pub fn ec2(&self) -> Vec<String> {
        self.ec2.iter().map(|(id, ..)| id.clone()).collect()
    }

    fn find(&self, id: &str) -> Option<&Credential> {
        self.all.iter().find(|credential| credential.id == id)
    }

    /// Whether a token that was made from it is still good.
    pub fn is_there(&self, id: &str) -> bool {
        self.find(id).is_some()
    }

    fn is_restricted(&self, token: &Token) -> bool {
        token.credential.as_ref().and_then(|id| self.find(id)).is_some_and(|found| !found.unrestricted)
    }
}

impl Identity {
    /// Adds whatever users had at Keystone before.
    pub fn add_credential(&mut self, token: &str, name: &str, now: Timestamp) {
        let owner = self.token_of(token).clone();
        self.credentials.all.push(Credential {
            id: digest32(name),
            name: name.into(),
            owner,
            secret: "x".into(),
            unrestricted: true,
            expires_at: now + SignedDuration::from_hours(24),
        });
    }

    /// The owner of the token deletes all of theirs.
    pub fn delete_credentials(&mut self, token: &str) {
        let own = user_id(self.token_of(token));
        self.credentials.all.retain(|credential| user_id(&credential.owner) != own);
    }

    /// `/v3/users/{user}/…` and `/v3/credentials`, by somebody with a good token.
    pub fn users(&mut self, now: Timestamp, ask: &Ask, rest: &[&str]) -> Answer {
        let asker = ask.header("X-Auth-Token");
        if !self.is_valid(now, asker) {
            return Answer::unauthorized();
        }
        let token = self.token_of(asker).clone();
        let own = user_id(&token);
        let body: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
        match (ask.method.as_str(), rest) {
            (_, ["users", user, ..]) if *user != own => forbidden("identity:get_user"),
            ("GET", ["users", _, "groups"]) => {
                let ends = self.credentials.membership.map(|life| naive(token.signed_in_at + life));
                let group =
                    json!({"id": digest32("group"), "name": "lab-dev", "membership_expires_at": ends});
                Answer::json(200, &json!({"groups": [group], "links": {"next": null}}))
            }
            ("GET", ["users", _, "application_credentials"]) => {
                let all = self.credentials.all.iter().filter(|credential| user_id(&credential.owner) == own);
                let all: Vec<_> = all.map(|found| json!({"id": found.id, "name": found.name})).collect();
                Answer::json(200, &json!({"application_credentials": all, "links": {"next": null}}))
            }
            ("POST", ["users", _, "application_credentials"]) => {
                self.make(&token, &body["application_credential"])
            }
            ("DELETE", ["users", _, "application_credentials", id]) => {
                if self.credentials.is_restricted(&token) {
                    return forbidden("identity:delete_application_credential");
                }
                let before = self.credentials.all.len();
                self.credentials.all.retain(|credential| credential.id != *id);
                if self.credentials.all.len() == before {
                    return Answer::error(404, "Could not find application credential");
                }
                Answer { status: 204, headers: vec![], body: String::new() }
            }
            ("GET", ["users", _, "credentials", "OS-EC2"]) => match self.credentials.policy {
                Policy::Unfixed => Answer::json(200, &json!({"credentials": [], "links": {"next": null}})),
                _ => forbidden("identity:ec2_list_credentials"),
            },
            ("GET", ["credentials"]) => {
                let all = self.credentials.ec2.iter().filter(|(_, owner, _)| *owner == own);
                let all: Vec<_> =
                    all.map(|(id, _, blob)| json!({"id": id, "type": "ec2", "blob": blob})).collect();
                Answer::json(200, &json!({"credentials": all, "links": {"next": null}}))
            }
            ("POST", ["credentials"]) if self.credentials.is_restricted(&token) => {
                forbidden("identity:create_credential")
            }
            ("POST", ["credentials"]) => {
                let blob: Value = serde_json::from_str(body["credential"]["blob"].as_str().unwrap()).unwrap();
                let id = digest(blob["access"].as_str().unwrap());
                self.credentials.ec2.push((id.clone(), own, blob.to_string()));
                Answer::json(201, &json!({"credential": {"id": id, "type": "ec2"}}))
            }
            ("DELETE", ["credentials", id]) => {
                self.credentials.ec2.retain(|(known, ..)| known != id);
                Answer { status: 204, headers: vec![], body: String::new() }
            }
            _ => Answer::error(404, "Not found"),
        }
    }

    fn make(&mut self, token: &Token, asked: &Value) -> Answer {
        let Scope::Project(_) = &token.scope else {
            return Answer::error(400, "Expecting to find a project in the token's scope.");
        };
        if self.credentials.is_restricted(token) || self.credentials.policy == Policy::Forbidden {
            return forbidden("identity:create_application_credential");
        }
        if self.credentials.policy == Policy::NoLifetime {
            return Answer::error(
                400,
                "Invalid application credential: Could not find role assignment with role.",
            );
        }
        let name = asked["name"].as_str().unwrap().to_owned();
        let own = user_id(token);
        if self.credentials.all.iter().any(|known| known.name == name && user_id(&known.owner) == own) {
            return Answer::error(
                409,
                "Conflict occurred attempting to store application_credential - Duplicate entry.",
            );
        }
        let expires_at = format!("{}Z", asked["expires_at"].as_str().unwrap()).parse().unwrap();
        let id = digest32(&format!("{} {name}", asked["secret"]));
        self.credentials.all.push(Credential {
            id: id.clone(),
            name: name.clone(),
            owner: token.clone(),
            secret: asked["secret"].as_str().unwrap().into(),
            unrestricted: asked["unrestricted"].as_bool().unwrap(),
            expires_at,
        });
        Answer::json(201, &json!({"application_credential": {"id": id, "name": name}}))
    }

    /// `POST /v3/auth/tokens` with the method `application_credential`.
    pub fn by_credential(&mut self, now: Timestamp, shown: &Value) -> Answer {
        let found = self.credentials.all.iter().find(|known| {
            (shown["id"] == known.id
                || (shown["name"] == known.name && shown["user"]["id"] == user_id(&known.owner)))
                && shown["secret"] == known.secret
        });
        let asleep = |owner: &Token| {
            let latest = self.latest_sign_in(owner);
            self.credentials.membership.is_some_and(|life| latest + life <= now)
        };
        let found = found.filter(|known| known.expires_at > now && !asleep(&known.owner));
        let Some((id, owner)) = found.map(|known| (known.id.clone(), known.owner.clone())) else {
            return Answer::unauthorized();
        };
        let issued_at = whole_second(now);
        let token = self.add(Token {
            credential: Some(id),
            issued_at,
            expires_at: issued_at + self.lifetime,
            revoked: false,
            ..owner
        });
        Answer::plain(201, self.body_of(&token)).with("X-Subject-Token", token)
    }
}

fn forbidden(rule: &str) -> Answer {
    Answer::error(403, &format!("You are not authorized to perform the requested action: {rule}."))
}

/// As Keystone writes some times: nobody is told the zone.
fn naive(time: Timestamp) -> String {
    format!("{time:.6}").trim_end_matches('Z').to_owned()
}
