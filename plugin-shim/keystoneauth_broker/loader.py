"""The loader: the options that `v3broker` declares.

What is *not* declared matters as much, because osc-lib gives meaning to some destinations:

* `auth_url`: osc-lib demands a value wherever it is declared, and an entry with `cloud:` has none. Under
  `auth:` it reaches the plugin all the same, and from elsewhere see `caller_of_loader`. (Declared under
  another destination it would be lost to openstacksdk, which sends unscoped identity calls there.) To
  keystoneauth's own registration with oslo.config and argparse it is declared: nothing else would have it.
* `cloud`: its `--os-cloud` is osc-lib's own; declaring it breaks every `openstack` command.
* `token`, `url`, `password`: osc-lib demands or prompts for values. `password`, `access_token`, `user_id`
  and `user_domain_name` reach the plugin under `auth:`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keystoneauth1 import loading

from keystoneauth_broker.environment import registers_with_keystoneauth

if TYPE_CHECKING:
    from keystoneauth_broker.plugin import BrokerAuth

    _Base = loading.BaseLoader[BrokerAuth]
else:  # not generic in older keystoneauth1
    _Base = loading.BaseLoader

_OPTIONS: tuple[tuple[str, str], ...] = (
    ("identity-provider", "Keystone's identity provider; not needed where the protocol alone tells"),
    ("protocol", "Keystone's federation protocol, such as openid or saml2"),
    ("system-scope", "Scope for system operations: all"),
    ("domain-id", "Domain ID to scope to"),
    ("domain-name", "Domain name to scope to"),
    ("project-id", "Project ID to scope to"),
    ("project-name", "Project name to scope to"),
    ("project-domain-id", "Domain ID containing project"),
    ("project-domain-name", "Domain name containing project; without one it is the signed-in user's own"),
    ("trust-id", "ID of the trust to use as a trustee"),
    ("username", "Label that keeps several accounts on one cloud apart; the user of sign_in: password"),
    (
        "sign-in",
        "Way to sign in: websso, oidc_code, oidc_device, auto, workload (no person), password (at Keystone)",
    ),
    ("redirect-host", "Host of the callback URL that the operator lists in trusted_dashboard (localhost)"),
    ("redirect-port", "Port of the callback URL that the operator lists in trusted_dashboard (9990)"),
    ("discovery-endpoint", "OpenID Connect Discovery URL of the identity provider"),
    ("client-id", "OAuth client ID at the identity provider"),
    ("client-secret", "OAuth client secret, of a confidential client"),
    ("openid-scope", "OpenID Connect scopes, separated by spaces (openid profile)"),
    ("access-token-type", "Which of the provider's tokens Keystone takes: access_token or id_token"),
    ("redirect-uri", "Callback URL on this computer that is registered at the provider (any free port)"),
    ("prompt", "prompt of the authorization request"),
    ("max-age", "max_age of the authorization request, in seconds"),
    ("acr-values", "acr_values of the authorization request"),
    ("login-hint", "login_hint of the authorization request"),
    ("require-amr", "Authentication methods that the ID token must show, such as otp (RFC 8176)"),
    ("max-auth-age", "Seconds that may have passed since the person proved who they are"),
    ("token-file", "File with a workload's token, read for each sign-in"),
    ("token-env", "Environment variable with a workload's token, such as GitLab's"),
    ("token-command", "Command that prints a workload's token"),
    ("token-command-limit", "Seconds that this command may take (30)"),
    ("token-audience", "Audience of the ID token that GitHub Actions gives"),
    ("auth-methods", "What Keystone's own users show first: v3password, v3totp, or both"),
    ("login-timeout", "Seconds a person has to finish the sign-in (300)"),
    ("logout-url", "Page that ends the browser's own session, shown by `ksb logout`"),
    ("min-validity", "Seconds that a token must live at least when it is handed out"),
)


class Broker(_Base):
    """Ask keystone-broker's agent for tokens; a person signs in once, in a browser."""

    @property
    def plugin_class(self) -> type[BrokerAuth]:
        """The plugin; imported when one is made, not when its options are listed."""
        from keystoneauth_broker.plugin import BrokerAuth

        return BrokerAuth

    def get_options(self) -> list[loading.Opt]:
        """All options are text: neither `type` nor `default` is applied by osc-lib or openstacksdk."""
        options: list[loading.Opt] = super().get_options()
        options.extend(loading.Opt(name, help=text) for name, text in _OPTIONS)
        if registers_with_keystoneauth():
            options.append(loading.Opt("auth-url", help="Authentication URL"))
        return options

    def load_from_options(self, **kwargs: Any) -> BrokerAuth:
        """Make the plugin, and tell it what openstacksdk does not."""
        from keystoneauth_broker.environment import caller_of_loader

        kwargs["ksb_caller"] = caller_of_loader()
        return super().load_from_options(**kwargs)
