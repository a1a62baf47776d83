//! What Keystone knows and answers: JSON written by hand after a real Keystone 30, never with the
//! crate's own types.

use std::collections::{BTreeSet, HashMap};

use hyper::HeaderMap;
use hyper::body::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use super::credentials::Credentials;
use super::factors::Factors;
use super::provider::Provider;

/// The people, and the projects that they see at `lab-idp`.
const PEOPLE: [(&str, &[&str]); 7] = [
    ("alice", &["demo", "staging", "production"]),
    ("bob", &["demo", "solo"]),
    ("mallory", &["demo"]),
    ("user0", &["demo", "staging", "production"]),
    ("user1", &["demo", "staging", "production"]),
    (super::factors::USER, &["demo"]),
    ("service-account-ci", &["demo"]),
];
/// Identity providers and the domain that their users are in.
const PROVIDERS: [(&str, &str); 3] = [("lab-idp", "lab"), ("other-idp", "other"), ("local-idp", "Default")];
const PROTOCOLS: [&str; 2] = ["openid", "saml2"];
/// The provider whose mapping is of type `local`: its users are Keystone's own.
const LOCAL: &str = "local-idp";

/// Keystone's database and configuration.
pub struct Identity {
    base: String,
    pub trusted_dashboard: BTreeSet<String>,
    pub lifetime: SignedDuration,
    /// Projects by the groups that a user has at the identity provider by now.
    pub groups: HashMap<String, Vec<&'static str>>,
    pub domain_admins: BTreeSet<String>,
    pub provider: Provider,
    pub factors: Factors,
    pub credentials: Credentials,
    tokens: HashMap<String, Token>,
    requests: u64,
}

#[derive(Clone)]
pub struct Token {
    pub user: String,
    pub idp: String,
    pub protocol: String,
    pub rescoped: bool,
    pub scope: Scope,
    pub signed_in_at: Timestamp,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    pub audit_id: String,
    pub revoked: bool,
    /// The application credential that it was made from.
    pub credential: Option<String>,
    /// Projects that the groups of the sign-in lead to.
    pub by_groups: Vec<&'static str>,
}

#[derive(Clone)]
pub enum Scope {
    None,
    Project(String),
    Domain,
}

/// A request, read.
pub struct Ask {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An answer without its `Date`.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Answer {
    pub fn json(status: u16, value: &Value) -> Self {
        Self::plain(status, python(value))
    }

    /// Any text, as JSON or HTML.
    pub fn plain(status: u16, body: String) -> Self {
        let kind = if body.starts_with('<') { "text/html; charset=utf-8" } else { "application/json" };
        Self { status, headers: vec![("Content-Type", kind.into())], body }
    }

    /// Keystone's error document.
    pub fn error(status: u16, message: &str) -> Self {
        let title = match status {
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            _ => "Internal Server Error",
        };
        let error = json!({"error": {"code": status, "message": message, "title": title}});
        Self::plain(status, format!("{error}\n"))
    }

    pub fn unauthorized() -> Self {
        Self::error(401, "The request you have made requires authentication.")
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Ask {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Whom the identity provider's cookie names.
    fn user(&self) -> Option<&str> {
        self.header("Cookie").split("; ").find_map(|cookie| cookie.strip_prefix("sso="))
    }

    /// A parameter of the query, decoded once.
    pub fn parameter(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.query.as_bytes())
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
    }
}

impl Identity {
    pub fn new(base: String) -> Self {
        Self {
            groups: HashMap::new(),
            provider: Provider::new(&base),
            factors: Factors::new(),
            credentials: Credentials::default(),
            base,
            trusted_dashboard: BTreeSet::new(),
            lifetime: SignedDuration::from_hours(1),
            domain_admins: BTreeSet::new(),
            tokens: HashMap::new(),
            requests: 0,
        }
    }

