"""What an entry, the session and the environment say, as the broker is told it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import PARENTS
from fakes import token
from keystoneauth1 import exceptions, loading
from keystoneauth1 import session as ks_session

from keystoneauth_broker import environment
from keystoneauth_broker.errors import BrokerError
from keystoneauth_broker.loader import Broker

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakes import Agent

    from keystoneauth_broker.plugin import BrokerAuth

    Make = Callable[..., BrokerAuth]


@pytest.fixture
def told(agent: Agent, make: Make) -> Callable[..., dict[str, Any]]:
    """The request that the broker gets."""

    def ask(session: ks_session.Session | None = None, **options: Any) -> dict[str, Any]:
        agent.on_tokens(token())
        make(**options).get_token(session or ks_session.Session())
        sent: dict[str, Any] = agent.sent()[-1]
        return sent

    return ask


def test_everything(told: Any) -> None:
    request = told(
        cloud="demo",
        username="work",
        sign_in="websso",
        redirect_host="127.0.0.1",
        redirect_port="9991",
        login_timeout="60.0",
        logout_url="https://idp.example.org/logout",
        min_validity="300",
    )
    assert request == {
        "cloud": {
            "name": "demo",
            "auth_url": "https://keystone.example.org/v3",
            "identity_provider": "lab",
            "protocol": "openid",
            "account": "work",
            "logout_url": "https://idp.example.org/logout",
            "sign_in": {"way": "websso", "redirect_host": "127.0.0.1", "redirect_port": 9991, "timeout": 60},
            "tls": {"verify": True},
        },
        "scope": {"project": {"name": "demo"}},
        "min_validity": 300,
        "prompt": False,
    }


OIDC = {
    "discovery_endpoint": "https://idp.example.org/.well-known/openid-configuration",
    "client_id": "cli",
}


def test_the_code_flow_is_told_as_ksb_tells_it(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same JSON as in tests/it/clouds.rs: else `openstack` and `ksb` would not share a sign-in."""
    plain = {
        "way": "oidc_code",
        "redirect_host": "127.0.0.1",
        "redirect_port": 0,
        "oidc": dict(OIDC),
    }
    oob = "urn:ietf:wg:oauth:2.0:oob"
    for more in ({}, {"sign_in": "oidc_code"}, {"redirect_uri": oob}):
        assert told(**OIDC, **more)["cloud"]["sign_in"] == plain
    whole = {
        "client_secret": "s3",
        "token_endpoint_auth_method": "client_secret_post",
        "openid_scope": "openid groups",
        "access_token_type": "id_token",
        "redirect_uri": "http://localhost:8000/back",
        "prompt": "login",
        "max_age": "60",
        "require_amr": "otp, hwk",
        "max_auth_age": 3600,
    }
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:3128")
    assert told(**OIDC, **whole)["cloud"]["sign_in"] == {
        "way": "oidc_code",
        "redirect_host": "localhost",
        "redirect_port": 8000,
        "oidc": {
            **OIDC,
            "client_secret": "s3",
            "auth_method": "client_secret_post",
            "scope": "openid groups",
            "bearer": "id_token",
            "redirect_path": "/back",
            "extra": [["prompt", "login"], ["max_age", "60"]],
            "require": {"amr": ["otp", "hwk"], "max_auth_age": 3600},
            "proxy": "http://proxy.example.org:3128",
        },
    }


