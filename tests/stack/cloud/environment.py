"""`stack env`: the contract with the tests, as shell assignments."""

import shlex

from . import browser, golang, venvs
from .layout import (
    BROKEN_SERVICE,
    CA,
    CONFIDENTIAL_CLIENTS,
    FRONTS,
    IDP,
    ISSUER,
    LOG,
    MFA_USERS,
    MISCONFIGURED_FRONTS,
    PREFIX_FRONT,
    REGION,
    ROTATING_FRONT,
    ROTATING_ISSUER,
    SETTINGS,
    SHORT_FRONTS,
    SOURCE,
    STATE,
    SWIFT,
    TLS,
    UNCACHED_REGION,
    USERS,
    front_url,
)
from .secrets_file import existing


def text() -> str:
    """KEY=VALUE lines for `eval` or for a test to read."""
    secrets = existing()
    values = {
        "KSB_STACK_DIR": STATE,
        "KSB_STACK_LOG": LOG,
        "KSB_STACK_CA": CA,
        "KSB_STACK_SETTINGS": SETTINGS,
        "KSB_STACK_TLS": TLS,
        "KSB_STACK_AUTH_URL": front_url(FRONTS[0]),
        "KSB_STACK_FRONTS": " ".join(map(str, FRONTS)),
        "KSB_STACK_SHORT_FRONTS": " ".join(map(str, SHORT_FRONTS)),
        "KSB_STACK_PREFIX_FRONT": PREFIX_FRONT,
        "KSB_STACK_ROTATING_FRONT": ROTATING_FRONT,
        **{f"KSB_STACK_FRONT_{name.upper()}": port for name, port in MISCONFIGURED_FRONTS.items()},
        "KSB_STACK_IDP": IDP,
        "KSB_STACK_ISSUER": ISSUER,
        "KSB_STACK_ROTATING_ISSUER": ROTATING_ISSUER,
        "KSB_STACK_SWIFT": SWIFT,
        "KSB_STACK_REGION": REGION,
        "KSB_STACK_UNCACHED_REGION": UNCACHED_REGION,
        "KSB_STACK_BROKEN_SERVICE": BROKEN_SERVICE,
        "KSB_STACK_PYTHON": venvs.path("client") / "bin" / "python",
        "KSB_STACK_PLAIN_PYTHON": venvs.path("plain") / "bin" / "python",
        "KSB_STACK_HORIZON_PYTHON": venvs.path("horizon") / "bin" / "python",
        "KSB_STACK_HORIZON": SOURCE / "dashboard.py",
        "KSB_STACK_UV": venvs.UV,
        "KSB_STACK_TOFU": golang.TOFU.path(),
        "KSB_STACK_TOFU_CONFIG": golang.tofu_config(),
        "KSB_STACK_GOPHERCLOUD_V1": golang.GOPHERCLOUD[0].path(),
        "KSB_STACK_GOPHERCLOUD_V2": golang.GOPHERCLOUD[1].path(),
        "KSB_STACK_BROWSER": browser.SCRIPT,
        "KSB_STACK_NODE_MODULES": browser.node_modules(),
        "KSB_STACK_BROWSER_LIB": SOURCE / "lib",
        "KSB_STACK_ADMIN_USER": "admin",
        "KSB_STACK_ADMIN_PASSWORD": secrets["admin"],
        "KSB_STACK_KEYCLOAK_ADMIN_PASSWORD": secrets["keycloak_admin"],
        "KSB_STACK_CLIENT_SECRET": secrets["oidc_client"],
        "KSB_STACK_CI_SECRET": secrets["ci_client"],
        **{f"KSB_STACK_PASSWORD_{user.upper()}": secrets[f"user_{user}"] for user in (*USERS, *MFA_USERS)},
        **{f"KSB_STACK_TOTP_{user.upper()}": secrets[f"totp_{user}"] for user in MFA_USERS},
        **{
            f"KSB_STACK_CLIENT_SECRET_{name.upper()}": secrets[f"client_{name}"]
            for name in CONFIDENTIAL_CLIENTS
        },
    }
    lines = [f"{name}={shlex.quote(str(value))}" for name, value in values.items()]
    if not browser.node_on_path():
        lines.append(f'PATH={shlex.quote(str(browser.NODE_BIN))}:"$PATH"')
    return "\n".join(lines)
