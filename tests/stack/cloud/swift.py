"""Swift, the object store behind Keystone's tokens: one replica, S3 beside its own API.

Two proxies lead to one store. The first remembers in memcached what Keystone said of a token, as operators
have it; the second asks at each request, for tests of revocation.
"""

import getpass
from pathlib import Path

from . import processes, venvs
from .layout import (
    CA,
    FRONTS,
    LONG_BACKEND,
    MEMCACHED_PORT,
    REGION,
    SERVICES_FRONT,
    SOURCE,
    STATE,
    SWIFT_FRONT,
    SWIFT_PROXIES,
    SWIFT_STORES,
    UNCACHED_SWIFT_FRONT,
    front_url,
)
from .running import command, request, wait_for, write

HOME = STATE / "swift"
DEVICES = HOME / "devices"
DEVICE = DEVICES / "d1"
MEMCACHED = "memcached"
PROXIES = {SWIFT_FRONT: "swift-proxy", UNCACHED_SWIFT_FRONT: "swift-proxy-uncached"}
PORTS = {
    **{f"swift-{store}": port for store, port in SWIFT_STORES.items()},
    **{name: SWIFT_PROXIES[front] for front, name in PROXIES.items()},
}
NAMES = (*PORTS, MEMCACHED)

# Swift wants something of its operator's own in the hashes of its paths.
COMMON = """\
[swift-hash]
swift_hash_path_suffix = stack
"""

SERVER = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
# Serves by itself, without children.
workers = 0
user = {user}
swift_dir = {home}
devices = {devices}
mount_check = false
disable_fallocate = true
log_level = WARNING
# The log is its standard error. This port is nobody's, so that none of it gets into the machine's own.
log_udp_host = 127.0.0.1
log_udp_port = 9
"""

STORE = """
[pipeline:main]
pipeline = {server}-server

[app:{server}-server]
use = egg:swift#{server}
"""

# S3's signatures are exchanged at Keystone (s3token), all other requests bring a token.
PROXY = """
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck{cache} bulk authtoken s3api s3token keystoneauth copy slo dlo
  versioned_writes symlink proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
# There is no other server to turn to when one was slow.
error_suppression_limit = 1000000
node_timeout = 60
recoverable_node_timeout = 60

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:gatekeeper]
use = egg:swift#gatekeeper

[filter:healthcheck]
use = egg:swift#healthcheck

[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}

[filter:bulk]
use = egg:swift#bulk

[filter:s3api]
use = egg:swift#s3api
location = {region}

[filter:s3token]
use = egg:swift#s3token
# Straight to Keystone: it cannot be told about an authority of certificates.
auth_uri = {keystone}
auth_url = {keystone}
# Revoked is refused at once, here and below.
secret_cache_duration = 0
delay_auth_decision = true
{service_user}

[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = {front}
auth_url = {services_front}
cafile = {ca}
{token_cache}
include_service_catalog = false
delay_auth_decision = true
{service_user}

[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member

[filter:copy]
use = egg:swift#copy

[filter:slo]
use = egg:swift#slo

[filter:dlo]
use = egg:swift#dlo

[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true

[filter:symlink]
use = egg:swift#symlink
"""

SERVICE_USER = """\
auth_type = password
username = swift
password = {password}
user_domain_id = default
project_name = service
project_domain_id = default"""


def start(secrets: dict[str, str]) -> None:
    """Makes what is missing, starts memcached and Swift's servers, and waits until they answer."""
    DEVICE.mkdir(parents=True, exist_ok=True)
    HOME.chmod(0o700)
    _make_rings()
    changed = write(HOME / "swift.conf", COMMON)
    for name in PORTS:
        changed |= write(_config(name), _config_text(name, secrets), mode=0o600)
    if processes.running(MEMCACHED) is None:
        _start_memcached()
    for name in PORTS:
        if changed:
            processes.stop(name)
        if processes.running(name) is None:
            _start(name)
    wait_for("swift", _answers)


def _config(name: str) -> Path:
    return HOME / f"{name}.conf"


def _config_text(name: str, secrets: dict[str, str]) -> str:
    text = SERVER.format(port=PORTS[name], user=getpass.getuser(), home=HOME, devices=DEVICES)
    if name not in PROXIES.values():
        return text + STORE.format(server=name.removeprefix("swift-"))
    cached = name == PROXIES[SWIFT_FRONT]
    return text + PROXY.format(
        cache=" cache" if cached else "",
        memcached=MEMCACHED_PORT,
        token_cache="cache = swift.cache" if cached else "token_cache_time = -1",
        region=REGION,
        keystone=f"http://127.0.0.1:{LONG_BACKEND}/v3",
        front=front_url(FRONTS[0]),
        services_front=front_url(SERVICES_FRONT),
        ca=CA,
        service_user=SERVICE_USER.format(password=secrets["swift"]),
    )


def _make_rings() -> None:
    done = HOME / "rings-made"
    if done.exists():
        return
    stores = [f"{server}={port}" for server, port in SWIFT_STORES.items()]
    python = venvs.path("swift") / "bin" / "python"
    command([python, SOURCE / "swift_rings.py", HOME, DEVICE.name, *stores], log="swift-rings")
    done.touch()


def _start_memcached() -> None:
    # It refuses to be root without being told to. Nothing of it lies on the disk.
    argv = ["memcached", "-l", "127.0.0.1", "-p", str(MEMCACHED_PORT), "-m", "64", "-u", getpass.getuser()]
    processes.start(MEMCACHED, argv, HOME, [MEMCACHED_PORT])


def _start(name: str) -> None:
    kind = "proxy" if name in PROXIES.values() else name.removeprefix("swift-")
    program = venvs.path("swift") / "bin" / f"swift-{kind}-server"
    # -v: its log to standard error as well.
    argv: list[str | Path] = [venvs.path("swift") / "bin" / "python", program, _config(name), "-v"]
    processes.start(name, argv, HOME, [PORTS[name]], {"PYTHONDONTWRITEBYTECODE": "1"})


def _answers() -> bool:
    for name in NAMES:
        processes.must_run(name)
    healthy = [
        request("GET", f"http://127.0.0.1:{port}/healthcheck")[0] == 200 for port in SWIFT_PROXIES.values()
    ]
    return all(healthy)
