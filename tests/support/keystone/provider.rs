//! The identity provider's OpenID Connect side, at `/idp`: code flow with PKCE, rotating refresh tokens, RFC 9207's `iss`.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use super::identity::{Answer, Ask, digest};

/// The public client that it knows.
const CLIENT: &str = "cli";

/// Where the provider departs from the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// The ID token has another nonce.
    Nonce,
    /// The ID token is for another client.
    Audience,
    /// The ID token has ended long ago.
    Ended,
    /// The ID token is signed by somebody else.
    Key,
    /// The ID token belongs to another access token.
    Hash,
    /// There is no ID token.
    None,
    /// The browser brings another `state`.
    State,
    /// The browser says that another provider sends it.
    Issuer,
    /// The browser does not say who sends it.
    NoIssuer,
    /// The user said no.
    Denied,
}

/// The provider's database.
pub struct Provider {
    issuer: String,
    key: EcdsaKeyPair,
    strangers_key: EcdsaKeyPair,
    pub lie: Option<Lie>,
    codes: HashMap<String, Grant>,
    /// Refresh tokens that count once more.
    refresh: HashMap<String, Grant>,
    /// Those that were used already.
    used: Vec<String>,
    /// Users by access token.
    access: HashMap<String, String>,
    devices: HashMap<String, Device>,
    /// Somebody used a refresh token twice.
    pub reused: bool,
    made: usize,
}

/// A device authorization (RFC 8628).
struct Device {
    challenge: String,
    /// The error of the next answer; nothing where the user has approved.
    says: Option<&'static str>,
    user: String,
}

#[derive(Clone)]
struct Grant {
    user: String,
    auth_time: Timestamp,
    nonce: String,
    challenge: String,
    redirect_uri: String,
}

impl Provider {
    pub fn new(base: &str) -> Self {
        let random = SystemRandom::new();
        let key = || {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap()
        };
        Self {
            issuer: format!("{base}/idp"),
            key: key(),
            strangers_key: key(),
            lie: None,
            codes: HashMap::new(),
            refresh: HashMap::new(),
            used: Vec::new(),
            access: HashMap::new(),
            devices: HashMap::new(),
            reused: false,
            made: 0,
        }
    }

    /// The user whose access token it is.
    pub fn user_of(&self, access_token: &str) -> Option<&str> {
        self.access.get(access_token).map(String::as_str)
    }

    /// An access token without any flow.
    pub fn bearer(&mut self, user: &str) -> String {
        let token = self.secret("access");
        self.access.insert(token.clone(), user.into());
        token
    }

    /// Ends every grant, as an operator would.
    pub fn end_all(&mut self) {
        self.refresh.clear();
    }

    /// Refresh tokens that would be honoured.
    pub fn living(&self) -> usize {
        self.refresh.len()
    }

    /// The refresh token that would be honoured, where there is one.
    pub fn refresh_token(&self) -> &str {
        let mut living = self.refresh.keys();
        let (only, None) = (living.next().unwrap(), living.next()) else { panic!("there are several") };
        only
    }

    /// Whatever must not be seen: codes and tokens.
    pub fn secrets(&self) -> Vec<String> {
        let codes = self.codes.keys().chain(self.refresh.keys()).chain(self.access.keys());
        codes.chain(&self.used).cloned().collect()
    }

    /// What the user answers on the other device: nothing is yes, as this user.
    pub fn decide(&mut self, says: Option<&'static str>, user: &str) {
        for device in self.devices.values_mut() {
            (device.says, device.user) = (says, user.into());
        }
    }

    /// From now on every grant is this user's.
    pub fn hand_over_to(&mut self, user: &str) {
        for grant in self.refresh.values_mut() {
            grant.user = user.into();
        }
    }

