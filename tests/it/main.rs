//! The integration tests: one binary, one file per promise.
//!
//! `real::` needs the stack (`make test` brings it up); everything else runs anywhere.

#[path = "../support/mod.rs"]
mod support;
