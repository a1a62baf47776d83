#![no_main]

#[path = "../targets/vault.rs"]
mod vault;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vault::feed(bytes));
