"""Workloads: where the token of a program without a person comes from."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from typing import Any

from keystoneauth1 import exceptions

from keystoneauth_broker.environment import proxy_for
from keystoneauth_broker.errors import BrokerError

#: Options of a workload, besides those of an OpenID client.
OPTIONS = (
    "access_token",
    "access_token_endpoint",
    "token_audience",
    "token_command",
    "token_command_limit",
    "token_env",
    "token_file",
)

#: Seconds that a command may take where the entry does not say.
_LIMIT = 30


def workload(options: dict[str, Any]) -> dict[str, Any]:
    """The source of the token, as `src/clouds/workload.rs` has it."""

    def option(name: str) -> str | None:
        value = options.get(name)
        return None if value is None else str(value).strip() or None

    if path := option("token_file"):
        return {"file": {"path": os.path.abspath(os.path.expanduser(path))}}
    if name := option("token_env"):
        if not (token := os.environ.get(name)):
            raise exceptions.OptionError(f"v3broker: token_env: the variable {name} is not set here")
        return {"token": {"from": f"${name}", "token": token}}
    if command := option("token_command"):
        return {"command": {"command": command, "limit": _limit(option("token_command_limit"))}}
    if token := option("access_token"):
        return {"token": {"from": "access_token", "token": token}}
    if option("client_id"):
        return {"client": _client(option)}
    url, request_token = (os.environ.get(f"ACTIONS_ID_TOKEN_REQUEST_{part}") for part in ("URL", "TOKEN"))
    if url and request_token:
        found = {"audience": option("token_audience"), "proxy": proxy_for(url)}
        found = {key: value for key, value in found.items() if value is not None}
        return {"github": {"url": url, "request_token": request_token, **found}}
    raise exceptions.OptionError(
        "v3broker: sign_in: workload needs a token: token_file, token_env (at GitLab the variable that "
        "id_tokens: names), token_command or access_token, or client_id and client_secret, or GitHub Actions "
        "with permissions: id-token: write"
    )


def _limit(given: str | None) -> int:
    if given is None:
        return _LIMIT
    if not given.isdigit() or not 1 <= int(given) <= 600:
        raise exceptions.OptionError("v3broker: token_command_limit is a number of seconds up to 600")
    return int(given)


def _client(option: Any) -> dict[str, Any]:
    token, discovery = option("access_token_endpoint"), option("discovery_endpoint")
    for name in ("client_id", "client_secret"):
        if option(name) is None:
            raise exceptions.OptionError(f"v3broker: this sign_in needs {name}")
    if not (token or discovery):
        raise exceptions.OptionError(
            "v3broker: this sign_in needs discovery_endpoint or access_token_endpoint"
        )
    kind = option("access_token_type")
    if kind not in (None, "access_token", "id_token"):
        raise exceptions.OptionError(f"v3broker: access_token_type is access_token or id_token, not {kind!r}")
    client = {
        "token_endpoint": token,
        "discovery_endpoint": discovery,
        "client_id": option("client_id"),
        "client_secret": option("client_secret"),
        "scope": option("openid_scope"),
        "bearer": kind,
        "proxy": proxy_for(token or discovery),
    }
    return {key: value for key, value in client.items() if value is not None}


def fetch(cloud: dict[str, Any], label: str) -> dict[str, Any]:
    """The cloud with what its command prints: the agent starts no program, so it runs here."""
    sign_in = cloud.get("sign_in") or {}
    command = (sign_in.get("workload") or {}).get("command")
    if command is None:
        raise BrokerError("the agent asks for a token of no command", cloud=label)
    line = command["command"]
    if (cloud.get("source") or {}).get("current_folder"):
        # Who trusts a cloned repository's cloud has not said that its commands may run.
        raise BrokerError(
            f"`{line}` is not run: the entry may lie in the current directory",
            cloud=label,
            code="cloud-not-trusted",
            remedy="move the entry to ~/.config/openstack/clouds.yaml",
        )
    try:
        token = _output(line, command["limit"])
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise BrokerError(
            f"`{line}`, the command for a token, failed: {_why(error)}",
            cloud=label,
            code="invalid-config",
            remedy="run it yourself, and correct `token_command`",
        ) from None
    return {**cloud, "sign_in": {**sign_in, "workload": {"command": {**command, "token": token}}}}


def _output(line: str, limit: int) -> str:
    # In a session of its own: with all that it starts it can be ended.
    with subprocess.Popen(
        shlex.split(line), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            printed, _ = process.communicate(timeout=limit)
        except BaseException:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, line)
    return printed


def _why(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"took more than {error.timeout:.0f} s"
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit status {error.returncode}"
    return str(error)