    /// Keystone's answer to a request, with the headers that all of them have.
    pub fn answer(&mut self, now: Timestamp, ask: &Ask) -> Answer {
        self.requests += 1;
        let id = format!("req-{:08x}-7ead-4222-8111-6b6579736e65", self.requests);
        // The same Keystone is also there below a path.
        let (prefix, path) = match ask.path.strip_prefix("/identity") {
            Some(path) => ("/identity", path),
            None => ("", ask.path.as_str()),
        };
        let root = format!("{}{prefix}", self.base);
        let mut answer = self.route(now, ask, &root, path);
        if answer.status == 401 {
            answer = answer.with("WWW-Authenticate", format!("Keystone uri=\"{root}/v3\""));
        }
        answer
            .with("Vary", "X-Auth-Token")
            .with("Referrer-Policy", "no-referrer")
            .with("x-openstack-request-id", id)
    }

    fn route(&mut self, now: Timestamp, ask: &Ask, root: &str, path: &str) -> Answer {
        let parts: Vec<_> = path.split('/').skip(1).filter(|part| !part.is_empty()).collect();
        match (ask.method.as_str(), parts.as_slice()) {
            ("GET", []) => {
                let versions = json!({"versions": {"values": [version(root)]}});
                Answer::json(300, &versions).with("Location", format!("{root}/v3/"))
            }
            ("GET", ["v3"]) => Answer::json(200, &json!({"version": version(root)})),
            (_, ["v3", "auth", "OS-FEDERATION", rest @ ..]) => self.websso(now, ask, root, rest),
            ("GET" | "POST", ["idp", "login"]) => login(ask),
            (_, ["idp", rest @ ..]) => self.provider.answer(now, ask, ask.user(), rest),
            (_, ["v3", "OS-FEDERATION", "identity_providers", idp, "protocols", protocol, "auth"]) => {
                let bearer = ask.header("Authorization").strip_prefix("Bearer ").unwrap_or_default();
                // Apache's word, where the token is not one of the provider's.
                let Some(user) = self.provider.user_of(bearer).map(str::to_owned) else {
                    return Answer::plain(401, "<title>401 Unauthorized</title>".into());
                };
                match self.sign_in(now, &user, idp, protocol) {
                    Ok(id) => Answer::plain(201, self.body_of(&id)).with("X-Subject-Token", id),
                    Err(refusal) => refusal,
                }
            }
            ("POST", ["v3", "auth", "tokens"]) => self.exchange(now, ask),
            (_, ["v3", "users" | "credentials", ..]) => self.users(now, ask, &parts[1..]),
            (method, ["v3", "auth", rest @ ..]) => {
                let asker = ask.header("X-Auth-Token");
                if !self.is_valid(now, asker) {
                    return Answer::unauthorized();
                }
                let user = self.tokens[asker].user.clone();
                match (method, rest) {
                    (_, ["tokens"]) => self.token(now, method, ask.header("X-Subject-Token")),
                    ("GET", ["projects"]) => {
                        let idp = &self.tokens[asker].idp;
                        let projects: Vec<_> =
                            projects_of(&user, idp).iter().map(|name| project(name)).collect();
                        Answer::json(200, &json!({"projects": projects, "links": {"next": null}}))
                    }
                    ("GET", ["domains"]) => {
                        let domains =
                            if self.domain_admins.contains(&user) { vec![domain("lab")] } else { vec![] };
                        Answer::json(200, &json!({"domains": domains, "links": {"next": null}}))
                    }
                    _ => not_found(),
                }
            }
            _ => not_found(),
        }
    }

    /// Apache sends those away whom the identity provider has not vouched for; then Keystone looks at
    /// the origin and answers with the form that posts the token there.
    fn websso(&mut self, now: Timestamp, ask: &Ask, root: &str, rest: &[&str]) -> Answer {
        let (idp, protocol) = match *rest {
            ["identity_providers", idp, "protocols", protocol, "websso"] => (idp, protocol),
            ["websso", protocol] => ("lab-idp", protocol),
            _ => return not_found(),
        };
        let Some(user) = ask.user() else {
            let back = format!("{}{}?{}", self.base, ask.path, ask.query);
            let back: String = form_urlencoded::byte_serialize(back.as_bytes()).collect();
            return Answer::plain(302, String::new())
                .with("Location", format!("{root}/idp/login?next={back}"));
        };
        let Some(origin) = ask.parameter("origin") else {
            return Answer::error(400, "Request must have an origin query parameter");
        };
        if !self.trusted_dashboard.contains(&origin) {
            return Answer::unauthorized();
        }
        match self.sign_in(now, user, idp, protocol) {
            Ok(token) => Answer::plain(200, form(&origin, &token)),
            Err(refusal) => refusal,
        }
    }

