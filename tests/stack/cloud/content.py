"""What is in Keystone: projects, groups, identity providers, made through its API; harmless to repeat."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from . import postgres
from .layout import (
    BROKEN_SERVICE,
    ISSUER,
    LONG_BACKEND,
    MFA_USERS,
    REGION,
    ROTATING_ISSUER,
    SWIFT,
    UNCACHED_REGION,
    UNCACHED_SWIFT,
)
from .running import Json, StackError, request, write

PROJECTS = ("demo", "staging", "production", "solo")
# Keycloak's groups (realm.json) carry these names; the mapping finds them by name.
GROUPS = {"lab-dev": ("demo", "staging", "production"), "lab-solo": ("demo", "solo"), "lab-guest": ("demo",)}
LOCAL_USERS = ("alice", "bob")

USER = {"type": "HTTP_OIDC_PREFERRED_USERNAME"}
# The identity provider says which groups: a person moved there has other roles after the next sign-in.
LAB_RULES = [
    {
        "local": [{"user": {"name": "{0}"}}, {"groups": "{1}", "domain": {"name": "lab"}}],
        "remote": [USER, {"type": "HTTP_OIDC_GROUPS"}],
    }
]
OTHER_RULES = [
    {
        "local": [{"user": {"name": "{0}"}}, {"group": {"name": "lab-guest", "domain": {"name": "lab"}}}],
        "remote": [USER],
    }
]
# Users that Keystone knows itself: their tokens have no OS-FEDERATION block.
LOCAL_RULES = [
    {"local": [{"user": {"name": "{0}", "type": "local", "domain": {"name": "Default"}}}], "remote": [USER]}
]
# Nobody has such a claim.
STRICT_RULES = [
    {"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "HTTP_OIDC_BADGE"}]},
]


class Api:
    """Keystone's own API as its administrator."""

    def __init__(self, password: str) -> None:
        self.base = f"http://127.0.0.1:{LONG_BACKEND}/v3"
        user = {"name": "admin", "domain": {"id": "default"}, "password": password}
        auth = {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": "admin", "domain": {"id": "default"}}},
        }
        status, headers, _ = request("POST", f"{self.base}/auth/tokens", {"auth": auth})
        if status != 201:
            raise StackError(f"Keystone refuses its administrator: {status}")
        self.token = headers["x-subject-token"]

    def call(self, method: str, path: str, body: Json | None = None, *, accept: tuple[int, ...] = ()) -> Json:
        status, _, answer = request(method, f"{self.base}{path}", body, X_Auth_Token=self.token)
        if status >= 300 and status not in accept:
            raise StackError(f"{method} {path}: {status} {answer}")
        return answer if status < 300 else {}

    def ensure(self, kind: str, name: str, **more: str) -> str:
        """The id of the thing of this name, made if need be."""
        plural = f"/{kind}s"
        query = {"name": name, **({"domain_id": more["domain_id"]} if "domain_id" in more else {})}
        found = self.call("GET", f"{plural}?{urlencode(query)}")[f"{kind}s"]
        if not found:
            found = [self.call("POST", plural, {kind: {"name": name, **more}})[kind]]
        return str(found[0]["id"])

    def put(self, path: str, kind: str, body: Json) -> None:
        """A thing of OS-FEDERATION, whose name is in the path: made, or brought to this state."""
        target = f"/OS-FEDERATION/{path}"
        if self.call("GET", target, accept=(404,)):
            fixed = ("domain_id",)  # cannot be changed later
            self.call("PATCH", target, {kind: {key: body[key] for key in body if key not in fixed}})
        else:
            self.call("PUT", target, {kind: body})


def make(secrets: dict[str, str], *, tests: bool) -> None:
    """What a sign-in needs, and with `tests` what they need; what is there is left or corrected."""
    _once("sign-in", secrets, _for_a_sign_in)
    if tests:
        _once("tests", secrets, _for_tests)


def _once(name: str, secrets: dict[str, str], fill: Callable[[Api, dict[str, str]], None]) -> None:
    """Unless this very file has done so before."""
    mark = postgres.HOME / f"content-{name}.sha256"  # beside the database: a new one is empty
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        return
    fill(Api(secrets["admin"]), secrets)
    write(mark, digest)


