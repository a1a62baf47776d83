"""Keycloak, the identity provider: fetched by Maven, its realms imported from two files, realm*.json."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from urllib.parse import urlencode

from . import passkey, processes
from .certificates import KEY, LEAF
from .layout import (
    ALL_FRONTS,
    CONFIDENTIAL_CLIENTS,
    DOWNLOADS,
    IDP,
    IDP_HOST,
    ISSUER,
    KEYCLOAK_PORT,
    KEYCLOAK_VERSION,
    KEYSTONE_HOST,
    NUMBERED_USERS,
    PREFIX,
    PREFIX_FRONT,
    SOURCE,
    STATE,
    USERS,
)
from .running import Json, StackError, command, request, wait_for, write

NAME = "keycloak"
DISTRIBUTION = DOWNLOADS / f"keycloak-{KEYCLOAK_VERSION}"
HOME = STATE / "keycloak"
GROUPS = {"bob": "lab-solo", "mallory": "lab-guest"}  # the rest are lab-dev


def fetch() -> None:
    """Downloads and unpacks the distribution."""
    if DISTRIBUTION.exists():
        return
    artifact = f"org.keycloak:keycloak-quarkus-dist:{KEYCLOAK_VERSION}:zip"
    place = DOWNLOADS / "keycloak.part"
    shutil.rmtree(place, ignore_errors=True)
    command(["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", "-Dtransitive=false",
             f"-Dmaven.repo.local={place}/repository", f"-DoutputDirectory={place}"],
            log="maven", cwd=DOWNLOADS, environment={"MAVEN_OPTS": "-XX:TieredStopAtLevel=1"})  # fmt: skip
    (archive,) = place.glob("*.zip")
    with zipfile.ZipFile(archive) as file:
        file.extractall(place)
    (place / f"keycloak-{KEYCLOAK_VERSION}").replace(DISTRIBUTION)
    shutil.rmtree(place)


def start(secrets: dict[str, str]) -> None:
    """Starts Keycloak with this cloud's data, from nothing when a realm has changed since."""
    realms = {"lab": _lab(secrets), "rotating": _rotating(secrets)}
    mark = HOME / "realm.sha256"
    digest = hashlib.sha256(json.dumps(realms).encode()).hexdigest()
    if not mark.exists() or mark.read_text() != digest:
        processes.stop(NAME)
        shutil.rmtree(HOME, ignore_errors=True)
        for name, realm in realms.items():
            write(HOME / "data" / "import" / f"{name}-realm.json", json.dumps(realm, indent=1), mode=0o600)
        HOME.chmod(0o700)
        write(mark, digest)
    if processes.running(NAME) is None:
        _link_distribution()
        _start(secrets)
    wait_for(NAME, _answers)
    _ask_for_the_second_factor(secrets)


