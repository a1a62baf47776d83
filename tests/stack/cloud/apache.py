"""Apache with mod_auth_openidc in front of Keystone, on TLS: one virtual host and request log per port."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from . import misconfigured, processes
from .certificates import KEY, LEAF
from .layout import (
    ALL_FRONTS,
    FRONTS,
    ISSUER,
    KEYSTONE_HOST,
    LOG,
    LONG_BACKEND,
    PREFIX,
    PREFIX_FRONT,
    ROTATING_FRONT,
    ROTATING_ISSUER,
    RUN,
    SHORT_BACKEND,
    SHORT_FRONTS,
    STATE,
    SWIFT_PROXIES,
    front_url,
)
from .running import StackError, command, request, wait_for, write

NAME = "apache"
HOME = STATE / "apache"
CONFIG = HOME / "apache.conf"
MODULES = Path("/usr/lib/apache2/modules")
NEEDED = ("mpm_event", "authn_core", "authz_core", "authz_user", "headers", "proxy", "proxy_http",
          "setenvif", "socache_shmcb", "ssl", "substitute", "auth_openidc")  # fmt: skip

MAIN = """\
ServerRoot {home}
ServerName {host}
PidFile {home}/apache.pid
DefaultRuntimeDir {home}
{modules}
{user}
# Room for fifty clients at once, each with kept connections.
StartServers 2
ThreadsPerChild 64
ServerLimit 4
MaxRequestWorkers 256
KeepAliveTimeout 15
LimitRequestFieldSize 65536
ErrorLog {log}/apache-error.log
LogLevel warn auth_openidc:warn
SSLSessionCache shmcb:{home}/tls-sessions(512000)
SSLCertificateFile {certificate}
SSLCertificateKeyFile {key}

# For tests to count by: time, microseconds, client's port, method, path, status, request id, client.
LogFormat "%{{%Y-%m-%dT%H:%M:%S}}t.%{{usec_frac}}t %D %{{remote}}p %m %U%q %>s \\
%{{x-openstack-request-id}}o \\"%{{User-Agent}}i\\"" front

{fronts}
"""

FRONT = """\
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
  ServerName {host}
  SSLEngine on
  CustomLog {log}/access-{port}.log front
  ProxyPreserveHost On
  ProxyPass "{prefix}/" "http://127.0.0.1:{backend}/" retry=0 disablereuse=On timeout=120
  RequestHeader set X-Forwarded-Proto https
  RequestHeader {prefix_header}
  Header always set Referrer-Policy no-referrer

  # Keystone's catalog names the first front: each front names itself, and a test sees its own requests only.
  <Location "/">
    SetOutputFilter SUBSTITUTE
    SubstituteMaxLineLength 10m
    Substitute "s|{first}|{this}|n"
  </Location>

  OIDCProviderMetadataURL {issuer}/.well-known/openid-configuration
  OIDCClientID keystone
  OIDCClientSecret {secret}
  OIDCCryptoPassphrase {cookie}
  OIDCRedirectURI {prefix}/v3/redirect_uri
  OIDCScope "openid profile"
  OIDCClaimPrefix "OIDC-"
  OIDCClaimDelimiter ;
  OIDCRemoteUserClaim preferred_username
  OIDCCacheShmMax 2000
  OIDCSessionInactivityTimeout 3600
  # The children run as another user and cannot read the authority's certificate; all of it is on loopback.
  OIDCSSLValidateServer Off
{checks}

  <LocationMatch "^{prefix}/v3/(redirect_uri|auth/OS-FEDERATION/({protocol}/websso|websso/[^/]+))$">
    AuthType openid-connect
    Require valid-user
  </LocationMatch>
  <LocationMatch "^{prefix}/v3/OS-FEDERATION/{protocol}/auth$">
    {bearer}
  </LocationMatch>
</VirtualHost>
"""

# S3's signatures cover the host and the path, so both arrive at Swift as they were sent.
SWIFT = """\
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
  ServerName {host}
  SSLEngine on
  CustomLog {log}/access-{port}.log front
  ProxyPreserveHost On
  AllowEncodedSlashes NoDecode
  ProxyPass "/" "http://127.0.0.1:{backend}/" nocanon retry=0 disablereuse=On timeout=120
</VirtualHost>
"""

# Access tokens are checked by Keycloak's keys: with introspection this module writes them to its error log.
BY_KEYS = """\
  OIDCOAuthVerifyJwksUri {issuer}/protocol/openid-connect/certs
  OIDCOAuthRemoteUserClaim preferred_username
  OIDCOAuthSSLValidateServer Off"""
BEARER = "AuthType oauth20\n    Require valid-user"


def start(secrets: dict[str, str], fronts: Sequence[int] = ALL_FRONTS) -> None:
    """Starts Apache, or again when its configuration has changed, and waits until these fronts answer."""
    HOME.mkdir(parents=True, exist_ok=True)
    RUN.mkdir(parents=True, exist_ok=True)
    changed = write(CONFIG, _config(secrets), mode=0o600)
    if changed:
        command(["apache2", "-t", "-f", CONFIG], log=NAME)
        processes.stop(NAME)
    if processes.running(NAME) is None:
        (HOME / "apache.pid").unlink(missing_ok=True)
        processes.start(NAME, ["apache2", "-f", CONFIG, "-DFOREGROUND"], HOME, (*ALL_FRONTS, *SWIFT_PROXIES))
    for port in fronts:
        wait_for(f"apache on port {port}", partial(_answers, port))


def _config(secrets: dict[str, str]) -> str:
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    return MAIN.format(
        home=HOME,
        host=KEYSTONE_HOST,
        modules="\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in NEEDED),
        user=user,
        log=LOG,
        certificate=LEAF,
        key=KEY,
        fronts="\n".join([*(_front(port, secrets) for port in ALL_FRONTS), *map(_swift, SWIFT_PROXIES)]),
    )


def _front(port: int, secrets: dict[str, str]) -> str:
    checks, bearer = misconfigured.front(port) or (BY_KEYS, BEARER)
    issuer = ROTATING_ISSUER if port == ROTATING_FRONT else ISSUER
    prefix = PREFIX if port == PREFIX_FRONT else ""
    return FRONT.format(
        port=port,
        host=KEYSTONE_HOST,
        log=LOG,
        prefix=prefix,
        protocol="identity_providers/[^/]+/protocols/[^/]+",
        prefix_header=f"set X-Forwarded-Prefix {prefix}" if prefix else "unset X-Forwarded-Prefix",
        backend=SHORT_BACKEND if port in SHORT_FRONTS else LONG_BACKEND,
        first=front_url(FRONTS[0]),
        this=front_url(port),
        issuer=issuer,
        checks=checks.format(issuer=issuer),
        bearer=bearer,
        secret=secrets["oidc_client"],
        cookie=secrets["oidc_cookie"],
    )


def _swift(port: int) -> str:
    return SWIFT.format(port=port, host=KEYSTONE_HOST, log=LOG, backend=SWIFT_PROXIES[port])


def _answers(port: int) -> bool:
    processes.must_run(NAME)
    status, _, _ = request("GET", front_url(port))
    if status >= 500:
        raise StackError(f"front {port} answers {status}; see {LOG}/apache-error.log")
    return status == 200
