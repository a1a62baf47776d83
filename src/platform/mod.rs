//! What differs from system to system: the clock, files, which machine it is, who and which program is at the other end, notifications, the keyring.

pub mod browser;
pub mod clock;
pub mod current_exe;
pub mod daemon;
pub mod fd_limit;
pub mod files;
pub mod hardening;
pub mod inotify;
pub mod logind;
pub mod machine;
pub mod network;
pub mod notify;
pub mod owner;
pub mod paths;
pub mod peer_program;
pub mod process;
pub mod secret_service;
pub mod socket;
mod state;
pub mod systemd;
pub mod tcp_owner;