    /// `user` is whom the browser's cookie names.
    pub fn answer(&mut self, now: Timestamp, ask: &Ask, user: Option<&str>, path: &[&str]) -> Answer {
        match (ask.method.as_str(), path) {
            ("GET", [".well-known", "openid-configuration"]) => Answer::json(200, &self.metadata()),
            ("GET", ["certs"]) => Answer::json(200, &json!({"keys": [self.public()]})),
            ("GET", ["authorize"]) if user.is_none() => {
                let back = format!("{}/authorize?{}", self.issuer, ask.query);
                let back: String = form_urlencoded::byte_serialize(back.as_bytes()).collect();
                let login = format!("{}/login?next={back}", self.issuer);
                Answer::plain(302, String::new()).with("Location", login)
            }
            ("GET", ["authorize"]) => self.authorize(now, ask, user.unwrap_or_default()),
            ("POST", ["device"]) => {
                let asked = form(ask);
                assert_eq!((&*asked["client_id"], &*asked["code_challenge_method"]), (CLIENT, "S256"));
                let code = self.secret("device");
                let challenge = asked["code_challenge"].clone();
                let device = Device { challenge, says: Some("authorization_pending"), user: String::new() };
                self.devices.insert(code.clone(), device);
                let at = format!("{}/device", self.issuer);
                Answer::json(
                    200,
                    &json!({
                        "device_code": code, "user_code": "WDJB-MJHT", "verification_uri": at,
                        "verification_uri_complete": format!("{at}?user_code=WDJB-MJHT"),
                        "expires_in": 600, "interval": 5,
                    }),
                )
            }
            ("POST", ["token"]) if form(ask)["grant_type"] == "client_credentials" => {
                let basic = STANDARD.encode("ci:canary%3A+ci+secret");
                if ask.header("Authorization") != format!("Basic {basic}") {
                    let why = "Invalid client or Invalid client credentials";
                    return Answer::json(
                        401,
                        &json!({"error": "unauthorized_client", "error_description": why}),
                    );
                }
                let token = self.bearer("service-account-ci");
                Answer::json(200, &json!({"access_token": token, "token_type": "Bearer", "expires_in": 300}))
            }
            // Not the provider's, but GitHub's.
            ("GET", ["actions"]) => {
                let job = ask.header("Authorization") == "Bearer canary: of this job";
                assert_eq!(
                    (ask.parameter("api-version"), ask.parameter("audience")),
                    (Some("2.0".into()), Some("keystone".into()))
                );
                if !job {
                    return Answer::error(401, "not yours");
                }
                Answer::json(200, &json!({"count": 1, "value": self.bearer("alice")}))
            }
            ("POST", ["token"]) => self.token(now, &form(ask)),
            _ => Answer::error(404, "not here"),
        }
    }