def _link_distribution() -> None:
    """A home of our own around the shared distribution: the data directory lies beside the script."""
    (HOME / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(DISTRIBUTION / "bin" / "kc.sh", HOME / "bin" / "kc.sh")
    for name in ("conf", "lib", "providers", "themes"):
        link = HOME / name
        link.unlink(missing_ok=True)
        link.symlink_to(DISTRIBUTION / name)


def _start(secrets: dict[str, str]) -> None:
    argv: list[str | Path] = [
        # The distribution comes built for a database in a file. Without this property, which kc.sh sets
        # when it has built, it is built once more: 20 s.
        "sh", HOME / "bin" / "kc.sh", "-Dkc.config.built=true", "start", "--import-realm", "--cache=local",
        "--http-host=127.0.0.1", f"--https-port={KEYCLOAK_PORT}", f"--hostname={IDP}",
        f"--https-certificate-file={LEAF}", f"--https-certificate-key-file={KEY}",
    ]  # fmt: skip
    environment = {
        "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
        "KC_BOOTSTRAP_ADMIN_PASSWORD": secrets["keycloak_admin"],
        # It lives for minutes, on few cores: the quick compiler is the better one.
        "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1",
    }
    processes.start(NAME, argv, HOME, [KEYCLOAK_PORT], environment)


def _answers() -> bool:
    processes.must_run(NAME)
    return request("GET", f"{ISSUER}/.well-known/openid-configuration")[0] == 200


def _lab(secrets: dict[str, str]) -> Json:
    """The realm of everybody."""
    realm: Json = json.loads((SOURCE / "realm.json").read_text())
    clients = {client["clientId"]: client for client in realm["clients"]}
    clients["keystone"]["secret"] = secrets["oidc_client"]
    clients["keystone"]["redirectUris"] = [
        f"https://{KEYSTONE_HOST}:{port}{PREFIX if port == PREFIX_FRONT else ''}/v3/redirect_uri"
        for port in ALL_FRONTS
    ]
    clients["ci"]["secret"] = secrets["ci_client"]
    for name in CONFIDENTIAL_CLIENTS:
        clients[name]["secret"] = secrets[f"client_{name}"]
    # A client of its own right has a user, too, and that one's groups are its roles.
    service = {"username": "service-account-ci", "serviceAccountClientId": "ci", "enabled": True}
    people = [_user(name, secrets) for name in USERS]
    realm["users"] = [*people, {**service, "groups": ["/lab-dev"]}]
    return realm


def _rotating(secrets: dict[str, str]) -> Json:
    """Rotation is a realm's own setting, not a client's: the numbered users have a second account here."""
    realm: Json = json.loads((SOURCE / "realm-rotating.json").read_text())
    realm["users"] = [_user(name, secrets) for name in NUMBERED_USERS]
    return realm


def _user(name: str, secrets: dict[str, str]) -> Json:
    credentials: list[Json] = [{"type": "password", "value": secrets[f"user_{name}"]}]
    if f"totp_{name}" in secrets:
        credentials.append(_totp(secrets[f"totp_{name}"]))
    if name == "alice":
        credentials.append(passkey.credential(IDP_HOST))
    return {
        "username": name,
        "enabled": True,
        "email": f"{name}@lab.invalid",
        "emailVerified": True,
        "firstName": name.capitalize(),
        "lastName": "Numbered" if name in NUMBERED_USERS else "Lab",
        "credentials": credentials,
        # The rest may not have refresh tokens that outlive their sign-in.
        "realmRoles": ["offline_access"] if name in NUMBERED_USERS else [],
        "groups": [f"/{GROUPS.get(name, 'lab-dev')}"],
    }


def _totp(key: str) -> Json:
    """What Keycloak would keep of an authenticator app (RFC 6238); the key's letters are its bytes."""
    how = {"subType": "totp", "digits": 6, "counter": 0, "period": 30, "algorithm": "HmacSHA1"}
    return {"type": "otp", "secretData": json.dumps({"value": key}), "credentialData": json.dumps(how)}


def _ask_for_the_second_factor(secrets: dict[str, str]) -> None:
    """Keycloak's own browser flow knows WebAuthn as a second factor but has it switched off."""
    mark = HOME / "flow-set"
    if mark.exists():
        return
    form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin"}
    form["password"] = secrets["keycloak_admin"]
    token_url = f"{IDP}/realms/master/protocol/openid-connect/token"
    kind = "application/x-www-form-urlencoded"
    status, _, answer = request("POST", token_url, urlencode(form).encode(), Content_Type=kind)
    if status != 200:
        raise StackError(f"Keycloak refuses its administrator: {status} {answer}")
    bearer = {"Authorization": f"Bearer {answer['access_token']}"}
    url = f"{IDP}/admin/realms/lab/authentication/flows/browser/executions"
    executions = request("GET", url, None, **bearer)[2]
    for execution in executions:
        if execution.get("providerId") == "webauthn-authenticator":
            status, _, answer = request("PUT", url, {**execution, "requirement": "ALTERNATIVE"}, **bearer)
            if status >= 300:
                raise StackError(f"Keycloak's browser flow: {status} {answer}")
    mark.touch()
