"""The unmodified `openstack` command and openstacksdk."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Keystone, problem, token

from keystoneauth_broker.loader import Broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fakes import Agent

openstack = pytest.importorskip("openstack", reason="this environment has no openstacksdk")
shell = pytest.importorskip("openstackclient.shell", reason="this environment has no python-openstackclient")

pytestmark = pytest.mark.filterwarnings("ignore")  # those of openstacksdk and osc-lib are not ours to fix

SECRET = "gAAAA-secret-one"

ENTRIES = """
clouds:
  x:
    auth_type: v3broker
    region_name: r1
    auth:
      auth_url: {url}/v3
      identity_provider: lab
      protocol: openid
      project_name: demo
  beside:
    auth_type: v3broker
    auth_url: {url}
    identity_provider: lab
    protocol: openid
    redirect_port: 9991
    username: work
    auth:
      project_name: demo
      domain_name: lab
      login_timeout: 77
      bogus: zzz
  unscoped:
    auth_type: v3broker
    auth: {{auth_url: "{url}", protocol: saml2}}
"""


@pytest.fixture
def keystone() -> Iterator[Keystone]:
    fake = Keystone(good=SECRET)
    yield fake
    fake.stop()


@pytest.fixture
def _clouds(keystone: Keystone, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent.on_tokens(token(endpoint=f"{keystone.url}/v3"))
    file = tmp_path / "clouds.yaml"
    file.write_text(ENTRIES.format(url=keystone.url))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(file))


@pytest.fixture(scope="session")
def _warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A process that has imported `openstack` and forks for each command: starting it anew takes seconds."""
    home = str(tmp_path_factory.mktemp("warm"))
    with subprocess.Popen(
        [sys.executable, os.path.join(os.path.dirname(__file__), "warm_openstack.py")],
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": home},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def osc(_warm: subprocess.Popen[str], _clouds: None) -> Callable[..., tuple[int, str, str]]:
    """`openstack` in a process of its own: its status, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        assert _warm.stdin is not None
        assert _warm.stdout is not None
        print(json.dumps([arguments, dict(os.environ)]), file=_warm.stdin, flush=True)
        status, out, err = json.loads(_warm.stdout.readline())
        return status, out, err

    return run


def test_no_option_collides() -> None:
    """The whole parser is built at each command: an option that is there twice breaks even `--version`."""
    from osc_lib.shell import OpenStackShell

    own = {
        string
        for action in OpenStackShell().build_option_parser("", "")._actions
        for string in action.option_strings
    }
    options = Broker().get_options()
    assert {f"--os-{option.name}" for option in options}.isdisjoint(own)
    assert {option.dest for option in options}.isdisjoint({"auth_url", "cloud", "password", "token", "url"})
    everything = shell.OpenStackShell().build_option_parser("", "")._option_string_actions
    assert all(f"--os-{option.name}" in everything for option in options)


@pytest.mark.usefixtures("_clouds")
def test_no_option_collides_in_clients_with_a_parser_of_their_own() -> None:
    from openstack.config import OpenStackConfig

    parser = argparse.ArgumentParser()
    argv = ["--os-cloud", "x", "--os-sign-in", "websso"]
    OpenStackConfig().register_argparse_arguments(parser, argv)
    assert parser.parse_args(argv).os_sign_in == "websso"


@pytest.mark.usefixtures("_clouds")
def test_the_command_itself(agent: Agent) -> None:
    done = subprocess.run(
        [
            os.path.join(os.path.dirname(sys.executable), "openstack"),
            "--os-cloud", "x", "token", "issue", "-f", "value", "-c", "id",
        ],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{SECRET}\n", "")
    assert len(agent.sent()) == 1


def test_the_entry_as_the_broker_is_told(
    agent: Agent, osc: Any, keystone: Keystone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No default domain is made up for a project; and the cloud's name is the one that was asked for."""
    monkeypatch.setenv("OS_CLOUD", "unscoped")
    assert osc("--os-cloud", "x", "token", "issue", "-f", "value", "-c", "id") == (0, f"{SECRET}\n", "")
    assert agent.sent() == [
        {
            "cloud": {
                "name": "x",
                "auth_url": f"{keystone.url}/v3",
                "identity_provider": "lab",
                "protocol": "openid",
                "tls": {"verify": True},
            },
            "scope": {"project": {"name": "demo"}},
            "prompt": False,
        }
    ]


def test_options_beside_auth(agent: Agent, osc: Any, keystone: Keystone) -> None:
    status, out, err = osc("--os-cloud", "beside", "--insecure", "token", "issue", "-f", "value", "-c", "id")
    assert (status, out) == (0, f"{SECRET}\n")
    assert err == "v3broker ignores what it does not know: bogus\n"
    assert agent.sent()[0] == {
        "cloud": {
            "name": "beside",
            "auth_url": keystone.url,
            "identity_provider": "lab",
            "protocol": "openid",
            "account": "work",
            "sign_in": {"redirect_port": 9991, "timeout": 77},
            "tls": {"verify": False},
        },
        "scope": {"project": {"name": "demo", "domain": {"name": "lab"}}},
        "prompt": False,
    }


def test_from_the_environment_alone(
    agent: Agent, osc: Any, keystone: Keystone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OS_CLIENT_CONFIG_FILE")
    for name, value in {"AUTH_TYPE": "v3broker", "AUTH_URL": keystone.url, "PROTOCOL": "openid"}.items():
        monkeypatch.setenv(f"OS_{name}", value)
    monkeypatch.setenv("OS_PROJECT_ID", "p1")
    assert osc("token", "issue", "-f", "value", "-c", "id")[0] == 0
    assert agent.sent()[0]["cloud"] == {
        "auth_url": keystone.url,
        "protocol": "openid",
        "tls": {"verify": True},
    }
    assert agent.sent()[0]["scope"] == {"project": {"id": "p1"}}


def test_a_call_with_short_tokens(agent: Agent, osc: Any, keystone: Keystone) -> None:
    agent.on_tokens(token(endpoint=f"{keystone.url}/v3", seconds=60))
    assert osc("--os-cloud", "x", "project", "list", "-f", "value", "-c", "Name")[:2] == (0, "demo\n")
    assert len(agent.sent()) == 1


def test_unscoped_calls(agent: Agent, osc: Any) -> None:
    """Without a catalog openstacksdk needs the entry's auth_url, which the plugin must not take away."""
    body = token()[1]
    del body["body"]["token"]["catalog"], body["body"]["token"]["project"]
    agent.on_tokens((200, body))
    found = osc("--os-cloud", "unscoped", "project", "list", "--my-projects", "-f", "value", "-c", "Name")
    assert found[:2] == (0, "demo\n")


def test_a_revoked_token(agent: Agent, osc: Any, keystone: Keystone) -> None:
    agent.on_tokens(token("old", endpoint=f"{keystone.url}/v3"), token(endpoint=f"{keystone.url}/v3"))
    assert osc("--os-cloud", "x", "project", "list", "-f", "value", "-c", "Name")[:2] == (0, "demo\n")
    assert [sent.get("rejected") for sent in agent.sent()] == [None, "old"]


def test_a_failure_is_one_line(agent: Agent, osc: Any) -> None:
    agent.on_tokens(problem(401, "sign-in-needed", "nobody is signed in", cloud="x", remedy="ksb login x"))
    assert osc("--os-cloud", "x", "token", "issue") == (
        1,
        "",
        "x: nobody is signed in (remedy: run: ksb login x)\n",
    )


def test_no_token_in_the_debug_log(osc: Any) -> None:
    status, out, err = osc("--debug", "--os-cloud", "x", "project", "list", "-f", "value", "-c", "Name")
    assert (status, out) == (0, "demo\n")
    assert "keystone" in err
    assert SECRET not in err


@pytest.mark.usefixtures("_clouds")
def test_sdk(agent: Agent, keystone: Keystone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_CLOUD", "unscoped")
    with openstack.connect(cloud="x") as connection:
        assert connection.session.get_token() == SECRET
        assert connection.current_project_id == "p1"
        assert [project.name for project in connection.identity.projects()] == ["demo"]
    assert [sent["cloud"]["name"] for sent in agent.sent()] == ["x"]
    with openstack.connect() as connection:
        assert connection.session.get_token() == SECRET
    assert agent.sent()[-1]["cloud"]["name"] == "unscoped"


@pytest.mark.parametrize(
    ("option", "variable", "value", "scope"),
    [
        ("project-id", "PROJECT_ID", "p1", {"project": {"id": "p1"}}),
        ("project-name", "PROJECT_NAME", "other", {"project": {"name": "other"}}),
        (
            "project-domain-name",
            "PROJECT_DOMAIN_NAME",
            "lab",
            {"project": {"name": "demo", "domain": {"name": "lab"}}},
        ),
        (
            "project-domain-id",
            "PROJECT_DOMAIN_ID",
            "d1",
            {"project": {"name": "demo", "domain": {"id": "d1"}}},
        ),
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_scope_that_the_caller_asks_for_counts(
    agent: Agent,
    osc: Any,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    variable: str,
    value: str,
    scope: dict[str, Any],
    by_variable: bool,
) -> None:
    arguments = [] if by_variable else [f"--os-{option}", value]
    if by_variable:
        monkeypatch.setenv(f"OS_{variable}", value)
    assert osc("--os-cloud", "x", *arguments, "token", "issue", "-f", "value", "-c", "id")[0] == 0
    assert agent.sent()[0]["scope"] == scope


@pytest.mark.parametrize(
    ("option", "value", "scope"),
    [
        ("domain-id", "d1", {"domain": {"id": "d1"}}),
        ("domain-name", "lab", {"domain": {"name": "lab"}}),
        ("trust-id", "t1", {"OS-TRUST:trust": {"id": "t1"}}),
        ("system-scope", "all", {"system": {"all": True}}),
    ],
)
def test_a_scope_of_another_kind_counts_for_an_entry_without_one(
    agent: Agent, osc: Any, option: str, value: str, scope: dict[str, Any]
) -> None:
    arguments = ["--os-cloud", "unscoped", f"--os-{option}", value]
    osc(*arguments, "token", "issue", "-f", "value", "-c", "id")
    assert agent.sent()[0]["scope"] == scope


@pytest.mark.parametrize("by_variable", [False, True])
def test_another_keystone_is_named_and_not_used(
    agent: Agent, osc: Any, keystone: Keystone, monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    other, secret = "https://other.example.org/v3", "https://me:hush@other.example.org/v3"
    arguments = [] if by_variable else ["--os-auth-url", secret]
    if by_variable:
        monkeypatch.setenv("OS_AUTH_URL", secret)
    status, _, err = osc("--os-cloud", "x", *arguments, "token", "issue", "-f", "value", "-c", "id")
    told = f"x: {other} is not used beside the entry; the Keystone that counts is {keystone.url}/v3\n"
    assert (status, err) == (0, told)
    assert agent.sent()[0]["cloud"]["auth_url"] == f"{keystone.url}/v3"


def test_the_lease_of_an_exec_around_it_needs_no_word(osc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSB_EXEC", "{}")
    monkeypatch.setenv("OS_AUTH_URL", "http://127.0.0.1:20000/v3")
    command = ["--os-cloud", "x", "token", "issue", "-f", "value", "-c", "id"]
    assert osc(*command)[::2] == (0, "")
    assert "is not used" in osc("--os-auth-url", "https://other.example.org/v3", *command)[2]


def test_the_same_keystone_needs_no_word(osc: Any, keystone: Keystone) -> None:
    arguments = ["--os-cloud", "x", "--os-auth-url", f"{keystone.url}/"]
    assert osc(*arguments, "token", "issue", "-f", "value", "-c", "id")[::2] == (0, "")


def test_keystoneauths_own_registrations_have_the_address(agent: Agent, keystone: Keystone) -> None:
    """Services load a plugin from oslo.config, small programs from argparse."""
    from keystoneauth1 import loading, session
    from oslo_config import cfg

    agent.on_tokens(token(endpoint=f"{keystone.url}/v3"))
    options = {"auth_type": "v3broker", "auth_url": keystone.url, "protocol": "openid", "project_id": "p1"}
    conf = cfg.ConfigOpts()
    loading.register_auth_conf_options(conf, "service")
    conf([])
    for option in loading.get_auth_plugin_conf_options("v3broker"):
        conf.register_opt(option, group="service")
    for name, value in options.items():
        conf.set_override(name, value, group="service")
    by_conf = loading.load_auth_from_conf_options(conf, "service")

    parser = argparse.ArgumentParser()
    argv = [f"--os-{name.replace('_', '-')}={value}" for name, value in options.items()]
    loading.register_auth_argparse_arguments(parser, argv)
    by_arguments = loading.load_auth_from_argparse_arguments(parser.parse_args(argv))

    for plugin in (by_conf, by_arguments):
        assert plugin is not None
        plugin.get_token(session.Session(auth=plugin))
    for sent in agent.sent():
        assert sent["cloud"]["auth_url"] == keystone.url
        assert sent["scope"] == {"project": {"id": "p1"}}
    assert len(agent.sent()) == 2