WORKLOADS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"token_file": "/run/token"}, {"file": {"path": "/run/token"}}),
    ({"token_file": "~/token"}, {"file": {"path": "HOME/token"}}),
    ({"token_env": "ID_TOKEN"}, {"token": {"from": "$ID_TOKEN", "token": "h.c.s"}}),
    ({"token_command": "mint -a 'k s'"}, {"command": {"command": "mint -a 'k s'", "limit": 30}}),
    (
        {"token_command": "mint", "token_command_limit": "5"},
        {"command": {"command": "mint", "limit": 5}},
    ),
    ({"access_token": "h.c.s"}, {"token": {"from": "access_token", "token": "h.c.s"}}),
    (
        {
            "client_id": "ci",
            "client_secret": "s3",
            "access_token_endpoint": "https://idp.example.org/token",
            "openid_scope": "openid groups",
            "access_token_type": "id_token",
        },
        {
            "client": {
                "token_endpoint": "https://idp.example.org/token",
                "client_id": "ci",
                "client_secret": "s3",
                "scope": "openid groups",
                "bearer": "id_token",
            }
        },
    ),
    (
        {"token_audience": "keystone"},
        {"github": {"url": "https://gh.example/?a=1", "request_token": "rt", "audience": "keystone"}},
    ),
]


@pytest.mark.parametrize(("options", "workload"), WORKLOADS)
def test_a_workload_is_told_as_ksb_tells_it(
    told: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], workload: dict[str, Any]
) -> None:
    """The same JSON as in tests/it/clouds.rs."""
    monkeypatch.setenv("ID_TOKEN", "h.c.s")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "https://gh.example/?a=1")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "rt")
    sign_in = told(sign_in="workload", **options)["cloud"]["sign_in"]
    expected = json.loads(json.dumps(workload).replace("HOME", os.environ["HOME"]))
    assert sign_in == {"way": "workload", "workload": expected}


