"""The commands of `stack`."""

import argparse
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from . import (
    apache,
    browser,
    certificates,
    content,
    environment,
    golang,
    hosts,
    keycloak,
    keystone,
    postgres,
    processes,
    secrets_file,
    swift,
    venvs,
)
from .layout import DOWNLOADS, FRONTS, KEYCLOAK_VERSION, SHORT_LIFETIME, STATE, front_url
from .running import Phases, StackError, only_one

DAEMONS = ("apache", "keystone-short", "keystone-long", "keycloak", "postgres", *swift.NAMES)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="install, start and fill everything that is not there yet")
    up.add_argument("--quiet", action="store_true", help="say nothing unless it fails")
    up.add_argument(
        "--all",
        action="store_true",
        help="make all Python environments, not only those that every test run needs",
    )
    commands.add_parser("down", help="end what `up` started")
    commands.add_parser("status", help="what runs (exit 3: not all of it)")
    commands.add_parser("env", help="print what tests need to know as shell assignments")
    ttl = commands.add_parser("ttl", help="lifetime of tokens of the short fronts (5030 to 5034)")
    ttl.add_argument("seconds", type=int, nargs="?", default=SHORT_LIFETIME)
    venv = commands.add_parser("venv", help="make a Python environment and print its path")
    venv.add_argument("name", choices=venvs.NAMES)
    clean = commands.add_parser("clean", help="end everything and forget the cloud (downloads stay)")
    clean.add_argument("--all", action="store_true", help="downloads and environments too")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except StackError as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "env":
            print(environment.text())
            return 0
        case "status":
            return _status()
    with only_one():
        match options.command:
            case "up":
                _up(Phases(options.quiet), everything=options.all)
            case "down":
                _down()
            case "ttl":
                keystone.set_short_lifetime(options.seconds)
            case "venv":
                print(venvs.make(options.name))
            case "clean":
                _down()
                # By name: other things of the project lie in the same cache.
                for folder in (
                    STATE,
                    *((DOWNLOADS, venvs.HOME, golang.HOME, browser.MODULES) if options.all else ()),
                ):
                    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _up(phases: Phases, *, everything: bool) -> None:
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    STATE.mkdir(parents=True, exist_ok=True)
    STATE.chmod(0o700)
    secrets = secrets_file.load()
    hosts.ensure()
    with ThreadPoolExecutor(max_workers=8) as pool:
        tls = pool.submit(phases.run, "certificates", certificates.make)
        uv = pool.submit(phases.run, "uv: from PyPI", venvs.uv)

        def identity_provider() -> None:
            phases.run(f"keycloak: fetched and built {KEYCLOAK_VERSION}", keycloak.fetch)
            tls.result()
            phases.run("keycloak: ready", lambda: keycloak.start(secrets))

        def cloud() -> None:
            uv.result()
            phases.run("keystone: installed", lambda: venvs.make("keystone"))
            phases.run("postgresql: ready", postgres.start)
            phases.run("keystone: database", lambda: keystone.prepare(secrets["admin"]))
            phases.run("keystone: ready", keystone.start)
            phases.run("keystone: filled", lambda: content.make(secrets))

        def object_store() -> None:
            uv.result()
            phases.run("swift: installed", lambda: venvs.make("swift"))
            phases.run("swift: ready", lambda: swift.start(secrets))

        def browsers() -> None:
            phases.run("puppeteer-core: from npm", browser.install)
            tls.result()
            phases.run("browser: trusts the authority", browser.trust)
            browser.settings()

        def environments() -> None:
            uv.result()
            for name in venvs.NAMES if everything else ("client", "plain", "horizon"):
                phases.run(f"python environment: {name}", partial(venvs.make, name))

        def programs() -> None:
            uv.result()
            for program in golang.PROGRAMS:
                phases.run(
                    f"{Path(program.file).name}: built from Go modules", partial(golang.build, program)
                )
            golang.configure()

        # The longest first; each of these is a chain whose steps need one another.
        work = (programs, identity_provider, cloud, object_store, browsers, environments)
        chains = [pool.submit(chain) for chain in work]
        for chain in chains:
            chain.result()
    phases.run("apache: ready", lambda: apache.start(secrets))
    phases.run("alice's passkey: registered", browser.register_passkey)
    phases.table()
    phases.say(f"up: {front_url(FRONTS[0])}")


def _down() -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(processes.stop, DAEMONS))


def _status() -> int:
    pids = {name: processes.running(name) for name in DAEMONS}
    for name, pid in pids.items():
        print(f"{name:16} {f'pid {pid}' if pid else 'not running'}")
    return 0 if all(pids.values()) else 3
