"""Fronts whose bearer location is set up as operators get it wrong, for what `ksb` says of each."""

from .layout import IDP, MISCONFIGURED_FRONTS

KEYS = """\
  OIDCOAuthVerifyJwksUri {issuer}/protocol/openid-connect/certs
  OIDCOAuthSSLValidateServer Off"""
# Keycloak knows no client of this name and secret: it answers 401 to the question.
INTROSPECTION = """\
  OIDCOAuthIntrospectionEndpoint {issuer}/protocol/openid-connect/token/introspect
  OIDCOAuthClientID keystone
  OIDCOAuthClientSecret not-the-secret
  OIDCOAuthSSLValidateServer Off"""

# By name: what checks tokens, and who may pass.
FRONTS = {
    # The dashboard's sign-in works, a token alone does not.
    "websso_only": (KEYS, "AuthType openid-connect\n    Require valid-user"),
    # Nobody told Apache about this location: Keystone sees a request from nobody.
    "unprotected": (KEYS, ""),
    "audience": (KEYS, "AuthType oauth20\n    Require claim aud:keystone"),
    "closed": (KEYS, "Require all denied"),
    "no_introspection": ("", "AuthType oauth20\n    Require valid-user"),
    "introspection_refused": (INTROSPECTION, "AuthType oauth20\n    Require valid-user"),
    # The keys of another realm: this one's tokens are forgeries to it.
    "foreign_issuer": (
        KEYS.replace("{issuer}", f"{IDP}/realms/master"),
        "AuthType oauth20\n    Require valid-user",
    ),
}


def front(port: int) -> tuple[str, str] | None:
    """What checks tokens at this port, and its bearer location; nothing for a port that is in order."""
    names = {port: name for name, port in MISCONFIGURED_FRONTS.items()}
    return FRONTS[names[port]] if port in names else None
