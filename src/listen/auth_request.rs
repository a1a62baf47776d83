//! `POST /v3/auth/tokens` as tools send it: application credential, password or token, each with any scope
//! (Identity API v3, "Authentication and token management"). Members that are not known are ignored, as Keystone does.

use serde::Deserialize;

use crate::model::{Scope, Secret};

/// What a tool shows, and what it wants.
pub struct AuthRequest {
    /// Who it says it is.
    pub proof: Proof,
    /// What the token is to be for; what the lease is for when absent.
    pub scope: Option<Scope>,
}

/// What a tool shows.
pub enum Proof {
    /// A lease's id (or name) and secret.
    Secret(String, Secret),
    /// A lease's handle, or a token that was made for it.
    Token(Secret),
}

/// Why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is not an authentication request. The reason quotes no value.
    Malformed(String),
    /// It uses methods that the facade does not have.
    Method(String),
}

#[derive(Deserialize)]
struct Document {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    identity: Identity,
    scope: Option<Scope>,
}

#[derive(Deserialize)]
struct Identity {
    methods: Vec<String>,
    application_credential: Option<Credential>,
    password: Option<Password>,
    token: Option<Token>,
}

#[derive(Deserialize)]
struct Credential {
    id: Option<String>,
    name: Option<String>,
    secret: Secret,
}

#[derive(Deserialize)]
struct Password {
    user: User,
}

#[derive(Deserialize)]
struct User {
    id: Option<String>,
    name: Option<String>,
    password: Secret,
}

#[derive(Deserialize)]
struct Token {
    id: Secret,
}

impl AuthRequest {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, Unfit> {
        let Document { auth } = serde_json::from_slice(body).map_err(|error| {
            // serde_json may quote what it found in the place of something else, and that may be a secret.
            let place = format!("line {} column {}", error.line(), error.column());
            Unfit::Malformed(format!("the body is not an authentication request ({place})"))
        })?;
        let Identity { methods, application_credential, password, token } = auth.identity;
        let proof = match &methods.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["application_credential"] => application_credential
                .and_then(|shown| Some(Proof::Secret(shown.id.or(shown.name)?, shown.secret))),
            ["password"] => password
                .and_then(|Password { user }| Some(Proof::Secret(user.id.or(user.name)?, user.password))),
            ["token"] => token.map(|token| Proof::Token(token.id)),
            others => return Err(Unfit::Method(others.join(", "))),
        };
        let proof = proof.ok_or_else(|| {
            Unfit::Malformed(format!("what the method {} needs is missing", methods.join(", ")))
        })?;
        Ok(Self { proof, scope: auth.scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DomainRef, ProjectRef};

    fn read(identity: &str, scope: &str) -> Result<AuthRequest, Unfit> {
        AuthRequest::read(format!(r#"{{"auth": {{"identity": {identity}{scope}}}, "extra": 1}}"#).as_bytes())
    }

    fn shown(identity: &str) -> (String, String) {
        match read(identity, "").ok().unwrap().proof {
            Proof::Secret(id, secret) => (id, secret.expose().to_owned()),
            Proof::Token(token) => (String::new(), token.expose().to_owned()),
        }
    }

    #[test]
    fn every_shape_that_clients_send_is_read() {
        // Bodies as gophercloud, keystoneauth and rclone send them (see docs/terraform-and-other-tools.md).
        let credential = r#"{"methods": ["application_credential"], "application_credential": "#;
        assert_eq!(
            shown(&format!(r#"{credential}{{"id": "i", "secret": "s"}}}}"#)),
            ("i".into(), "s".into())
        );
        let with_user = format!(r#"{credential}{{"id": "i", "secret": "s", "user": {{}}}}}}"#);
        assert_eq!(shown(&with_user), ("i".into(), "s".into()));
        let by_name = format!(
            r#"{credential}{{"name": "n", "secret": "s", "user": {{"name": "u", "domain": {{"id": "default"}}}}}}}}"#
        );
        assert_eq!(shown(&by_name), ("n".into(), "s".into()));
        let password = r#"{"methods": ["password"], "password": {"user": {"name": "n", "password": "p", "domain": {"name": "Default"}}}}"#;
        assert_eq!(shown(password), ("n".into(), "p".into()));
        assert_eq!(shown(r#"{"methods": ["token"], "token": {"id": "t"}}"#), (String::new(), "t".into()));
    }

    #[test]
    fn every_scope_is_read() {
        let token = r#"{"methods": ["token"], "token": {"id": "t"}}"#;
        let scope = |scope: &str| read(token, &format!(r#", "scope": {scope}"#)).ok().unwrap().scope.unwrap();
        assert_eq!(scope(r#""unscoped""#), Scope::Unscoped);
        assert_eq!(scope(r#"{"system": {"all": true}}"#), Scope::System { all: true });
        assert_eq!(scope(r#"{"OS-TRUST:trust": {"id": "x"}}"#), Scope::Trust { id: "x".into() });
        let domain = DomainRef { id: Some("d".into()), name: None };
        assert_eq!(scope(r#"{"domain": {"id": "d"}}"#), Scope::Domain(domain.clone()));
        let project = ProjectRef { id: None, name: Some("p".into()), domain: Some(domain) };
        assert_eq!(scope(r#"{"project": {"name": "p", "domain": {"id": "d"}}}"#), Scope::Project(project));
        assert!(read(token, "").ok().unwrap().scope.is_none());
    }

    #[test]
    fn what_is_refused_is_not_quoted() {
        let wrong = [
            r#"{"methods": ["totp"], "totp": {"user": {"id": "u", "passcode": "hush"}}}"#,
            r#"{"methods": ["password", "totp"], "password": {"user": {"id": "u", "password": "hush"}}}"#,
            r#"{"methods": [], "token": {"id": "hush"}}"#,
            r#"{"methods": ["token"], "token": "hush"}"#,
            r#"{"methods": ["token"], "password": {"user": {"id": "u", "password": "hush"}}}"#,
            r#""hush""#,
        ];
        for identity in wrong {
            let why = read(identity, "").err().unwrap();
            assert!(!format!("{why:?}").contains("hush"), "{why:?}");
        }
        assert!(matches!(AuthRequest::read(b"hush"), Err(Unfit::Malformed(_))));
    }
}
