"""What the caller's process says: entry, folder, proxy, terminal, display."""

from __future__ import annotations

import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_SUFFIXES = (".yaml", ".yml", ".json")


class Caller(NamedTuple):
    """What the program that loads the plugin knows of the entry, and does not hand over."""

    name: str | None
    auth_url: str | None
    #: Another address than the entry's that the program asks for: `--os-auth-url`, or a key beside `auth:`.
    asks_for: str | None = None


def registers_with_keystoneauth() -> bool:
    """Whether keystoneauth's own support of oslo.config or argparse asks for the options."""
    try:
        frame = sys._getframe(2)  # the caller of get_options
    except (AttributeError, ValueError):  # not CPython, or called by nobody
        return False
    for _ in range(4):
        module = frame.f_globals.get("__name__")
        if module in ("keystoneauth1.loading.conf", "keystoneauth1.loading.cli"):
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


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
    if not isinstance(config, dict):
        return Caller(name, environment.auth_url)
    return Caller(name, config.get("auth_url"), config.get("auth_url"))


def is_same_keystone(one: str, other: str) -> bool:
    """Whether two addresses lead to one Keystone: some end in its version, some do not."""
    return _root(one) == _root(other)


def without_userinfo(url: str) -> str:
    """The address without a name and a password, which no message may show."""
    scheme, separator, rest = url.rpartition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def _root(url: str) -> str:
    return url.rstrip("/").removesuffix("/v3").rstrip("/").lower()


def source_in_current_folder() -> dict[str, Any] | None:
    """The configuration file of the current directory that openstacksdk reads, if there is one.

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


def ca_bundle() -> tuple[str, str | None]:
    """The variable and the CA file that `requests` takes from it where `verify` is simply true."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if file := os.environ.get(variable):
            return variable, file
    return "", None


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


# Where the user's browser is, as `src/platform/browser.rs` has it; tests/browser-locations.json tests both.
HERE, BEYOND_SSH, BEYOND_EDITOR = "here", "beyond_ssh", "beyond_editor"
WEB_TERMINAL, WINDOWS, NOWHERE = "web_terminal", "windows", "nowhere"

_OF_WEB_TERMINALS = ("JUPYTERHUB_USER", "VSCODE_PROXY_URI", "GOOGLE_CLOUD_SHELL")
_OF_JUPYTER = ("JUPYTER_SERVER_URL", "JPY_PARENT_PID")
_WEB_TERMINALS = ("ttyd", "gotty", "wetty", "jupyter")
_SSH_SERVERS = ("sshd", "sshd-session", "sshd-auth", "dropbear", "mosh-server")
_OF_TMUX = ("SSH_CONNECTION", "DISPLAY", "WAYLAND_DISPLAY")

_IN_ANY_BROWSER = "open the address in any browser, also on another device"
#: What the user should know, where a sign-in's page is on this machine, and where it is anywhere.
_ADVICE = {
    BEYOND_SSH: (
        (
            "your browser is at the other end of SSH; sign in with `ksb login`, which shows "
            "the ssh command that leads here"
        ),
        _IN_ANY_BROWSER,
    ),
    BEYOND_EDITOR: (
        (
            "your editor opens the browser on your own computer; it must forward the ports of this sign-in "
            "to the same ports there, as its list of forwarded ports shows"
        ),
        None,
    ),
    WEB_TERMINAL: (
        (
            "this terminal is in a browser that does not reach this machine's ports; without ssh to this "
            "machine, use an entry with `sign_in: oidc_device`"
        ),
        "open the address in another tab of your browser",
    ),
    WINDOWS: ("Windows opens the browser; it reaches this machine by WSL's localhost", None),
    NOWHERE: ("no browser is known here; open the address in one on this computer", _IN_ANY_BROWSER),
}


def browser_location() -> str:
    """Where the user's browser is."""
    return find_browser(os.environ, _names_of_parents(), _tmux_environment())


def find_browser(variables: Mapping[str, str], parents: list[str], tmux: str) -> str:
    """The same from the environment, the names of the parents, and what `tmux show-environment` printed."""

    def value(name: str) -> str:
        return _current(variables, tmux, name)

    opens = not value("KSB_NO_BROWSER")
    if any(map(value, _OF_WEB_TERMINALS)):
        return WEB_TERMINAL
    if opens and (browser := value("BROWSER")):
        return BEYOND_EDITOR if "/helpers/browser" in browser else HERE
    if value("SSH_CONNECTION") or any(name in _SSH_SERVERS for name in parents):
        return BEYOND_SSH
    if opens and value("WSL_INTEROP"):
        return WINDOWS
    if opens and (value("DISPLAY") or value("WAYLAND_DISPLAY")):
        return HERE
    if any(map(value, _OF_JUPYTER)) or any(name.startswith(_WEB_TERMINALS) for name in parents):
        return WEB_TERMINAL
    return NOWHERE


def can_be_opened(location: str) -> bool:
    """Whether a program of this machine can open it."""
    return location in (HERE, BEYOND_EDITOR, WINDOWS)


def is_remote(location: str) -> bool:
    """Whether it reaches this machine's ports through an SSH tunnel at most."""
    return location in (BEYOND_SSH, WEB_TERMINAL)


def advice(location: str, *, is_local: bool) -> str | None:
    """What the user should know of it."""
    local, anywhere = _ADVICE.get(location, (None, None))
    return local if is_local else anywhere


def _current(variables: Mapping[str, str], tmux: str, name: str) -> str:
    """A variable as it is now: tmux knows how its user attached, and says `NAME=value` or `-NAME`."""
    if name in _OF_TMUX:
        for line in tmux.splitlines():
            if line == f"-{name}":
                return ""
            if line.startswith(f"{name}="):
                return line.partition("=")[2]
    return variables.get(name, "")


def _tmux_environment() -> str:
    if not os.environ.get("TMUX"):
        return ""
    import subprocess

    command = ["tmux", "show-environment"]
    try:
        asked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return asked.stdout.decode(errors="replace")


def _names_of_parents() -> list[str]:
    names, pid = [], os.getppid()
    while pid > 0:
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                names.append(comm.read().rstrip("\n"))
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
                # The second field is the command's name in parentheses, which may hold anything.
                pid = int(stat.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return names


def this_machine() -> tuple[str, str]:
    """The last words of the `ssh` command that leads here, and which of them is only a guess.

    As `src/cli/tunnel.rs` has it.
    """
    user = os.environ.get("USER") or os.environ.get("LOGNAME")
    connection = _current(os.environ, _tmux_environment(), "SSH_CONNECTION")
    words = connection.split(" ")  # client, its port, server, its port
    address, port = (words[2], words[3]) if len(words) == 4 else (os.uname().nodename, "22")
    guess = f"{user}@{address}" if user else address
    return (guess if port == "22" else f"-p {port} {guess}"), guess


class Prompting:
    """Whether a person started this process, and can wait with it."""

    def __init__(self) -> None:
        wish = os.environ.get("KSB_PROMPT", "").strip().lower()
        display = has_display()
        #: May a browser be opened at all?
        self.browser = not os.environ.get("KSB_NO_BROWSER")
        #: Can a person be asked for a password?
        self.terminal = terminal = has_terminal()
        #: May a sign-in be started, and a browser be opened?
        self.allowed = wish == "always" or (wish != "never" and (terminal or display))
        #: May this process wait as long as the sign-in takes? Else it gives up after a moment, with the URL.
        self.patient = wish == "always" or (wish != "never" and terminal)

    @cached_property
    def location(self) -> str:
        """Where the user's browser is."""
        return browser_location()
