//! What the tests share: a person's private corner of the machine, and in-process doubles.

pub mod sandbox;
