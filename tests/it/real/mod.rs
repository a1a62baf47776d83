//! Promises shown on the real stack: Keystone behind Apache, Keycloak, real browsers, the real `openstack`.
//!
//! A test takes a [`front`]: a request log, a callback port, a user and a home of its own. So all of them can run
//! at once, also those of two `cargo test`.

mod browsers;
mod front;
mod keystone;
mod program;
mod relay;
mod terminal;
pub mod wait;

mod adopt;
mod attacks;
mod crowd;
mod entries;
mod first_use;
mod kept;
mod killed;
mod logout;
mod notify;
mod oidc;
mod password;
mod people;
mod revoked;
mod scopes;
mod ssh;
mod tools;
mod vault;
mod waiting;
mod workload;
mod world;