    /// A new federated token, if the identity provider is known and its mapping has a rule for the user.
    pub fn sign_in(
        &mut self,
        now: Timestamp,
        user: &str,
        idp: &str,
        protocol: &str,
    ) -> Result<String, Answer> {
        if !PROVIDERS.iter().any(|(known, _)| *known == idp) {
            return Err(Answer::error(404, &format!("Could not find identity provider: {idp}.")));
        }
        if !PROTOCOLS.contains(&protocol) {
            return Err(Answer::error(404, &format!("Could not find federated protocol {protocol}.")));
        }
        if projects_of(user, idp).is_empty() {
            return Err(Answer::unauthorized());
        }
        let issued_at = whole_second(now);
        Ok(self.add(Token {
            user: user.into(),
            idp: idp.into(),
            protocol: protocol.into(),
            rescoped: false,
            scope: Scope::None,
            signed_in_at: now,
            issued_at,
            expires_at: issued_at + self.lifetime,
            audit_id: String::new(),
            revoked: false,
            credential: None,
            by_groups: self.groups.get(user).cloned().unwrap_or_default(),
        }))
    }

    fn exchange(&mut self, now: Timestamp, ask: &Ask) -> Answer {
        let Ok(body) = serde_json::from_slice::<Value>(&ask.body) else {
            return Answer::error(400, "Expecting to find valid JSON in request body.");
        };
        let identity = &body["auth"]["identity"];
        if identity["methods"] == json!(["application_credential"]) {
            return self.by_credential(now, &identity["application_credential"]);
        }
        if identity["methods"] != json!(["token"]) {
            let proven = self.factors.prove(now, identity, ask.header("Openstack-Auth-Receipt"));
            return match proven.and_then(|user| self.sign_in(now, &user, LOCAL, "openid")) {
                Ok(id) => Answer::plain(201, self.body_of(&id)).with("X-Subject-Token", id),
                Err(refusal) => refusal,
            };
        }
        let from = body.pointer("/auth/identity/token/id").and_then(Value::as_str).unwrap_or_default();
        match self.rescope(now, from, &body["auth"]["scope"]) {
            Ok((id, body)) => Answer::json(201, &body).with("X-Subject-Token", id),
            Err(refusal) => refusal,
        }
    }

    /// A token made from another one; its life is not extended.
    pub fn rescope(&mut self, now: Timestamp, from: &str, scope: &Value) -> Result<(String, Value), Answer> {
        match self.tokens.get(from) {
            None => return Err(Answer::unauthorized()),
            Some(token) if token.revoked => return Err(Answer::error(404, "Failed to validate token")),
            Some(token) if token.expires_at <= now => return Err(Answer::unauthorized()),
            Some(_) => {}
        }
        let parent = self.tokens[from].clone();
        if parent.credential.is_some() {
            return Err(Answer::error(403, "Application credential tokens cannot be rescoped."));
        }
        let scope = self.scope(&parent, scope)?;
        let issued_at = whole_second(now);
        let id = self.add(Token { rescoped: true, scope, issued_at, ..parent });
        let body = json!({"token": self.document(&id)});
        Ok((id, body))
    }

    fn scope(&self, from: &Token, asked: &Value) -> Result<Scope, Answer> {
        if asked == "unscoped" {
            return Ok(Scope::None);
        }
        if asked.get("system").is_some() {
            // Keystone 30 dies of it, and Apache says so.
            return Err(match from.idp.as_str() {
                LOCAL => Answer::unauthorized(),
                _ => Answer::plain(502, "<html><head><title>502 Proxy Error</title></head></html>".into()),
            });
        }
        let named = |thing: &Value, name: &str| {
            thing["id"] == domain_id(name) || thing["name"].as_str().is_some_and(|given| given == name)
        };
        if let Some(project) = asked.get("project") {
            if project.get("id").is_none() && project.get("domain").is_none() {
                return Err(Answer::error(400, "Expecting to find domain in project."));
            }
            let mut seen = projects_of(&from.user, &from.idp).iter().chain(&from.by_groups);
            let found = seen.find(|name| {
                project["id"] == project_id(name)
                    || (project["name"] == **name && named(&project["domain"], "lab"))
            });
            return found.map(|name| Scope::Project((*name).into())).ok_or_else(Answer::unauthorized);
        }
        if asked.get("domain").is_some_and(|domain| named(domain, "lab"))
            && self.domain_admins.contains(&from.user)
        {
            return Ok(Scope::Domain);
        }
        Err(Answer::unauthorized())
    }

