"""Keystone from PyPI under uWSGI: two instances on one database, with tokens of different lifetimes."""

import base64
import re
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from . import postgres, processes, releases, venvs
from .layout import (
    CALLBACK_PORTS,
    FRONTS,
    LOG,
    LONG_BACKEND,
    LONG_LIFETIME,
    REGION,
    SHORT_BACKEND,
    SHORT_LIFETIME,
    STATE,
    front_url,
)
from .running import StackError, command, request, wait_for, write

HOME = STATE / "keystone"
BACKENDS = {"long": LONG_BACKEND, "short": SHORT_BACKEND}
KEYS = HOME / "fernet-keys", HOME / "credential-keys"
WORKERS = 2  # of each: with one, thirty-two clients at once wait for the slowest

CONFIG = """\
[DEFAULT]
log_file = {log}
insecure_debug = false

[database]
connection = {database}

[oslo_middleware]
enable_proxy_headers_parsing = true

[fernet_tokens]
key_repository = {home}/fernet-keys

[fernet_receipts]
key_repository = {home}/fernet-keys

[identity]
# Of passwords and of application credentials' secrets. With the default (12) each costs a quarter of a second
# of a core, and the tests use hundreds.
password_hash_rounds = 4

[credential]
key_repository = {home}/credential-keys

[token]
provider = fernet
expiration = {lifetime}

[auth]
methods = external,password,token,totp,oauth1,mapped,application_credential,openid{methods}

[openid]
remote_id_attribute = HTTP_OIDC_ISS

[federation]
{dashboards}
sso_callback_template = {venv}/etc/keystone/sso_callback_template.html
{more}"""

# So that the administrator of a project may fill the cloud, as in the newest release.
EARLIER = """
[oslo_policy]
enforce_scope = false
enforce_new_defaults = false
"""


APPLICATION = """\
try:
    from keystone.wsgi.api import application
except ModuleNotFoundError:  # before 2025.1
    from keystone.server.wsgi import initialize_public_application
    application = initialize_public_application()
"""


def config(instance: str) -> Path:
    return HOME / f"{instance}.conf"


def prepare(admin_password: str) -> None:
    """Configuration, keys and the database with its first administrator."""
    HOME.mkdir(parents=True, exist_ok=True)
    HOME.chmod(0o700)
    write(HOME / "application.py", APPLICATION)
    _write_config("long", LONG_LIFETIME)
    _write_config("short", _short_lifetime())
    done = postgres.HOME / "keystone-made"  # beside the database: with a new one it is to be done again
    if done.exists():
        return
    for repository in KEYS:
        _make_keys(repository)
    _manage("db_sync")
    url = front_url(FRONTS[0])
    _manage("bootstrap", "--bootstrap-service-name", "keystone", "--bootstrap-region-id", REGION,
            "--bootstrap-public-url", url, "--bootstrap-internal-url", url, "--bootstrap-admin-url", url,
            environment={"OS_BOOTSTRAP_PASSWORD": admin_password})  # fmt: skip
    done.touch()


def start(instances: Sequence[str] = tuple(BACKENDS)) -> None:
    """Starts instances and waits until they answer."""
    for instance in instances:
        if processes.running(f"keystone-{instance}") is None:
            _start(instance)
    for instance in instances:
        wait_for(f"keystone-{instance}", partial(_answers, instance))


def set_short_lifetime(seconds: int) -> None:
    """Gives the second instance another token lifetime; returns when it has it."""
    if processes.running("keystone-short") is None:
        raise StackError("the cloud does not run: `stack up` first")
    _write_config("short", seconds)
    start()


def _write_config(instance: str, lifetime: int) -> None:
    """Writes the configuration and ends an instance that has another one.

    uWSGI's own reload is of no use: the one from PyPI starts itself again outside of its Python environment.
    """
    dashboards = "\n".join(
        f"trusted_dashboard = http://localhost:{port}/auth/websso/" for port in CALLBACK_PORTS
    )
    text = CONFIG.format(
        home=HOME,
        venv=venvs.path("keystone"),
        database=postgres.URL,
        log=LOG / f"keystone-{instance}-api.log",
        lifetime=lifetime,
        dashboards=dashboards,
        # Earlier ones know it under no name.
        methods="" if releases.keystone() else ",ec2credential",
        more=EARLIER if releases.keystone() else "",
    )
    if write(config(instance), text, mode=0o600):
        processes.stop(f"keystone-{instance}")


def _short_lifetime() -> int:
    """What `stack ttl` asked for, if it did."""
    text = config("short").read_text() if config("short").exists() else ""
    found = re.search(r"^expiration = (\d+)$", text, re.M)
    return int(found[1]) if found else SHORT_LIFETIME


def _make_keys(repository: Path) -> None:
    """As `fernet_setup` and `credential_setup` do, without two starts of Python: 0 is staged, 1 in use."""
    repository.mkdir(mode=0o700, exist_ok=True)
    for number in ("0", "1"):
        key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        write(repository / number, key, mode=0o600)


def _manage(*arguments: str, environment: dict[str, str] | None = None) -> None:
    tool = venvs.path("keystone") / "bin" / "keystone-manage"
    argv: list[str | Path] = [tool, "--config-file", config("long"), *arguments]
    command(argv, log="keystone-manage", environment=environment)


def _start(instance: str) -> None:
    uwsgi = venvs.path("keystone") / "bin" / "uwsgi"
    argv: list[str | Path] = [
        uwsgi, "--http-socket", f"127.0.0.1:{BACKENDS[instance]}", "--master", "--processes", str(WORKERS),
        "--die-on-term", "--need-app", "--buffer-size", "65535", "--listen", "128",
        "--venv", venvs.path("keystone"), "--wsgi-file", HOME / "application.py", "--disable-logging",
    ]  # fmt: skip
    environment = {"OS_KEYSTONE_CONFIG_FILES": str(config(instance)), "PYTHONDONTWRITEBYTECODE": "1"}
    processes.start(f"keystone-{instance}", argv, HOME, [BACKENDS[instance]], environment)


def _answers(instance: str) -> bool:
    processes.must_run(f"keystone-{instance}")
    status, _, _ = request("GET", f"http://127.0.0.1:{BACKENDS[instance]}/v3")
    if status >= 500:
        raise StackError(f"keystone-{instance} answers {status}; see {LOG}")
    return status == 200
