//! What differs from system to system: the clock, where files lie, who is at the other end.

pub mod clock;
pub mod paths;
pub mod peer;