    /// `GET`, `HEAD` and `DELETE` of another token, by somebody with a good one.
    fn token(&mut self, now: Timestamp, method: &str, subject: &str) -> Answer {
        if !self.is_valid(now, subject) {
            return Answer::error(404, "Could not recognize Fernet token");
        }
        match method {
            "DELETE" => {
                self.revoke(subject);
                Answer { status: 204, headers: vec![], body: String::new() }
            }
            "HEAD" => Answer::plain(200, String::new()).with("X-Subject-Token", subject),
            _ => Answer::plain(200, self.body_of(subject)).with("X-Subject-Token", subject),
        }
    }

    pub fn is_valid(&self, now: Timestamp, id: &str) -> bool {
        let by_living =
            |token: &Token| token.credential.as_ref().is_none_or(|id| self.credentials.is_there(id));
        self.tokens.get(id).is_some_and(|token| !token.revoked && token.expires_at > now && by_living(token))
    }

    pub fn token_of(&self, id: &str) -> &Token {
        &self.tokens[id]
    }

    /// When the owner of a token last signed in.
    pub fn latest_sign_in(&self, token: &Token) -> Timestamp {
        let own = self.tokens.values().filter(|other| user_id(other) == user_id(token));
        own.map(|other| other.signed_in_at).max().unwrap_or(token.signed_in_at)
    }

    /// Whether there was such a token. Those made from it live on, as in Keystone.
    pub fn revoke(&mut self, id: &str) -> bool {
        self.tokens.get_mut(id).map(|token| token.revoked = true).is_some()
    }

    pub fn body_of(&self, id: &str) -> String {
        python(&json!({"token": self.document(id)}))
    }

    pub fn all_tokens(&self) -> Vec<String> {
        self.tokens.keys().cloned().collect()
    }

    pub fn add(&mut self, token: Token) -> String {
        let number = self.tokens.len();
        let secret = digest(&format!("{} token {number}", self.base));
        let id = format!("gAAAAABcanary_{secret}-{}", digest(&secret));
        self.tokens.insert(id.clone(), Token { audit_id: format!("{:.22}", digest(&id)), ..token });
        id
    }

    fn document(&self, id: &str) -> Value {
        let token = &self.tokens[id];
        let methods = if token.rescoped { vec!["token", &token.protocol] } else { vec![&*token.protocol] };
        let mut document = json!({
            "methods": methods,
            "user": user(token),
            "audit_ids": [token.audit_id],
            "expires_at": format!("{:.6}", token.expires_at),
            "issued_at": format!("{:.6}", token.issued_at),
        });
        let more = match &token.scope {
            Scope::None => json!({}),
            Scope::Project(name) => json!({
                "project": {"domain": domain_ref("lab"), "id": project_id(name), "name": name}, "is_domain": false,
            }),
            Scope::Domain => json!({"domain": domain_ref("lab")}),
        };
        if let (Some(document), Value::Object(more)) = (document.as_object_mut(), more) {
            let scoped = !more.is_empty();
            document.extend(more);
            if scoped {
                document.insert("roles".into(), json!([{"id": digest32("member"), "name": "member"}]));
                document.insert("catalog".into(), catalog(&self.base));
            }
        }
        document
    }
}

fn version(root: &str) -> Value {
    json!({
        "id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{root}/v3/")}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    })
}

fn catalog(base: &str) -> Value {
    let endpoint = json!({
        "id": digest32("endpoint"), "interface": "public", "region_id": "RegionOne",
        "url": format!("{base}/v3"), "region": "RegionOne",
    });
    let store = json!({
        "id": digest32("store"), "interface": "public", "region_id": "RegionOne",
        "url": format!("{base}/v1/AUTH_demo"), "region": "RegionOne",
    });
    json!([
        {"endpoints": [endpoint], "id": digest32("service"), "type": "identity", "name": "keystone"},
        {"endpoints": [store], "id": digest32("swift"), "type": "object-store", "name": "swift"},
    ])
}

