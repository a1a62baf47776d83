"""Keystone from PyPI under uWSGI: two processes on one database, with tokens of different lifetimes."""

import getpass
import grp
import os
import re
from functools import partial
from pathlib import Path

from . import processes, venvs
from .layout import (
    CALLBACK_PORTS,
    FRONTS,
    LOG,
    LONG_BACKEND,
    LONG_LIFETIME,
    SHORT_BACKEND,
    SHORT_LIFETIME,
    SOURCE,
    STATE,
    front_url,
)
from .running import StackError, command, request, wait_for, write

HOME = STATE / "keystone"
BACKENDS = {"long": LONG_BACKEND, "short": SHORT_BACKEND}

CONFIG = """\
[DEFAULT]
log_file = {log}
insecure_debug = false

[database]
connection = sqlite:///{home}/keystone.db?timeout=60
# Nobody mourns this database after a power cut, and without waiting for the disk it is ten times as fast.
sqlite_synchronous = false

[oslo_middleware]
enable_proxy_headers_parsing = true

[fernet_tokens]
key_repository = {home}/fernet-keys

[fernet_receipts]
key_repository = {home}/fernet-keys

[credential]
key_repository = {home}/credential-keys

[token]
provider = fernet
expiration = {lifetime}

[auth]
methods = external,password,token,totp,oauth1,mapped,application_credential,openid

[openid]
remote_id_attribute = HTTP_OIDC_ISS

[federation]
{dashboards}
sso_callback_template = {venv}/etc/keystone/sso_callback_template.html
"""


def config(instance: str) -> Path:
    return HOME / f"{instance}.conf"


def prepare(admin_password: str) -> None:
    """Configuration, keys and the database with its first administrator."""
    HOME.mkdir(parents=True, exist_ok=True)
    HOME.chmod(0o700)
    _write_config("long", LONG_LIFETIME)
    _write_config("short", _short_lifetime())
    done = HOME / "database-made"
    if done.exists():
        return
    url = front_url(FRONTS[0])
    me, group = getpass.getuser(), grp.getgrgid(os.getegid()).gr_name
    owner = ["--keystone-user", me, "--keystone-group", group]
    _manage("fernet_setup", *owner)
    _manage("credential_setup", *owner)
    _manage("db_sync")
    _manage("bootstrap", "--bootstrap-service-name", "keystone", "--bootstrap-region-id", "RegionOne",
            "--bootstrap-public-url", url, "--bootstrap-internal-url", url, "--bootstrap-admin-url", url,
            environment={"OS_BOOTSTRAP_PASSWORD": admin_password})  # fmt: skip
    done.touch()


def start() -> None:
    """Starts both processes and waits until they answer."""
    for instance in BACKENDS:
        if processes.running(f"keystone-{instance}") is None:
            _start(instance)
    for instance in BACKENDS:
        wait_for(f"keystone-{instance}", partial(_answers, instance))


def set_short_lifetime(seconds: int) -> None:
    """Gives the second process another token lifetime; returns when it has it."""
    if processes.running("keystone-short") is None:
        raise StackError("the cloud does not run: `stack up` first")
    _write_config("short", seconds)
    start()


def _write_config(instance: str, lifetime: int) -> None:
    """Writes the configuration and ends a process that has another one.

    uWSGI's own reload is of no use: the one from PyPI starts itself again outside of its Python environment.
    """
    dashboards = "\n".join(
        f"trusted_dashboard = http://localhost:{port}/auth/websso/" for port in CALLBACK_PORTS
    )
    text = CONFIG.format(
        home=HOME,
        venv=venvs.path("keystone"),
        log=LOG / f"keystone-{instance}-api.log",
        lifetime=lifetime,
        dashboards=dashboards,
    )
    if write(config(instance), text, mode=0o600):
        processes.stop(f"keystone-{instance}")


def _short_lifetime() -> int:
    """What `stack ttl` asked for, if it did."""
    text = config("short").read_text() if config("short").exists() else ""
    found = re.search(r"^expiration = (\d+)$", text, re.M)
    return int(found[1]) if found else SHORT_LIFETIME


def _manage(*arguments: str, environment: dict[str, str] | None = None) -> None:
    tool = venvs.path("keystone") / "bin" / "keystone-manage"
    argv: list[str | Path] = [tool, "--config-file", config("long"), *arguments]
    command(argv, log="keystone-manage", environment=environment)


def _start(instance: str) -> None:
    uwsgi = venvs.path("keystone") / "bin" / "uwsgi"
    # One process without threads: SQLite's writers take turns anyway (keystone_app.py).
    argv: list[str | Path] = [
        uwsgi, "--http-socket", f"127.0.0.1:{BACKENDS[instance]}", "--master", "--processes", "1",
        "--die-on-term", "--need-app", "--buffer-size", "65535", "--listen", "128", "--lazy-apps",
        "--venv", venvs.path("keystone"), "--pythonpath", SOURCE,
        "--module", "keystone_app:application", "--disable-logging",
    ]  # fmt: skip
    environment = {"OS_KEYSTONE_CONFIG_FILES": str(config(instance)), "PYTHONDONTWRITEBYTECODE": "1"}
    processes.start(f"keystone-{instance}", argv, HOME, [BACKENDS[instance]], environment)


def _answers(instance: str) -> bool:
    processes.must_run(f"keystone-{instance}")
    status, _, _ = request("GET", f"http://127.0.0.1:{BACKENDS[instance]}/v3")
    if status >= 500:
        raise StackError(f"keystone-{instance} answers {status}; see {LOG}")
    return status == 200
