//! What an identity provider's refusals mean, and what to ask its operator for.
//!
//! The codes are OAuth's (RFC 6749 sections 4.1.2.1 and 5.2), the descriptions whatever the provider writes: Keycloak 26
//! says `unauthorized_client` both to a client that should have shown its secret and to one that may not do this.

use crate::model::Cloud;

/// What helps against an error of this code and description.
pub(super) fn remedy(cloud: &Cloud, code: &str, description: &str) -> String {
    let Some(client) = &cloud.sign_in.oidc else {
        return format!("ksb clouds show {}", cloud.argument());
    };
    let (id, said) = (&client.client_id, description.to_ascii_lowercase());
    match code {
        "invalid_client" | "unauthorized_client" if said.contains("device") => format!(
            "ask the operator to allow client {id} the device authorization grant, or use sign_in: oidc_code"
        ),
        // Keycloak: "Invalid method used to get client secret".
        "invalid_client" | "unauthorized_client" if said.contains("method") => format!(
            "set token_endpoint_auth_method to client_secret_basic or client_secret_post, as client {id} is registered"
        ),
        "invalid_client" | "unauthorized_client" if client.client_secret.is_some() => format!(
            "check client_secret, or ask the operator whether client {id} may use it, and this way to sign in, there"
        ),
        "invalid_client" | "unauthorized_client" => format!(
            "ask the operator to make client {id} public (PKCE stands in for a secret), or for its secret and set client_secret"
        ),
        // Keycloak: "Offline tokens not allowed for the user or client".
        _ if said.contains("offline") => {
            format!(
                "take offline_access out of openid_scope, or ask the operator to allow it to you and client {id}"
            )
        }
        "invalid_scope" => format!(
            "correct openid_scope, or ask the operator to allow client {id} these scopes: {}",
            client.scope
        ),
        "invalid_grant" | "access_denied" | "login_required" | "temporarily_unavailable" | "server_error" => {
            format!("ksb login {}", cloud.argument())
        }
        _ => format!("ksb clouds show {}", cloud.argument()),
    }
}
