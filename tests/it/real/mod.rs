//! Promises shown on the real stack: Keystone behind Apache, Keycloak, real browsers, the real `openstack`.
//!
//! A test takes a [`front`]: a request log, a callback port, a user and a home of its own. So all of them can run
//! at once, also those of two `cargo test`.

mod browsers;
mod bus;
mod chromium;
mod elsewhere;
mod front;
mod gate;
mod keystone;
mod program;
mod relay;
mod terminal;
mod tofu;
pub mod wait;
mod wiretap;

mod adopt;
mod aging;
mod attacks;
mod audit;
mod canaries;
mod confirm;
mod crowd;
mod diagnosis;
mod doctor;
mod entries;
mod facade_attacks;
mod files;
mod first_use;
mod grants;
mod keyring;
mod killed;
mod leases;
mod limiter;
mod logout;
mod notify;
mod oidc;
mod password;
mod people;
mod renewal;
mod revoked;
mod scopes;
mod seat;
mod service;
mod setup;
mod sockets;
mod ssh;
mod strangers;
mod terraform;
mod tools;
mod unmodified;
mod vault;
mod waiting;
mod workload;
mod world;
