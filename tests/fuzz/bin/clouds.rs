#![no_main]

#[path = "../targets/clouds.rs"]
mod clouds;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clouds::feed(bytes));