    fn metadata(&self) -> Value {
        let at = |path: &str| format!("{}/{path}", self.issuer);
        json!({
            "issuer": self.issuer, "authorization_endpoint": at("authorize"), "token_endpoint": at("token"),
            "jwks_uri": at("certs"), "device_authorization_endpoint": at("device"), "response_types_supported": ["code"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
            "authorization_response_iss_parameter_supported": true, "code_challenge_methods_supported": ["S256"],
        })
    }

    fn public(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.key.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k",
               "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..])})
    }

    fn authorize(&mut self, now: Timestamp, ask: &Ask, user: &str) -> Answer {
        let asked = |name: &str| ask.parameter(name).unwrap_or_default();
        let redirect_uri = asked("redirect_uri");
        if asked("client_id") != CLIENT || !redirect_uri.starts_with("http://127.0.0.1:") {
            return Answer::plain(400, "<title>Invalid parameter: redirect_uri</title>".into());
        }
        assert_eq!((asked("response_type"), asked("code_challenge_method")), ("code".into(), "S256".into()));
        assert!(asked("scope").split(' ').any(|word| word == "openid"), "{}", asked("scope"));
        let mut back = url::Url::parse(&redirect_uri).unwrap();
        let state = if self.lie == Some(Lie::State) { "another".into() } else { asked("state") };
        back.query_pairs_mut().append_pair("state", &state);
        match self.lie {
            Some(Lie::Issuer) => {
                back.query_pairs_mut().append_pair("iss", "https://idp.example");
            }
            Some(Lie::NoIssuer) => {}
            _ => {
                back.query_pairs_mut().append_pair("iss", &self.issuer);
            }
        }
        if self.lie == Some(Lie::Denied) {
            back.query_pairs_mut()
                .append_pair("error", "access_denied")
                .append_pair("error_description", "The person said no");
        } else {
            let code = self.secret("code");
            let (nonce, challenge) = (asked("nonce"), asked("code_challenge"));
            self.codes.insert(
                code.clone(),
                Grant { user: user.into(), auth_time: now, nonce, challenge, redirect_uri },
            );
            back.query_pairs_mut().append_pair("code", &code);
        }
        Answer::plain(302, String::new()).with("Location", back.as_str())
    }

    fn token(&mut self, now: Timestamp, asked: &HashMap<String, String>) -> Answer {
        let of = |name: &str| asked.get(name).map_or("", String::as_str);
        let grant = match of("grant_type") {
            "authorization_code" => self.codes.remove(of("code")).filter(|grant| {
                let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(of("code_verifier")));
                challenge == grant.challenge && of("redirect_uri") == grant.redirect_uri
            }),
            "refresh_token" => {
                if self.used.iter().any(|used| used == of("refresh_token")) {
                    // Reuse means theft: nothing of this family counts any more (RFC 9700 section 4.14.2).
                    self.reused = true;
                    self.refresh.clear();
                }
                self.refresh
                    .remove(of("refresh_token"))
                    .inspect(|_| self.used.push(of("refresh_token").into()))
            }
            "urn:ietf:params:oauth:grant-type:device_code" => {
                let device = &self.devices[of("device_code")];
                assert_eq!(device.challenge, URL_SAFE_NO_PAD.encode(Sha256::digest(of("code_verifier"))));
                if let Some(error) = device.says {
                    return Answer::json(400, &json!({"error": error}));
                }
                let device = self.devices.remove(of("device_code")).unwrap();
                let (nonce, redirect_uri) = (String::new(), String::new());
                Some(Grant {
                    user: device.user,
                    auth_time: now,
                    nonce,
                    challenge: device.challenge,
                    redirect_uri,
                })
            }
            _ => None,
        };
        let Some(grant) = grant.filter(|_| of("client_id") == CLIENT) else {
            let error = json!({"error": "invalid_grant", "error_description": "not (any more)"});
            return Answer::json(400, &error);
        };
        let (access, refresh) = (self.secret("access"), self.secret("refresh"));
        let mut answer = json!({
            "access_token": access, "token_type": "Bearer", "expires_in": 300, "refresh_token": refresh,
            "scope": "openid profile",
        });
        if self.lie != Some(Lie::None) {
            answer["id_token"] = self.id_token(now, &grant, &access).into();
        }
        self.access.insert(access, grant.user.clone());
        self.refresh.insert(refresh, grant);
        Answer::json(200, &answer)
    }

    fn id_token(&self, now: Timestamp, grant: &Grant, access: &str) -> String {
        let lies = |lie: Lie| self.lie == Some(lie);
        let half = &Sha256::digest(if lies(Lie::Hash) { "another" } else { access })[..16];
        let age = if lies(Lie::Ended) { 7200 } else { 0 };
        let claims = json!({
            "iss": self.issuer, "sub": grant.user, "aud": if lies(Lie::Audience) { "another" } else { CLIENT },
            "iat": now.as_second() - age, "exp": now.as_second() - age + 300,
            "nonce": if lies(Lie::Nonce) { "another" } else { &grant.nonce },
            "at_hash": URL_SAFE_NO_PAD.encode(half), "acr": "2", "amr": ["pwd", "otp"],
            "auth_time": grant.auth_time.as_second(),
        });
        let head = json!({"alg": "ES256", "typ": "JWT", "kid": "k"});
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(head), part(claims));
        let key = if lies(Lie::Key) { &self.strangers_key } else { &self.key };
        let signature = key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn secret(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("canary-{kind}-{}", digest(&format!("{} {}", self.issuer, self.made)))
    }
}

fn form(ask: &Ask) -> HashMap<String, String> {
    form_urlencoded::parse(&ask.body).into_owned().collect()
}
