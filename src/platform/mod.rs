//! What differs from system to system: the clock, files, which machine it is, who and which program is at the other end, notifications, the keyring.

pub mod browser;
pub mod clock;
pub mod daemon;
pub mod descriptors;
pub mod files;
pub mod harden;
pub mod inotify;
pub mod logind;
pub mod machine;
pub mod network;
pub mod notify;
pub mod own;
pub mod owner;
pub mod paths;
pub mod peer;
pub mod process;
pub mod program;
pub mod secrets;
pub mod socket;
mod state;
pub mod systemd;
