"""Swift, the object store behind Keystone's tokens: one replica, four servers, S3 beside its own API."""

import getpass
from pathlib import Path

from . import processes, venvs
from .layout import CA, FRONTS, LONG_BACKEND, REGION, SERVICES_FRONT, SOURCE, STATE, SWIFT_BACKENDS, front_url
from .running import command, request, wait_for, write

HOME = STATE / "swift"
DEVICES = HOME / "devices"
DEVICE = DEVICES / "d1"
NAMES = {server: f"swift-{server}" for server in SWIFT_BACKENDS}

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
pipeline = catch_errors gatekeeper healthcheck bulk authtoken s3api s3token keystoneauth copy slo dlo
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
token_cache_time = -1
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
    """Makes what is missing, starts the four servers, and waits until they answer."""
    DEVICE.mkdir(parents=True, exist_ok=True)
    HOME.chmod(0o700)
    _make_rings()
    changed = write(HOME / "swift.conf", COMMON)
    for server, port in SWIFT_BACKENDS.items():
        changed |= write(_config(server), _config_text(server, port, secrets), mode=0o600)
    for server, port in SWIFT_BACKENDS.items():
        if changed:
            processes.stop(NAMES[server])
        if processes.running(NAMES[server]) is None:
            _start(server, port)
    wait_for("swift", _answers)


def _config(server: str) -> Path:
    return HOME / f"{server}.conf"


def _config_text(server: str, port: int, secrets: dict[str, str]) -> str:
    text = SERVER.format(port=port, user=getpass.getuser(), home=HOME, devices=DEVICES)
    if server != "proxy":
        return text + STORE.format(server=server)
    return text + PROXY.format(
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
    stores = [f"{server}={port}" for server, port in SWIFT_BACKENDS.items() if server != "proxy"]
    python = venvs.path("swift") / "bin" / "python"
    command([python, SOURCE / "swift_rings.py", HOME, DEVICE.name, *stores], log="swift-rings")
    done.touch()


def _start(server: str, port: int) -> None:
    program = venvs.path("swift") / "bin" / f"swift-{server}-server"
    # -v: its log to standard error as well.
    argv: list[str | Path] = [venvs.path("swift") / "bin" / "python", program, _config(server), "-v"]
    processes.start(NAMES[server], argv, HOME, [port], {"PYTHONDONTWRITEBYTECODE": "1"})


def _answers() -> bool:
    for name in NAMES.values():
        processes.must_run(name)
    status, _, _ = request("GET", f"http://127.0.0.1:{SWIFT_BACKENDS['proxy']}/healthcheck")
    return status == 200
