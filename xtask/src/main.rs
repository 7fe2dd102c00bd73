//! Steps of rccl's build that cargo has no command for: `cargo xtask --help`.

#![forbid(unsafe_code)]

mod install;

use clap::Parser;
use std::process::ExitCode;

/// Steps of rccl's build that cargo has no command for.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Build the C library and put it, its header and what finds them under a prefix.
    Install(install::Options),
}

fn main() -> ExitCode {
    let Task::Install(options) = Task::parse();
    match install::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
