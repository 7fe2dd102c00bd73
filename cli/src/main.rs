//! The `rccl` command.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let again = std::env::current_exe().map(|program| vec![OsString::from(program)]);
    rccl_cli::main(again, std::env::args_os().skip(1).collect())
}
