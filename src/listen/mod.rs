//! What is served for as long as the broker lives.

mod auth_request;
pub mod facade;
mod proxy;
pub mod socket;

pub use auth_request::{AuthRequest, Unfit};