pub fn user_id(token: &Token) -> String {
    let id = digest(&format!("{} {}", token.user, token.idp));
    if token.idp == LOCAL { id[..32].to_owned() } else { id }
}

fn user(token: &Token) -> Value {
    let domain = PROVIDERS.iter().find(|(idp, _)| *idp == token.idp).map_or("", |(_, domain)| domain);
    let id = user_id(token);
    if token.idp == LOCAL {
        return json!({
            "domain": domain_ref(domain), "id": id, "name": token.user, "password_expires_at": null,
        });
    }
    json!({"domain": domain_ref(domain), "id": id, "name": token.user, "OS-FEDERATION": {
        "groups": [{"id": digest32("group")}],
        "identity_provider": {"id": token.idp}, "protocol": {"id": token.protocol},
    }})
}

fn projects_of(user: &str, idp: &str) -> &'static [&'static str] {
    let own = PEOPLE.iter().find(|(name, _)| *name == user).map_or(&[][..], |(_, projects)| projects);
    if idp == "lab-idp" || own.is_empty() { own } else { &["demo"] }
}

fn project(name: &str) -> Value {
    json!({
        "id": project_id(name), "name": name, "domain_id": domain_id("lab"), "description": "", "enabled": true,
        "parent_id": domain_id("lab"), "is_domain": false, "tags": [], "options": {},
    })
}

fn domain(name: &str) -> Value {
    json!({"id": domain_id(name), "name": name, "description": "", "enabled": true, "tags": [], "options": {}})
}

fn domain_ref(name: &str) -> Value {
    json!({"id": domain_id(name), "name": name})
}

fn project_id(name: &str) -> String {
    digest32(&format!("project {name}"))
}

fn domain_id(name: &str) -> String {
    if name == "Default" { "default".into() } else { digest32(&format!("domain {name}")) }
}

pub fn digest(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

pub fn digest32(text: &str) -> String {
    digest(text)[..32].into()
}

pub fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap()
}

fn not_found() -> Answer {
    Answer::plain(404, "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n".into())
}

/// Keystone's `sso_callback_template.html`.
fn form(host: &str, token: &str) -> String {
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>Keystone WebSSO redirect</title>
  </head>
  <body>
     <form id="sso" name="sso" action="{host}" method="post">
       Please wait...
       <br>
       <input type="hidden" name="token" id="token" value="{token}">
     </form>
     <script>
       window.onload = function() {{
         document.forms['sso'].submit();
       }}
     </script>
  </body>
</html>"#
    )
}

/// The identity provider: asks who is there, remembers it in a cookie and sends the browser back.
fn login(ask: &Ask) -> Answer {
    let next = ask.parameter("next").unwrap_or_default();
    let named = form_urlencoded::parse(&ask.body).find(|(name, _)| name == "username");
    match named {
        Some((_, user)) => Answer::plain(302, String::new())
            .with("Location", next)
            .with("Set-Cookie", format!("sso={user}; Path=/; HttpOnly")),
        None => Answer::plain(
            200,
            "<!DOCTYPE html><title>Lab IdP</title><form method=post><input name=username>".into(),
        ),
    }
}

/// JSON as Python's `json.dumps` writes it, which nobody else does: whoever passes it on changed or
/// kept it byte for byte.
fn python(value: &Value) -> String {
    struct Spaced;
    impl serde_json::ser::Formatter for Spaced {
        fn begin_array_value<W: ?Sized + std::io::Write>(
            &mut self,
            out: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            if first { Ok(()) } else { out.write_all(b", ") }
        }
        fn begin_object_key<W: ?Sized + std::io::Write>(
            &mut self,
            out: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            if first { Ok(()) } else { out.write_all(b", ") }
        }
        fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
            out.write_all(b": ")
        }
    }
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
    serde::Serialize::serialize(value, &mut serializer).unwrap();
    String::from_utf8(bytes).unwrap()
}
