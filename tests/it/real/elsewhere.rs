//! A user with a browser on another machine, who brings back the address at which it ended: no Chromium needed.

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::front::stack;
use crate::support::api::{Answer, Api};

/// The entry of an OAuth client at Keycloak, as the API takes it: Keystone behind this port, this identity provider.
pub fn cloud(port: &str, identity_provider: &str, client: &str) -> Value {
    let issuer = stack(if identity_provider == "rotating-idp" { "ROTATING_ISSUER" } else { "ISSUER" });
    json!({
        "name": "demo",
        "auth_url": format!("https://keystone.localhost:{port}/v3"),
        "identity_provider": identity_provider,
        "protocol": "openid",
        "tls": {"ca_file": stack("CA")},
        "sign_in": {
            "way": "oidc_code", "redirect_host": "127.0.0.1", "redirect_port": 0,
            "oidc": {
                "discovery_endpoint": format!("{issuer}/.well-known/openid-configuration"),
                "client_id": client,
            },
        },
    })
}

/// Signs in from the beginning to the end; what the paste was answered with.
pub fn signs_in(api: &Api, cloud: &Value, user: &str) -> Answer {
    let sign_in = api.login(cloud).sign_in();
    let ended = signed_in_elsewhere(sign_in.json["elsewhere"].as_str().unwrap(), user);
    let answer = api.post(&format!("/v1/sign-ins/{}/redirected", sign_in.id), &json!({"url": ended}));
    if answer.status != 204 {
        api.delete(&format!("/v1/sign-ins/{}", sign_in.id));
    }
    api.over(&sign_in.id);
    answer
}

/// A client of Keycloak's that follows nothing, and what to wait on it with.
fn keycloak() -> (Client, Runtime) {
    let ca = Certificate::from_pem(&std::fs::read(stack("CA")).unwrap()).unwrap();
    let client = Client::builder().tls_certs_only([ca]).no_proxy().redirect(Policy::none()).build().unwrap();
    (client, tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
}

fn post(client: &Client, url: &str, fields: &[(&str, &str)]) -> RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    client.post(url).header("Content-Type", "application/x-www-form-urlencoded").body(body)
}

/// What a realm's token endpoint says to these fields.
pub fn token_endpoint(issuer: &str, fields: &[(&str, &str)]) -> (u16, Value) {
    let (client, runtime) = keycloak();
    let request = post(&client, &format!("{issuer}/protocol/openid-connect/token"), fields);
    runtime.block_on(async {
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    })
}

/// A page as somebody sees it who is not signed in there.
pub fn page(url: &str) -> String {
    let (client, runtime) = keycloak();
    runtime.block_on(async { client.get(url).send().await.unwrap().text().await.unwrap() })
}

/// Keycloak's administrator ends a user's session there (`sid` of its tokens), if it is not only an offline one.
pub fn end_session(id: &str) {
    let password = stack("KEYCLOAK_ADMIN_PASSWORD");
    let admin = [
        ("grant_type", "password"),
        ("client_id", "admin-cli"),
        ("username", "admin"),
        ("password", &password),
    ];
    let (_, answer) = token_endpoint(&format!("{}/realms/master", stack("IDP")), &admin);
    let (client, runtime) = keycloak();
    let request = client.delete(format!("{}/admin/realms/lab/sessions/{id}", stack("IDP")));
    let request = request.bearer_auth(answer["access_token"].as_str().unwrap());
    let status = runtime.block_on(request.send()).unwrap().status().as_u16();
    assert!(matches!(status, 204 | 404), "{status}");
}

/// Where a browser on another machine ends: it signs in at Keycloak, and nobody answers at the callback there.
pub fn signed_in_elsewhere(address: &str, user: &str) -> String {
    let (client, runtime) = keycloak();
    let password = stack(&format!("PASSWORD_{}", user.to_uppercase()));
    runtime.block_on(async {
        let page = client.get(address).send().await.unwrap();
        if let Some(back) = page.headers().get("location") {
            // It does not like the request, and says so to whoever made it.
            return back.to_str().unwrap().to_owned();
        }
        let cookies: Vec<_> = page
            .headers()
            .get_all("set-cookie")
            .iter()
            .map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_owned())
            .collect();
        let html = page.text().await.unwrap();
        let form = html.split("id=\"kc-form-login\"").nth(1).unwrap();
        let action = form.split("action=\"").nth(1).unwrap().split('"').next().unwrap().replace("&amp;", "&");
        let fields = [("username", user), ("password", &password)];
        let answer =
            post(&client, &action, &fields).header("Cookie", cookies.join("; ")).send().await.unwrap();
        answer.headers()["location"].to_str().unwrap().to_owned()
    })
}
