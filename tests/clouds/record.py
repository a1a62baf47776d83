#!/usr/bin/env python3
"""Records what openstacksdk itself makes of each case, into expected.json.

    PYTHON tests/clouds/record.py [CASE …]

PYTHON (3.11 or later) has openstacksdk: recorded with 4.22.0, keystoneauth1 5.18.1, requests 2.34 and
PyYAML 6.0.3. Of the machine's own configuration only /etc/openstack is seen, which should be empty.

The cases are the tables of the TOML files here:

    about   what it shows
    files   what lies in a directory made for the case: the current one of the process that looks for its
            cloud, and with `home` in it that process's HOME
    cloud   the entry to resolve; without it, the default one
    env     the environment; `{case}` stands for the directory
    ours    where ksb differs on purpose: `why`, and either `error` (a part of its text) or the fields that
            differ from what the SDK gives, or from a plain result where the SDK fails
    says    texts that must occur in ksb's warnings or error (the SDK's are not compared)

What is recorded: the options that reach the authentication plugin, the scope that keystoneauth asks
Keystone for, and the certificates and proxy that requests uses. For an entry of a file the variables that
the `openstack` command puts over it (OS_REGION_NAME, OS_CACERT, OS_CERT, OS_KEY) are given to `get_one`, as
osc-lib does.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import tomllib
import warnings
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
EXPECTED = HERE / "expected.json"


def main(names: list[str]) -> None:
    cases = {}
    for file in sorted(HERE.glob("*.toml")):
        cases |= tomllib.loads(file.read_text())
    before = json.loads(EXPECTED.read_text()) if names else {}
    record = {
        name: before[name] if names and name not in names else run(case) for name, case in cases.items()
    }
    EXPECTED.write_text(json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    for name in names or cases:
        print(name, "-", record[name].get("error", "resolved"))


def run(case: dict[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        folder = os.path.realpath(folder)
        for name, text in case.get("files", {}).items():
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        env = {name: value.replace("{case}", folder) for name, value in case.get("env", {}).items()}
        seen = subprocess.run(
            [sys.executable, __file__, "--resolve", *([case["cloud"]] if "cloud" in case else [])],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": f"{folder}/home", "PYTHONUTF8": "1", **env},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return json.loads(seen.stdout.replace(folder, "{case}"))


def resolve(name: str | None = None) -> None:
    warnings.simplefilter("ignore")
    import logging

    logging.disable()
    use_our_plugins()
    try:
        seen = look(name)
    except Exception as error:  # whatever it is: the entry cannot be used
        seen = {"error": f"{type(error).__name__}: {error}"}
    json.dump(seen, sys.stdout, default=str)


def look(name: str | None) -> Any:
    import requests
    from openstack.config import OpenStackConfig

    config = OpenStackConfig()
    chosen = name if name is not None else config.default_cloud
    asked = {}
    if chosen != config.envvar_key:
        for option in ("region_name", "cacert", "cert", "key"):
            if os.environ.get(f"OS_{option.upper()}"):
                asked[option] = os.environ[f"OS_{option.upper()}"]
    region = config.get_one(name, **asked)
    auth = region.config["auth"]
    auth_url = auth.get("auth_url", "")
    verify, cert = region.get_requests_verify_args()
    settings = requests.Session().merge_environment_settings(auth_url, {}, None, verify, cert)
    proxies = requests.utils.get_environ_proxies(auth_url)
    proxy = requests.utils.select_proxy(auth_url, proxies)
    return {
        "name": region.name,
        "auth_type": region.config["auth_type"],
        "auth": auth,
        "region": region.region_name or None,
        "scope": scope(auth),
        "verify": absolute(settings["verify"]),
        "cert": absolute(settings["cert"]),
        "proxy": proxy and requests.utils.prepend_scheme_if_needed(proxy, "http"),
    }


def absolute(value: Any) -> Any:
    if isinstance(value, str):
        return os.path.abspath(value)
    return [absolute(path) for path in value] if isinstance(value, (list, tuple)) else value


SCOPE = (
    "system_scope",
    "domain_id",
    "domain_name",
    "project_id",
    "project_name",
    "project_domain_id",
    "project_domain_name",
    "trust_id",
)


def scope(auth: Any) -> Any:
    """What keystoneauth would write into a request for a token."""
    from keystoneauth1.identity import v3

    class AskedError(Exception):
        pass

    class Session:
        def post(self, _url: str, json: Any, **_kwargs: Any) -> Any:
            raise AskedError(json["auth"].get("scope", "unscoped"))

    plugin = v3.Token("http://keystone", "token", **{key: auth[key] for key in SCOPE if key in auth})
    try:
        plugin.get_auth_ref(Session())
    except AskedError as asked:
        return asked.args[0]


def use_our_plugins() -> None:
    """`v3websso` is keystoneauth's own, whatever is installed; `v3broker` declares what the plugin does."""
    from keystoneauth1 import loading
    from keystoneauth1.identity import base
    from keystoneauth1.loading._plugins.identity import v3

    class Plugin(base.BaseIdentityPlugin):
        def __init__(self, **_options: Any) -> None:
            super().__init__()

        def get_auth_ref(self, session: Any) -> Any:
            raise NotImplementedError

    class Broker(loading.BaseLoader):
        plugin_class = Plugin

        def get_options(self) -> list[Any]:
            # Not auth_url: see plugin-shim/keystoneauth_broker/loader.py.
            names = "identity_provider protocol username redirect_host redirect_port"
            names += " login_timeout sign_in logout_url min_validity"
            return [loading.Opt(name.replace("_", "-")) for name in (*names.split(), *SCOPE)]

    installed = loading.get_plugin_loader
    ours = {"v3broker": Broker, "v3websso": v3.WebSSO}
    loading.get_plugin_loader = lambda name: ours[name]() if name in ours else installed(name)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--resolve"]:
        resolve(*sys.argv[2:])
    else:
        main(sys.argv[1:])
