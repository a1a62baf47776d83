#![no_main]

#[path = "../targets/api.rs"]
mod api;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| api::feed(bytes));
