//! Promises shown on the real stack: Keystone behind Apache, Keycloak, real browsers, the real `openstack`.

mod front;
