"""Horizon before the stack's Keystone, for one test: says its port, and ends when its input does.

Its settings are those of a cloud with single sign-on (horizon/doc/source/configuration/settings.rst).
"""

import os
import sys
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.test import Client


class Quiet(WSGIRequestHandler):
    """Keeps no log."""

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


SETTINGS = {
    "ALLOWED_HOSTS": ["*"],
    "CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    "COMPRESS_ENABLED": False,
    "OPENSTACK_KEYSTONE_URL": os.environ["KSB_HORIZON_KEYSTONE"],
    "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    "WEBSSO_CHOICES": (("credentials", "Keystone Credentials"), ("lab", "The Lab"), ("saml2", "SAML")),
    "WEBSSO_ENABLED": True,
    "WEBSSO_IDP_MAPPING": {"lab": ("lab-idp", "openid")},
}


def main() -> None:
    """Serves until nobody wants it any more."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "openstack_dashboard.settings"
    django.setup()
    for name, value in SETTINGS.items():
        setattr(settings, name, value)
    application = get_wsgi_application()
    # The first page takes many seconds.
    Client(HTTP_HOST="localhost").get("/auth/login/")
    server = make_server("127.0.0.1", 0, application, handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


main()