def test_an_access_token_alone_means_a_workload(told: Any) -> None:
    assert told(access_token="h.c.s")["cloud"]["sign_in"]["way"] == "workload"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"sign_in": "password", "username": "alice", "user_domain_name": "Default"},
            {"user": {"name": "alice", "domain": {"name": "Default"}}, "methods": ["password"]},
        ),
        (
            # As `ksb clouds adopt` leaves it of a v3multifactor entry.
            {
                "auth_methods": ["v3password", "v3totp"],
                "username": "alice",
                "user_domain_id": "default",
                "password": "s3",
                "passcode": "123456",
            },
            {
                "user": {"name": "alice", "domain": {"id": "default"}},
                "methods": ["password", "totp"],
                "password": "s3",
            },
        ),
        (
            {"sign_in": "password", "auth_methods": "v3totp", "user_id": "u1"},
            {"user": {"id": "u1"}, "methods": ["totp"]},
        ),
    ],
)
def test_a_user_of_keystones_own(told: Any, options: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same JSON as in tests/it/clouds.rs."""
    cloud = told(identity_provider=None, protocol=None, **options)["cloud"]
    assert cloud["sign_in"] == {"way": "password", "password": expected}
    assert not {"protocol", "identity_provider", "account"} & set(cloud)


_BROWSERS = json.loads((Path(__file__).parents[2] / "tests/browser-locations.json").read_text())


@pytest.mark.parametrize("row", _BROWSERS["rows"], ids=lambda row: row["what"])
def test_where_the_browser_is(told: Any, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any]) -> None:
    """The table of `ksb` itself: where it is, whether it is opened, what is said of it."""
    location = environment.find_browser(row["variables"], row["parents"], row["tmux"])
    assert location == row["location"]
    expected = _BROWSERS["locations"][location]
    assert expected == {
        "opens": environment.can_be_opened(location),
        "remote": environment.is_remote(location),
        "local": environment.advice(location, is_local=True),
        "anywhere": environment.advice(location, is_local=False),
    }
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "SSH_CONNECTION", "KSB_NO_BROWSER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in row["variables"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(environment, "_names_of_parents", lambda: row["parents"])
    monkeypatch.setattr(environment, "_tmux_environment", lambda: row["tmux"])
    way = told(**OIDC, sign_in="auto")["cloud"]["sign_in"]["way"]
    assert way == ("oidc_code" if expected["opens"] else "oidc_device")


def test_parents_and_tmux_are_asked(
    monkeypatch: pytest.MonkeyPatch, program: Callable[[str, str], Path]
) -> None:
    assert PARENTS()
    program("tmux", '[ "$*" = show-environment ] && echo SSH_CONNECTION=a b c 22')
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    monkeypatch.delenv("BROWSER", raising=False)
    monkeypatch.delenv("TMUX", raising=False)
    assert environment.browser_location() == "nowhere"
    monkeypatch.setenv("TMUX", "/tmp/tmux-0/default,7,0")
    assert environment.browser_location() == "beyond_ssh"
    assert environment.this_machine()[1].endswith("c")
    program("tmux", "exit 1")
    assert environment.browser_location() == "nowhere"


def test_protocol_alone(told: Any) -> None:
    assert "identity_provider" not in told(identity_provider=None)["cloud"]


@pytest.mark.parametrize(
    ("options", "scope"),
    [
        ({"project_name": None}, "unscoped"),
        ({}, {"project": {"name": "demo"}}),
        ({"project_name": 123}, {"project": {"name": "123"}}),
        ({"project_name": ""}, "unscoped"),
        ({"project_domain_name": "lab"}, {"project": {"name": "demo", "domain": {"name": "lab"}}}),
        (
            {"project_domain_name": "lab", "project_domain_id": "d1"},
            {"project": {"name": "demo", "domain": {"id": "d1"}}},
        ),
        ({"default_domain_id": "d2"}, {"project": {"name": "demo", "domain": {"id": "d2"}}}),
        (
            {"default_domain_id": "d2", "project_domain_name": "lab"},
            {"project": {"name": "demo", "domain": {"name": "lab"}}},
        ),
        ({"project_id": "p1", "project_domain_name": "lab"}, {"project": {"id": "p1"}}),
        ({"project_name": None, "tenant_name": "old"}, {"project": {"name": "old"}}),
        ({"project_name": None, "domain_name": "lab"}, {"domain": {"name": "lab"}}),
        ({"project_name": None, "domain_id": "d1", "domain_name": "lab"}, {"domain": {"id": "d1"}}),
        ({"project_name": None, "system_scope": "all"}, {"system": {"all": True}}),
        ({"project_name": None, "trust_id": "t1"}, {"OS-TRUST:trust": {"id": "t1"}}),
    ],
)
def test_scopes(told: Any, options: dict[str, Any], scope: object) -> None:
    assert told(**options)["scope"] == scope


def test_scopes_that_make_no_sense(make: Make, session: ks_session.Session) -> None:
    with pytest.raises(exceptions.AuthorizationFailure, match="multiple targets"):
        make(system_scope="all").get_token(session)
    with pytest.raises(exceptions.AuthorizationFailure, match='only "all"'):
        make(project_name=None, system_scope="some").get_token(session)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"redirect_port": "http"}, "redirect_port is a number from 1 to 65535, not 'http'"),
        ({"redirect_port": 0}, "redirect_port"),
        ({"login_timeout": "inf"}, "login_timeout"),
        ({"min_validity": -1}, "min_validity"),
        (
            {"sign_in": "carrier-pigeon"},
            "sign_in is websso or oidc_code or oidc_device or auto or workload or password, not 'carrier-",
        ),
        ({"sign_in": "oidc_code"}, "this sign_in needs discovery_endpoint"),
        ({"sign_in": "oidc_device", "discovery_endpoint": "https://idp/x"}, "this sign_in needs client_id"),
        (OIDC | {"access_token_type": "saml"}, "access_token_type is access_token or id_token, not 'saml'"),
        (OIDC | {"redirect_uri": "https://example.org/"}, "redirect_uri is not an http address"),
        ({"sign_in": "password"}, "needs username and user_domain_name, or user_id"),
        ({"sign_in": "password", "username": "alice"}, "needs username and user_domain_name, or user_id"),
        ({"sign_in": "password", "user_id": "u1", "auth_methods": ["v3token"]}, "not token"),
        ({"sign_in": "workload"}, "workload needs a token: token_file"),
        ({"sign_in": "workload", "token_env": "NOT_SET"}, "the variable NOT_SET is not set"),
        ({"sign_in": "workload", "token_command": "x", "token_command_limit": "0"}, "token_command_limit"),
        ({"sign_in": "workload", "client_id": "ci"}, "this sign_in needs client_secret"),
        (
            {"sign_in": "workload", "client_id": "ci", "client_secret": "s3"},
            "needs discovery_endpoint or access_token_endpoint",
        ),
        ({"protocol": None}, "needs protocol"),
        ({"protocol": None, "auth_url": None, "cloud": None}, "needs auth_url and protocol"),
        ({"protocol": "", "cloud": "demo"}, "demo: v3broker needs protocol"),
    ],
)
def test_options_that_cannot_be_used(make: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(exceptions.OptionError) as caught:
        make(**options)
    assert message in str(caught.value)


def test_unknown_options_are_named_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        make(bogus="value-one", reckless="value-two", user_domain_name="lab", openid_scope="profile")
    assert [record.getMessage() for record in caplog.records] == [
        "v3broker ignores what it does not know: bogus, reckless"
    ]


@pytest.mark.parametrize(
    ("session", "environment", "tls"),
    [
        ({}, {}, {"verify": True}),
        ({"verify": False}, {"REQUESTS_CA_BUNDLE": "/etc/ca.pem"}, {"verify": False}),
        (
            {"verify": "/etc/a.pem"},
            {"REQUESTS_CA_BUNDLE": "/b.pem"},
            {"verify": True, "ca_file": "/etc/a.pem"},
        ),
        (
            {},
            {"REQUESTS_CA_BUNDLE": "/b.pem"},
            {"verify": True, "sources": {"ca_file": "REQUESTS_CA_BUNDLE"}, "ca_file": "/b.pem"},
        ),
        (
            {},
            {"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "/c.pem"},
            {"verify": True, "sources": {"ca_file": "CURL_CA_BUNDLE"}, "ca_file": "/c.pem"},
        ),
        ({"cert": "/x.pem"}, {}, {"verify": True, "cert_file": "/x.pem"}),
        ({"cert": ("/x.pem", "/y.pem")}, {}, {"verify": True, "cert_file": "/x.pem", "key_file": "/y.pem"}),
    ],
)
def test_tls(
    told: Any, monkeypatch: pytest.MonkeyPatch, session: Any, environment: dict[str, str], tls: object
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert told(ks_session.Session(**session))["cloud"]["tls"] == tls


def test_tls_paths_are_absolute(told: Any) -> None:
    tls = told(ks_session.Session(verify="ca.pem", cert="me.pem"))["cloud"]["tls"]
    assert tls == {
        "verify": True,
        "ca_file": os.path.abspath("ca.pem"),
        "cert_file": os.path.abspath("me.pem"),
    }


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"https_proxy": "http://p:3128"}, "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"https_proxy": "p:3128"}, "http://p:3128"),
        ({"http_proxy": "http://p:3128"}, None),
        ({"all_proxy": "socks5://p:1080"}, "socks5://p:1080"),
        ({"https_proxy": "http://p:1", "no_proxy": "example.org"}, None),
        ({"https_proxy": "http://p:1", "NO_PROXY": "localhost, .example.org"}, None),
        ({"https_proxy": "http://p:1", "no_proxy": "*"}, None),
        ({"https_proxy": "http://p:1", "no_proxy": "", "NO_PROXY": "example.org"}, None),
        ({"https_proxy": "http://p:1", "no_proxy": "example.com,10.0.0.0/8"}, "http://p:1"),
    ],
)
def test_proxy(
    told: Any, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], proxy: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert told()["cloud"].get("proxy") == proxy


@pytest.mark.parametrize(
    ("no_proxy", "used"), [("10.0.0.0/8", False), ("10.1.2.3", False), ("11.0.0.0/8", True)]
)
def test_no_proxy_for_a_network(
    told: Any, monkeypatch: pytest.MonkeyPatch, no_proxy: str, used: bool
) -> None:
    monkeypatch.setenv("https_proxy", "http://p:1")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert ("proxy" in told(auth_url="https://10.1.2.3:5000/v3")["cloud"]) is used


@pytest.mark.parametrize(
    "name", ["clouds.yaml", "clouds.yml", "clouds.json", "secure.yaml", "clouds-public.yaml"]
)
def test_file_in_the_current_folder(told: Any, tmp_path: Path, name: str) -> None:
    assert "source" not in told()["cloud"]
    file = tmp_path / "here" / name
    file.touch()
    assert told()["cloud"]["source"] == {"file": str(file), "current_folder": True}


def test_file_named_by_the_environment(told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "clouds.yaml").touch()
    elsewhere = tmp_path / "elsewhere.yaml"
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(elsewhere))
    assert "source" in told()["cloud"], "openstacksdk goes on to the current directory where it is not there"
    elsewhere.touch()
    assert "source" not in told()["cloud"]


def test_a_persons_own_folder_is_no_repository(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "home" / ".config" / "openstack"
    folder.mkdir(parents=True)
    (folder / "clouds.yaml").touch()
    monkeypatch.chdir(folder)
    assert "source" not in told()["cloud"]


def test_from_the_environment_without_openstacksdk(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_CLOUD", "demo")
    monkeypatch.setenv("OS_AUTH_URL", "https://other.example.org")
    cloud = told()["cloud"]
    assert (cloud["name"], cloud["auth_url"]) == ("demo", "https://keystone.example.org/v3")
    assert told(auth_url=None)["cloud"]["auth_url"] == "https://other.example.org"


SHOWN: dict[str, Any] = {
    "cloud": {
        "name": "lab",
        "auth_url": "https://lab.example.org/v3",
        "protocol": "openid",
        "tls": {"verify": True, "ca_file": "/lab.pem"},
    },
    "scope": {"project": {"name": "physics", "domain": {"name": "lab"}}},
}


@pytest.mark.parametrize(
    ("options", "scope"), [({}, SHOWN["scope"]), ({"project_id": "p9"}, {"project": {"id": "p9"}})]
)
def test_cloud_by_name(
    agent: Agent,
    session: ks_session.Session,
    program: Callable[[str, str], Path],
    tmp_path: Path,
    options: dict[str, str],
    scope: object,
) -> None:
    (tmp_path / "shown").write_text(json.dumps(SHOWN))
    program("ksb", f'echo "$@" >> {tmp_path}/asked; echo noise >&2; cat {tmp_path}/shown')
    agent.on_tokens(token())
    plugin = Broker().load_from_options(cloud="lab", username="work", **options)
    plugin.get_auth_ref(session)
    plugin.get_auth_ref(session)
    assert plugin.auth_url == "https://lab.example.org/v3"
    cloud = {**SHOWN["cloud"], "account": "work"}
    assert agent.sent()[-1] == {"cloud": cloud, "scope": scope, "prompt": False}
    assert (tmp_path / "asked").read_text() == "clouds show lab --json --with-secrets\n"


def test_cloud_by_name_that_fails(session: ks_session.Session, program: Callable[[str, str], Path]) -> None:
    program("ksb", 'echo "ksb: lab: no such entry. Try: write one" >&2; exit 1')
    with pytest.raises(BrokerError) as caught:
        Broker().load_from_options(cloud="lab").get_token(session)
    assert str(caught.value) == "lab: no such entry (remedy: write one)"
    program("ksb", "echo '{}'")
    with pytest.raises(BrokerError, match="something else than a cloud"):
        Broker().load_from_options(cloud="lab").get_token(session)


def test_entry_point() -> None:
    assert isinstance(loading.get_plugin_loader("v3broker"), Broker)
    plugin: Any = loading.get_plugin_loader("v3broker").load_from_options(
        auth_url="https://k", protocol="saml2"
    )
    assert plugin.auth_url == "https://k"
