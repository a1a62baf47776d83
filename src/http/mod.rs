//! What every listener of the broker has in common: one accept loop, the guard, the page shell.

pub mod guard;
pub mod page;
mod seldom;
pub mod serve;
