"""The options of a clouds.yaml entry, in the broker's own words: a cloud and a scope."""

from __future__ import annotations

import math
import os
from typing import Any
from urllib.parse import urlsplit

from keystoneauth1 import exceptions

from keystoneauth_broker import unattended
from keystoneauth_broker.environment import browser_location, ca_bundle, can_be_opened, proxy_for

#: Options of other plugins that a shared entry may hold, and what openstacksdk adds: nothing to warn about.
NOT_OURS = frozenset(
    {
        "authorization_endpoint",
        "code_challenge_method",
        "device_authorization_endpoint",
        "idp_otp_key",
        "include_catalog",
        "passcode",
    }
)

_WAYS = ("websso", "oidc_code", "oidc_device", "auto", "workload", "password")
_AUTH_METHODS = ("client_secret_basic", "client_secret_post")
_BEARERS = ("access_token", "id_token")

#: Options of the OpenID client that we are, in the names of keystoneauth's `v3oidcauthcode`.
OIDC = (
    "discovery_endpoint",
    "client_id",
    "client_secret",
    "token_endpoint_auth_method",
    "openid_scope",
    "access_token_type",
    "redirect_uri",
    "prompt",
    "max_age",
    "acr_values",
    "login_hint",
    "require_amr",
    "max_auth_age",
)


#: Options of workloads and of Keystone's own users. Not all are declared: see the loader.
MORE = (
    *unattended.OPTIONS,
    "auth_methods",
    "password",
    "user_id",
    "user_domain_id",
    "user_domain_name",
)


def text(value: object) -> str | None:
    """YAML gives numbers and empty strings where a name is meant."""
    if value is None:
        return None
    return str(value).strip() or None


def number(name: str, value: object, *, least: int, most: int) -> int | None:
    """A whole number that may come as text: neither osc-lib nor openstacksdk converts."""
    if (given := text(value)) is None:
        return None
    try:
        result = math.ceil(float(given))
    except (ValueError, OverflowError):
        result = least - 1
    if not least <= result <= most:
        raise exceptions.OptionError(f"v3broker: {name} is a number from {least} to {most}, not {given!r}")
    return result


def boolean(value: object) -> bool:
    """True, unless it is said otherwise."""
    return str(value).strip().lower() not in ("false", "no", "off", "0")


def sign_in(
    *,
    way: object,
    host: object,
    port: object,
    timeout: object,
    oidc: dict[str, Any],
    protocol: str | None,
    more: dict[str, Any],
) -> dict[str, Any] | None:
    """How a person or a workload signs in, as `src/clouds/sign_in.rs` has it."""
    has_client = text(oidc.get("discovery_endpoint")) and text(oidc.get("client_id"))
    chosen = _one_of("sign_in", way, _WAYS)
    if chosen is None and protocol is None and more["auth_methods"]:
        chosen = "password"
    if chosen is None and has_client:
        chosen = "oidc_code"
    if chosen is None and text(more["access_token"]):
        chosen = "workload"
    if chosen == "auto":
        chosen = "oidc_code" if can_be_opened(browser_location()) else "oidc_device"
    options: dict[str, Any] = {}
    if chosen == "workload":
        options["workload"] = unattended.workload({**oidc, **more})
    elif chosen == "password":
        options["password"] = local_user(more)
    elif chosen is not None and chosen != "websso":
        options = {"redirect_host": "127.0.0.1", "redirect_port": 0}
        options["oidc"] = _oidc({name: text(oidc.get(name)) for name in OIDC}, options)
    options.update(
        given(
            way=chosen,
            redirect_host=text(host),
            redirect_port=number("redirect_port", port, least=1, most=65535),
            timeout=number("login_timeout", timeout, least=1, most=86_400),
        )
    )
    return options or None


def _oidc(option: dict[str, str | None], options: dict[str, Any]) -> dict[str, Any]:
    for name in ("discovery_endpoint", "client_id"):
        if option[name] is None:
            raise exceptions.OptionError(f"v3broker: this sign_in needs {name}")
    endpoint = str(option["discovery_endpoint"])
    client = given(
        discovery_endpoint=endpoint,
        client_id=option["client_id"],
        client_secret=option["client_secret"],
        auth_method=_one_of(
            "token_endpoint_auth_method", option["token_endpoint_auth_method"], _AUTH_METHODS
        ),
        scope=option["openid_scope"],
        bearer=_one_of("access_token_type", option["access_token_type"], _BEARERS),
        **proxy(endpoint),
    )
    extra = [
        [name, option[name]] for name in ("prompt", "max_age", "acr_values", "login_hint") if option[name]
    ]
    if extra:
        client["extra"] = extra
    require = given(
        amr=(option["require_amr"] or "").replace(",", " ").split() or None,
        max_auth_age=number("max_auth_age", option["max_auth_age"], least=0, most=2**31),
    )
    if require:
        client["require"] = require
    uri = option["redirect_uri"]
    # Out of band, keystoneauth's default, means no address at all.
    if uri is not None and not uri.startswith("urn:"):
        parts = urlsplit(uri)
        if parts.scheme != "http" or not parts.hostname:
            raise exceptions.OptionError("v3broker: redirect_uri is not an http address of this computer")
        options.update(redirect_host=parts.hostname, redirect_port=parts.port or 80)
        client["redirect_path"] = parts.path or "/"
    return client


