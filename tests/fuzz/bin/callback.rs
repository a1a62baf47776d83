#![no_main]

#[path = "../targets/callback.rs"]
mod callback;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| callback::feed(bytes));
