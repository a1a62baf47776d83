"""The plugin: every token it has, it asked the broker for."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, ClassVar

from keystoneauth1 import access, exceptions
from keystoneauth1.identity import base

from keystoneauth_broker import agent, options
from keystoneauth_broker.environment import (
    Caller,
    is_same_keystone,
    source_in_current_folder,
    without_userinfo,
)
from keystoneauth_broker.errors import BrokerError
from keystoneauth_broker.signin import TokenRequest

if TYPE_CHECKING:
    from keystoneauth1 import session as ks_session

_LOG = logging.getLogger(__name__)

_warned: set[frozenset[str]] = set()


class BrokerAuth(base.BaseIdentityPlugin):  # type: ignore[misc, unused-ignore]
    """Tokens from keystone-broker's agent.

    Give `auth_url`, `protocol` and mostly `identity_provider`; or `cloud`, the name of an entry for `ksb`
    to resolve.
    Keeps no cache beyond the token in use: the agent has it.
    """

    #: A person is asked by the broker, and what came of it stays there: nothing for openstacksdk's keyring.
    interactive_unscoped_auth: ClassVar[bool] = False

    def __init__(
        self,
        auth_url: str | None = None,
        identity_provider: str | None = None,
        protocol: str | None = None,
        *,
        cloud: str | None = None,
        project_id: str | None = None,
        project_name: str | None = None,
        project_domain_id: str | None = None,
        project_domain_name: str | None = None,
        domain_id: str | None = None,
        domain_name: str | None = None,
        system_scope: str | None = None,
        trust_id: str | None = None,
        tenant_id: str | None = None,
        tenant_name: str | None = None,
        default_domain_id: str | None = None,
        default_domain_name: str | None = None,
        username: str | None = None,
        sign_in: str | None = None,
        redirect_host: str | None = None,
        redirect_port: int | str | None = None,
        login_timeout: float | str | None = None,
        logout_url: str | None = None,
        min_validity: int | str | None = None,
        reauthenticate: bool | str = True,
        ksb_caller: Caller | None = None,
        **unknown: Any,
    ) -> None:
        caller = ksb_caller or Caller(None, None)
        auth_url = options.text(auth_url)
        self._by_name = options.text(cloud) if auth_url is None else None
        if auth_url is None and self._by_name is None:
            auth_url = options.text(caller.auth_url)
        super().__init__(auth_url=auth_url, reauthenticate=options.boolean(reauthenticate))

        self._name = options.text(cloud) or options.text(caller.name)
        self._asked_for = options.text(caller.asks_for)
        _warn_of_another(self._asked_for, self.auth_url, self._name)
        if not options.text(project_domain_id) and not options.text(project_domain_name):
            project_domain_id, project_domain_name = default_domain_id, default_domain_name
        self._scope = options.Scope(
            project_id=options.text(project_id) or tenant_id,
            project_name=options.text(project_name) or tenant_name,
            project_domain_id=project_domain_id,
            project_domain_name=project_domain_name,
            domain_id=domain_id,
            domain_name=domain_name,
            system_scope=system_scope,
            trust_id=trust_id,
        )
        self._min_validity = options.number("min_validity", min_validity, least=0, most=2**31)
        how = None
        if self._by_name is None:
            how = options.sign_in(
                way=sign_in,
                host=redirect_host,
                port=redirect_port,
                timeout=login_timeout,
                oidc={name: unknown.pop(name, None) for name in options.OIDC},
                protocol=options.text(protocol),
                more={**{name: unknown.pop(name, None) for name in options.MORE}, "username": username},
            )
        # For a user of Keystone's own it is the name, and no label.
        self._local = bool(how and "password" in how)
        self._entry = options.given(
            identity_provider=None if self._local else options.text(identity_provider),
            protocol=None if self._local else options.text(protocol),
            account=None if self._local else options.text(username),
            logout_url=options.text(logout_url),
            source=source_in_current_folder(),
            sign_in=how,
        )
        self._resolved: dict[str, Any] | None = None
        if self._by_name is None:
            self._check_complete()
        _warn_of(unknown)

        self._fetching = threading.Lock()
        self._state = threading.Lock()
        self._rejected: str | None = None

    def get_auth_ref(self, session: ks_session.Session, **_kwargs: Any) -> access.AccessInfo:
        """Ask the broker, which has the token at hand or sends a person to sign in."""
        cloud, scope = self._cloud_and_scope(session)
        with self._state:
            rejected = self._rejected
        request = options.given(cloud=cloud, scope=scope, min_validity=self._min_validity, rejected=rejected)
        answer = TokenRequest(request, options.label(cloud.get("name"), cloud.get("auth_url"))).answer()
        auth_ref = access.create(body=answer["body"], auth_token=answer["token_id"])
        with self._state:
            if self._rejected == rejected:
                self._rejected = None
        self._ask_again_before_expiry_of(auth_ref)
        return auth_ref

    def get_access(self, session: ks_session.Session, **_kwargs: Any) -> access.AccessInfo:
        """Like the inherited one, but for another thread that invalidates meanwhile."""
        with self._fetching:
            auth_ref = self.auth_ref
            if auth_ref is None or (
                self.reauthenticate and auth_ref.will_expire_soon(self.MIN_TOKEN_LIFE_SECONDS)
            ):
                auth_ref = self.auth_ref = self.get_auth_ref(session)
            return auth_ref

    def invalidate(self) -> bool:
        """A service refused the token: the next request tells the broker, which asks Keystone about it."""
        with self._state:
            auth_ref, self.auth_ref = self.auth_ref, None
            if auth_ref is not None:
                self._rejected = auth_ref.auth_token
            return self._rejected is not None

    def get_cache_id_elements(self) -> dict[str, str | None]:
        """Nothing: see `get_cache_id`."""
        return {}

    def get_cache_id(self) -> str | None:
        """None: no cache but the broker's."""
        return None

    def _ask_again_before_expiry_of(self, auth_ref: access.AccessInfo) -> None:
        """Halve the time left where the broker has nothing that lives keystoneauth's two minutes.

        Without this, every single call with a 60 s token would ask the broker for another.
        """
        least = base.BaseIdentityPlugin.MIN_TOKEN_LIFE_SECONDS
        if auth_ref.expires is not None:
            left = (auth_ref.expires - dt.datetime.now(dt.timezone.utc)).total_seconds()
            least = min(least, max(0, int(left / 2)))
        self.MIN_TOKEN_LIFE_SECONDS = least

    def _cloud_and_scope(self, session: ks_session.Session) -> tuple[dict[str, Any], Any]:
        scope = self._scope.on_the_wire()
        if self._by_name is not None:
            resolved = self._resolve(self._by_name)
            cloud = {**resolved["cloud"], **options.given(account=self._entry.get("account"))}
            return cloud, scope or resolved.get("scope") or "unscoped"
        assert self.auth_url is not None  # noqa: S101  # checked by _check_complete
        cloud = {
            **options.given(name=self._name),
            "auth_url": self.auth_url,
            **self._entry,
            "tls": options.tls(session),
            **options.proxy(self.auth_url),
        }
        return cloud, scope or "unscoped"

    def _resolve(self, name: str) -> dict[str, Any]:
        """The entry `name`, as `ksb` finds it in this directory and environment."""
        if self._resolved is None:
            try:
                said = agent.run_ksb("clouds", "show", name, "--json", "--with-secrets")
            except BrokerError as error:
                raise error.named(name) from None
            try:
                resolved = json.loads(said)
                self.auth_url = resolved["cloud"]["auth_url"]
                _warn_of_another(self._asked_for, self.auth_url, name)
            except (ValueError, KeyError, TypeError):
                raise BrokerError(
                    "`ksb clouds show --json` answered with something else than a cloud",
                    cloud=name,
                    code="invalid-config",
                    remedy=f"ksb clouds show {name}",
                ) from None
            self._resolved = resolved
        return self._resolved

    def _check_complete(self) -> None:
        found = {"auth_url": self.auth_url, "protocol": self._entry.get("protocol")}
        if self._local:
            del found["protocol"]
        missing = [what for what, value in found.items() if not value]
        if missing:
            where = f"{self._name}: " if self._name else ""
            raise exceptions.OptionError(
                f"{where}v3broker needs {' and '.join(missing)}; "
                "or `cloud: NAME` under `auth:`, for ksb to look up"
            )


def _warn_of_another(asked_for: str | None, auth_url: str | None, name: str | None) -> None:
    """Who signs in where is the entry's: nobody is sent to another Keystone by an option or a variable."""
    if "KSB_EXEC" in os.environ and asked_for == os.environ.get("OS_AUTH_URL"):
        return  # It is of the lease that `ksb exec` made for its own cloud.
    if asked_for and auth_url and not is_same_keystone(asked_for, auth_url):
        _LOG.warning(
            "%s: %s is not used beside the entry; the Keystone that counts is %s",
            name or "v3broker",
            without_userinfo(asked_for),
            without_userinfo(auth_url),
        )


def _warn_of(unknown: dict[str, Any]) -> None:
    """Name the options that do nothing here, once; never their values."""
    names = frozenset(unknown) - options.NOT_OURS
    if names and names not in _warned:
        _warned.add(names)
        _LOG.warning("v3broker ignores what it does not know: %s", ", ".join(sorted(names)))
