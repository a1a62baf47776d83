from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Agent
from keystoneauth1 import session as ks_session

from keystoneauth_broker import environment, plugin, signin
from keystoneauth_broker.loader import Broker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from keystoneauth_broker.plugin import BrokerAuth

# Before a test's environment is made bare.
_IN_CI, _SKIPPED = os.environ.get("CI") == "true", os.environ.get("KSB_SKIPPED")


def _left_out(test: str, report: pytest.TestReport | pytest.CollectReport) -> None:
    """A test that cannot test here is counted (`tests/run` lists it), and fails where CI=true."""
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    said = f"{test}: {why.removeprefix('Skipped: ')}"
    if _IN_CI:
        report.outcome, report.longrepr = "failed", said
    elif _SKIPPED:
        with open(_SKIPPED, "a", encoding="utf-8") as skipped:
            skipped.write(f"{said}\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped:
        _left_out(item.nodeid, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _left_out(collector.nodeid, report)
    return report


#: The real one.
PARENTS = environment._names_of_parents

_LEAVE = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")

ENTRY = {
    "auth_url": "https://keystone.example.org/v3",
    "identity_provider": "lab",
    "protocol": "openid",
    "project_name": "demo",
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bare environment, an empty home, an empty current directory, and no terminal."""
    for name in os.environ:
        if name not in _LEAVE:
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    monkeypatch.setattr(environment, "has_terminal", lambda: False)
    # The tests may run in an SSH session.
    monkeypatch.setattr(environment, "_names_of_parents", list)
    monkeypatch.setattr(signin, "_said", set())
    monkeypatch.setattr(plugin, "_warned", set())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "has_terminal", lambda: True)


@pytest.fixture
def run_folder() -> Iterator[str]:
    """A short path: unix sockets have 107 bytes for theirs."""
    folder = tempfile.mkdtemp(prefix="ksb-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, run_folder: str) -> Iterator[Agent]:
    fake = Agent(os.path.join(run_folder, "broker.sock"))
    monkeypatch.setenv("KSB_SOCK", fake.path)
    fake.start()
    yield fake
    fake.stop()
    assert fake.errors == []


@pytest.fixture
def session() -> ks_session.Session:
    return ks_session.Session()


@pytest.fixture
def make() -> Callable[..., BrokerAuth]:
    """The plugin, as the loader makes it; `None` takes an option of the usual entry away."""

    def made(**options: Any) -> BrokerAuth:
        given = {key: value for key, value in {**ENTRY, **options}.items() if value is not None}
        return Broker().load_from_options(**given)

    return made


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], Path]:
    """Puts a shell script on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return put
