//! The integration tests: one binary, one file per promise.
//!
//! `real::` needs the stack (`make test` brings it up); everything else runs anywhere.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a helper of tests may fail the test, and say why"
)]

#[path = "../support/mod.rs"]
mod support;

mod adopt;
mod api;
mod architecture;
mod audit;
mod cli;
mod clouds;
mod clouds_file;
mod config;
mod confirm;
mod connections;
mod daemon;
mod doctor;
mod exec;
mod facade;
mod handover;
mod homes;
mod hostile;
mod junk;
mod keep;
mod killed;
mod leases;
mod lifecycle;
mod lifetime;
mod lock;
mod logout;
mod nested;
mod oidc;
mod password;
mod peer;
mod promises;
mod prompt;
mod real;
mod refresh;
mod scenarios;
mod service;
mod setup;
mod signals;
mod signin;
mod soak;
mod sockets;
mod ssh;
mod tell;
mod variables;
mod vault;
mod weather;
mod workload;
