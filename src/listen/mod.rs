//! What is served for as long as the broker lives.

pub mod socket;
