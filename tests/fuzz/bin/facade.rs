#![no_main]

#[path = "../targets/facade.rs"]
mod facade;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| facade::feed(bytes));
