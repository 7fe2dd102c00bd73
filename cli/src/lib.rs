//! The `rccl` command, for the program of that name and for whoever else offers it, as `python -m rccl` does.
#![forbid(unsafe_code)]

mod doctor;
mod env;
mod explain;
mod perf;
mod run;
mod share;
mod simulate;
mod topo;
/// Made-up hosts.
#[cfg(test)]
#[path = "../../topology/tests/tree/mod.rs"]
mod tree;
mod tune;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

/// Collective communication between processes and hosts: start ranks, look at settings, explain errors.
#[derive(Parser)]
#[command(name = "rccl", version = VERSION, max_term_width = 110, subcommand_required = true)]
struct Command {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    Run(run::Options),
    Perf(Box<perf::Options>),
    Doctor(doctor::Options),
    Topo(topo::Options),
    Simulate(simulate::Options),
    Tune(tune::Options),
    Env(env::Options),
    Explain(explain::Options),
    #[command(name = run::RANK_COMMAND, hide = true)]
    Rank(run::RankOptions),
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("RCCL_COMMIT"), ", wire 8)");

/// Runs the command with these arguments, of which the program's name is none, and returns its status; a command line that
/// cannot be read ends the process. `again` is what starts the command once more, as it does for its ranks: a program, and
/// arguments that go before the command's own.
///
/// Call it once, from the main thread.
pub fn main(again: io::Result<Vec<OsString>>, arguments: Vec<OsString>) -> ExitCode {
    let command =
        Command::parse_from(std::iter::once(OsString::from("rccl")).chain(arguments.iter().cloned()));
    run::remember(again, arguments);
    match command.tool {
        Tool::Run(options) => run::main(options),
        Tool::Perf(options) => perf::main(&options),
        Tool::Doctor(options) => doctor::main(&options),
        Tool::Topo(options) => topo::main(&options),
        Tool::Simulate(options) => simulate::main(&options),
        Tool::Tune(options) => tune::main(&options),
        Tool::Env(options) => env::main(&options),
        Tool::Explain(options) => explain::main(&options),
        Tool::Rank(options) => run::become_rank(options),
    }
}

/// Prints a tool's answer. A reader that has seen enough (`head`) is no failure; a full disk is.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format!("writing the answer: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints why a tool cannot go on. The status is that of a command line that is wrong.
fn complain(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("rccl: {error}");
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_names_the_wire_version() {
        assert!(super::VERSION.ends_with(&format!(", wire {})", rccl::WIRE_VERSION)), "{}", super::VERSION);
    }
}
