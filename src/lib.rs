//! keystone-broker: sign in once in your browser; every OpenStack tool on this machine just works.
//!
//! The library is for the program `ksb` and its tests: no stability is promised. It is for Linux alone.
//!
//! Arrows run one way (`tests/it/architecture.rs` has them all): everything may use [`model`] and [`error`], which use
//! nothing; `cli → {clouds, client} → api`; `listen → broker → {signin, keystone, vault}`; `signin → http_server`,
//! `listen → http_server`; never `signin → listen`.
#![doc(hidden)]
#![forbid(unsafe_code)]

/// The life of the agent's process.
pub mod agent;
/// The types of the broker's own HTTP API, shared by client and server.
pub mod api;
/// The audit log: what was given or refused, to whom.
pub mod audit;
/// The heart: tokens, sign-ins, sessions, logout.
pub mod broker;
/// The command line.
pub mod cli;
/// Speaks the API; starts the agent when none runs.
pub mod client;
/// clouds.yaml and its kin, as openstacksdk reads them.
pub mod clouds;
/// `config.toml`: the user's settings.
pub mod config;
/// What a dashboard's address tells of its Keystone.
pub mod dashboard;
/// What can go wrong, by stable code.
pub mod error;
/// What is written for later processes: the vault's contents, the handover, files.
pub mod formats;
/// HTTPS to clouds.
pub mod http_client;
/// Servers: one accept loop, the guard, the pages.
pub mod http_server;
/// The Identity API v3 as a client.
pub mod keystone;
/// What is served for as long as the broker lives.
pub mod listen;
/// The project's words as types.
pub mod model;
/// Notifications on the desktop.
pub mod notifier;
/// The identity provider as an OpenID Connect client sees it.
pub mod oidc;
/// What differs from system to system.
pub mod platform;
/// The ways to sign in.
pub mod signin;
mod sync;
/// Wall-clock time.
pub mod time;
/// What is kept at rest, sealed.
pub mod vault;
