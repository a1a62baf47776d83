"""What the caller's process says: entry, folder, proxy, terminal, display."""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_SUFFIXES = (".yaml", ".yml", ".json")


class Caller(NamedTuple):
    """What the program that loads the plugin knows of the entry, and does not hand over."""

    name: str | None
    auth_url: str | None


def caller_of_loader() -> Caller:
    """Name of the clouds.yaml entry that is being loaded, and an `auth_url` that stands beside its `auth:`.

    openstacksdk hands the plugin the entry's declared options and keeps the rest to itself. `OS_CLOUD` is
    another entry as soon as someone says `--os-cloud` or `connect(cloud=…)`, and a message that names another
    cloud is worse than one that names none. So this looks at the function that called the loader, which is
    always `OpenStackConfig.get_one`. Where it is not, the environment has to do.
    """
    environment = Caller(os.environ.get("OS_CLOUD") or None, os.environ.get("OS_AUTH_URL") or None)
    try:
        frame = sys._getframe(2)  # the caller of load_from_options
    except (AttributeError, ValueError):  # not CPython, or called by nobody
        return environment
    scope = frame.f_locals
    if frame.f_globals.get("__name__") != "openstack.config.loader" or "cloud" not in scope:
        return environment
    name, config = scope["cloud"], scope.get("config")
    if name in ("defaults", os.environ.get("OS_CLOUD_NAME", "envvars")):  # made up by openstacksdk
        name = None
    return Caller(name, config.get("auth_url") if isinstance(config, dict) else environment.auth_url)


def source_in_current_folder() -> dict[str, Any] | None:
    """The configuration file of the current folder that openstacksdk reads, if there is one.

    Whoever wrote that folder may have chosen the auth URL, so the broker asks before it sends a person there.
    """
    override = os.environ.get("OS_CLIENT_CONFIG_FILE")
    secure_override = os.environ.get("OS_CLIENT_SECURE_FILE")
    stems = [
        *([] if override and os.path.exists(override) else ["clouds"]),
        *([] if secure_override and os.path.exists(secure_override) else ["secure"]),
        "clouds-public",
    ]
    try:
        here = os.getcwd()
    except OSError:
        return None
    if here in _own_folders():
        return None
    for stem in stems:
        for suffix in _SUFFIXES:
            file = os.path.join(here, stem + suffix)
            if os.path.exists(file):
                return {"file": file, "current_folder": True}
    return None


def _own_folders() -> tuple[str, ...]:
    """Where openstacksdk looks besides: whoever stands there is not in someone else's repository."""
    homes = (os.environ.get("XDG_CONFIG_HOME", ""), os.path.expanduser("~/.config"), "/etc/xdg", "/etc")
    return tuple(os.path.join(home, "openstack") for home in homes if os.path.isabs(home))


def ca_bundle() -> str | None:
    """The CA file that `requests` takes from the environment where `verify` is simply true."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or None


def proxy_for(url: str) -> str | None:
    """The proxy that `requests` would use for `url`."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    host = parts.hostname or ""
    except_for = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if (
        not proxy
        or not host
        or proxy_bypass(host, {"no": except_for})
        or _is_in(except_for, parts.netloc, host)
    ):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_in(except_for: str, netloc: str, host: str) -> bool:
    """What `requests` understands in `no_proxy` beyond urllib: networks, and any suffix."""
    entries = [entry for entry in except_for.replace(" ", "").split(",") if entry]
    if not entries:
        return False
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        authority = netloc.rpartition("@")[2]
        return any(host.endswith(entry) or authority.endswith(entry) for entry in entries)
    for entry in entries:
        try:
            if address in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


def has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def has_display() -> bool:
    """Whether this process runs in a graphical session."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def sees_browser() -> bool:
    """Whether there is a browser that a person sees; one at the other end of SSH is slow at best."""
    if os.environ.get("KSB_NO_BROWSER"):
        return False
    return bool(os.environ.get("BROWSER")) or (has_display() and not os.environ.get("SSH_CONNECTION"))


def is_remote() -> bool:
    """Whether the person's browser is at the other end of an SSH session. `BROWSER` says that one is here."""
    here = os.environ.get("BROWSER") and not os.environ.get("KSB_NO_BROWSER")
    return bool(os.environ.get("SSH_CONNECTION")) and not here


def this_machine() -> tuple[str, str]:
    """The last words of the `ssh` command that leads here, and which of them is only a guess.

    As `src/cli/tunnel.rs` has it.
    """
    user = os.environ.get("USER") or os.environ.get("LOGNAME")
    words = os.environ.get("SSH_CONNECTION", "").split(" ")  # client, its port, server, its port
    address, port = (words[2], words[3]) if len(words) == 4 else (os.uname().nodename, "22")
    guess = f"{user}@{address}" if user else address
    return (guess if port == "22" else f"-p {port} {guess}"), guess


class Prompting:
    """Whether a person started this process, and can wait with it."""

    def __init__(self) -> None:
        wish = os.environ.get("KSB_PROMPT", "").strip().lower()
        self.display = has_display()
        #: May a browser be opened at all?
        self.browser = not os.environ.get("KSB_NO_BROWSER")
        #: Is the person's browser on another machine?
        self.remote = is_remote()
        #: Can a person be asked for a password?
        self.terminal = terminal = has_terminal()
        #: May a sign-in be started, and a browser be opened?
        self.allowed = wish == "always" or (wish != "never" and (terminal or self.display))
        #: May this process wait as long as the sign-in takes? Else it gives up after a moment, with the URL.
        self.patient = wish == "always" or (wish != "never" and terminal)