def _for_a_sign_in(api: Api, secrets: dict[str, str]) -> None:
    lab = api.ensure("domain", "lab")
    roles = [api.ensure("role", name) for name in ("member", "reader")]
    projects = {name: api.ensure("project", name, domain_id=lab) for name in PROJECTS}
    for name, seen in GROUPS.items():
        group = api.ensure("group", name, domain_id=lab)
        for project in seen:
            for role in roles:
                api.call("PUT", f"/projects/{projects[project]}/groups/{group}/roles/{role}")
    _identity_provider(api, "lab-idp", lab, LAB_RULES, remote_ids=[ISSUER])
    _service(api, "broken", "broken", {REGION: BROKEN_SERVICE})
    stores = {REGION: SWIFT, UNCACHED_REGION: UNCACHED_SWIFT}
    account = "/v1/AUTH_%(project_id)s"
    _service(api, "swift", "object-store", {region: url + account for region, url in stores.items()})
    _swift_user(api, secrets["swift"])


def _for_tests(api: Api, secrets: dict[str, str]) -> None:
    lab, other = api.ensure("domain", "lab"), api.ensure("domain", "other")
    demo, member = api.ensure("project", "demo", domain_id=lab), api.ensure("role", "member")
    users = [api.ensure("user", name, domain_id="default") for name in LOCAL_USERS]
    for user in (*users, *(_mfa_user(api, name, secrets) for name in MFA_USERS)):
        api.call("PUT", f"/projects/{demo}/users/{user}/roles/{member}")
    # No remote id: Keystone then takes whoever Apache vouches for, here the same realm, into another domain.
    _identity_provider(api, "other-idp", other, OTHER_RULES, remote_ids=[])
    _identity_provider(api, "local-idp", other, LOCAL_RULES, remote_ids=[])
    # In a domain of its own: a user of the same name and domain is the same one, whoever vouches for them.
    rotating = api.ensure("domain", "rotating")
    _identity_provider(api, "rotating-idp", rotating, LAB_RULES, remote_ids=[ROTATING_ISSUER])
    # Keystone forgets its users' groups at once: no application credentials for them.
    momentary = api.ensure("domain", "momentary")
    _identity_provider(api, "momentary-idp", momentary, LAB_RULES, remote_ids=[], minutes=None)
    # Two that an operator got wrong: a mapping that fits nobody, and the address of another provider.
    _identity_provider(api, "strict-idp", other, STRICT_RULES, remote_ids=[])
    _identity_provider(api, "moved-idp", other, OTHER_RULES, remote_ids=["https://idp.example/realms/lab"])


def _identity_provider(
    api: Api, name: str, domain: str, rules: list[Json], remote_ids: list[str], minutes: int | None = 60
) -> None:
    # How long group memberships outlive a sign-in. Application credentials need that.
    provider = {"enabled": True, "domain_id": domain, "remote_ids": remote_ids, "authorization_ttl": minutes}
    api.put(f"identity_providers/{name}", "identity_provider", provider)
    api.put(f"mappings/{name}", "mapping", {"rules": rules})
    api.put(f"identity_providers/{name}/protocols/openid", "protocol", {"mapping_id": name})


def _mfa_user(api: Api, name: str, secrets: dict[str, str]) -> str:
    """Somebody who gets a token for a password and a one-time code together, and for neither alone."""
    user = api.ensure("user", name, domain_id="default")
    rules = {"multi_factor_auth_enabled": True, "multi_factor_auth_rules": [["password", "totp"]]}
    change = {"password": secrets[f"user_{name}"], "options": rules}
    api.call("PATCH", f"/users/{user}", {"user": change})
    if not api.call("GET", f"/credentials?user_id={user}&type=totp")["credentials"]:
        credential = {"type": "totp", "blob": secrets[f"totp_{name}"], "user_id": user}
        api.call("POST", "/credentials", {"credential": credential})
    return user


def _service(api: Api, name: str, kind: str, urls: dict[str, str]) -> None:
    service = api.ensure("service", name, type=kind)
    known = api.call("GET", f"/endpoints?service_id={service}")["endpoints"]
    for region, url in urls.items():
        if any(endpoint["region_id"] == region for endpoint in known):
            continue
        api.call("PUT", f"/regions/{region}", {"region": {}}, accept=(409,))
        endpoint = {"service_id": service, "interface": "public", "region_id": region, "url": url}
        api.call("POST", "/endpoints", {"endpoint": endpoint})


def _swift_user(api: Api, password: str) -> None:
    """Whoever may ask Keystone about other people's tokens and signatures."""
    project = api.ensure("project", "service", domain_id="default")
    user = api.ensure("user", "swift", domain_id="default")
    api.call("PATCH", f"/users/{user}", {"user": {"password": password}})
    role = api.ensure("role", "service")
    api.call("PUT", f"/projects/{project}/users/{user}/roles/{role}")