def local_user(more: dict[str, Any]) -> dict[str, Any]:
    """A user that Keystone itself knows, as `src/clouds/password.rs` has it."""
    user = given(id=text(more["user_id"]))
    if not user:
        user = given(name=text(more["username"]))
        domain = given(id=text(more["user_domain_id"])) or given(name=text(more["user_domain_name"]))
        if not user or not domain:
            raise exceptions.OptionError(
                "v3broker: sign_in: password needs username and user_domain_name, or user_id"
            )
        user["domain"] = domain
    names = more["auth_methods"] or "password"
    names = names.split(",") if isinstance(names, str) else names
    methods = [str(name).strip().removeprefix("v3") for name in names]
    if unknown := set(methods) - {"password", "totp"}:
        raise exceptions.OptionError(
            f"v3broker: auth_methods are v3password and v3totp, not {', '.join(unknown)}"
        )
    return given(user=user, methods=methods, password=text(more["password"]))


def _one_of(name: str, value: object, known: tuple[str, ...]) -> str | None:
    given = text(value)
    if given is not None and given not in known:
        raise exceptions.OptionError(f"v3broker: {name} is {' or '.join(known)}, not {given!r}")
    return given


def label(name: str | None, auth_url: str | None) -> str:
    """How messages call the cloud: as the broker does."""
    if name:
        return name
    try:
        return urlsplit(auth_url or "").hostname or "cloud"
    except ValueError:
        return "cloud"


def given(**values: object) -> dict[str, Any]:
    """Only what is set."""
    return {key: value for key, value in values.items() if value is not None}


def tls(session: object) -> dict[str, Any]:
    """What `session.verify` and `session.cert` say, as `requests` would act on it."""
    verify = getattr(session, "verify", True)
    cert = getattr(session, "cert", None)
    settings: dict[str, Any] = {"verify": bool(verify) or verify is None}
    if settings["verify"]:
        if isinstance(verify, bool) or verify is None:
            variable, file = ca_bundle()
            if file:
                settings["sources"] = {"ca_file": variable}
        else:
            file = str(verify)
        if file:
            settings["ca_file"] = os.path.abspath(file)
    if cert:
        cert_file, key_file = (cert, None) if isinstance(cert, str | os.PathLike) else (*cert, None)[:2]
        settings["cert_file"] = os.path.abspath(cert_file)
        if key_file:
            settings["key_file"] = os.path.abspath(key_file)
    return settings


def proxy(auth_url: str) -> dict[str, Any]:
    """The proxy that the environment names for `auth_url`, as a member of the cloud."""
    return given(proxy=proxy_for(auth_url))


class Scope:
    """The scope options of an entry."""

    def __init__(
        self,
        *,
        project_id: object,
        project_name: object,
        project_domain_id: object,
        project_domain_name: object,
        domain_id: object,
        domain_name: object,
        system_scope: object,
        trust_id: object,
    ) -> None:
        self._project = given(id=text(project_id)) or given(name=text(project_name))
        if "name" in self._project:
            self._project.update(
                given(
                    domain=given(id=text(project_domain_id)) or given(name=text(project_domain_name)) or None
                )
            )
        self._domain = given(id=text(domain_id)) or given(name=text(domain_name))
        self._system = text(system_scope)
        self._trust = text(trust_id)

    def on_the_wire(self) -> dict[str, Any] | None:
        """Keystone's `auth.scope`; None when nothing is said. Checked as keystoneauth's own plugins do."""
        if sum(map(bool, (self._project, self._domain, self._system, self._trust))) > 1:
            raise exceptions.AuthorizationFailure(
                "Authentication cannot be scoped to multiple targets. "
                "Pick one of: project, domain, trust or system"
            )
        if self._project:
            return {"project": self._project}
        if self._domain:
            return {"domain": self._domain}
        if self._trust:
            return {"OS-TRUST:trust": {"id": self._trust}}
        if self._system is None:
            return None
        if self._system != "all":
            raise exceptions.AuthorizationFailure('Invalid system scope, only "all" is supported')
        return {"system": {"all": True}}
