"""A real OpenStack identity cloud on loopback: Keystone, Apache with mod_auth_openidc, Keycloak, browsers."""
