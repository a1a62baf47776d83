//! What the tests share: a user's private corner of the machine, and in-process doubles.

pub mod agent;
pub mod api;
pub mod browser;
pub mod clock;
pub mod dashboard;
pub mod desk;
pub mod http;
pub mod kept;
pub mod keystone;
pub mod killing;
pub mod lab;
pub mod machine;
pub mod memory;
pub mod notices;
pub mod openapi;
pub mod port;
pub mod proxy;
pub mod sandbox;
pub mod skip;
pub mod spawn;
pub mod stranger;
pub mod tool;
pub mod tunnel;
pub mod world;
