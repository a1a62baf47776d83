//! `ksb`: see `ksb --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    keystone_broker::cli::main()
}
