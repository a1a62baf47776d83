//! What every listener of the broker has in common: one accept loop, the guard, the page shell.

pub mod accept;
pub mod guard;
mod log_throttle;
pub mod pages;
