"""Where everything lies and which ports are whose. Nothing here does anything."""

import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent

CACHE = Path(
    os.environ.get("KSB_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keystone-broker"
)
DOWNLOADS = CACHE / "downloads"  # keyed by version: never stale, shared by all checkouts
# One cloud: its database, keys, certificates, secrets. A Keystone of another release has one of its own.
STATE = CACHE / "-".join(filter(None, ("stack", os.environ.get("KSB_STACK_KEYSTONE"))))
LOG = STATE / "log"
RUN = STATE / "run"  # what is running: process ids
TLS = STATE / "tls"
CA = TLS / "ca.pem"
SECRETS = STATE / "secrets.json"
PASSKEY = STATE / "passkey.json"  # alice's, as the browser's authenticator has it
SETTINGS = STATE / "settings.json"  # what browser.mjs needs to know

PYTHON = "3.11"

KEYCLOAK_VERSION = "26.7.4"
KEYCLOAK_PORT = 8443
IDP_HOST = "idp.localhost"
IDP = f"https://{IDP_HOST}:{KEYCLOAK_PORT}"
ISSUER = f"{IDP}/realms/lab"
ROTATING_ISSUER = f"{IDP}/realms/rotating"  # a refresh token counts once

# Each port is the same cloud with a request log of its own, so that tests that run together can count.
KEYSTONE_HOST = "keystone.localhost"
FRONTS = tuple(range(5000, 5008))
PREFIX_FRONT = 5008  # the auth URL has a path: https://keystone.localhost:5008/identity/v3
SHORT_FRONTS = tuple(range(5030, 5035))  # tokens that live for a minute: one for each test of theirs
ROTATING_FRONT = 5012  # takes bearer tokens of the realm `rotating`
SERVICES_FRONT = 5013  # where Swift asks about tokens: the catalog sends it there
PREFIX = "/identity"
# Bearer locations as an operator may get them wrong (misconfigured.py): the name says what is wrong.
MISCONFIGURED_FRONTS = {
    "websso_only": 5020,
    "unprotected": 5021,
    "audience": 5022,
    "closed": 5023,
    "no_introspection": 5024,
    "introspection_refused": 5025,
    "foreign_issuer": 5026,
}
ALL_FRONTS = (
    *FRONTS,
    PREFIX_FRONT,
    *SHORT_FRONTS,
    ROTATING_FRONT,
    SERVICES_FRONT,
    *MISCONFIGURED_FRONTS.values(),
)

LONG_BACKEND = 15000
SHORT_BACKEND = 15010
# The object store, by its own API and by S3's; it remembers what Keystone said of a token for some minutes.
SWIFT_FRONT = 5050
# The same store in a region of its own: here Keystone is asked at each request, and a revoked token refused
# at once.
UNCACHED_SWIFT_FRONT = 5051
SWIFT_STORES = {"account": 15051, "container": 15052, "object": 15053}
SWIFT_PROXIES = {SWIFT_FRONT: 15050, UNCACHED_SWIFT_FRONT: 15054}
MEMCACHED_PORT = 15060
REGION = "RegionOne"
UNCACHED_REGION = "Uncached"
LONG_LIFETIME = 3600
SHORT_LIFETIME = 60

# A service of the catalog that is not there: a test that wants one listens here.
BROKEN_SERVICE = "http://127.0.0.1:5090/"

CALLBACK_PORTS = tuple(range(9990, 9998))
UNTRUSTED_CALLBACK_PORT = 9999

NUMBERED_USERS = tuple(f"user{number}" for number in range(8))
USERS = ("alice", "bob", "mallory", "tessa", *NUMBERED_USERS)
# Known to Keystone itself, with a password and a one-time code. One for each front: no code counts twice.
MFA_USERS = tuple(f"mfa{number}" for number in range(8))
CONFIDENTIAL_CLIENTS = ("basic", "post")  # named after how they send their secret

SWIFT = f"https://{KEYSTONE_HOST}:{SWIFT_FRONT}"
UNCACHED_SWIFT = f"https://{KEYSTONE_HOST}:{UNCACHED_SWIFT_FRONT}"


def front_url(port: int) -> str:
    """The auth URL of a front, as a clouds.yaml names it."""
    return f"https://{KEYSTONE_HOST}:{port}{PREFIX if port == PREFIX_FRONT else ''}/v3"
