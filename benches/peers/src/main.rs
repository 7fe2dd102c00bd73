//! Runs rccl, Open MPI, MPICH and Gloo on the same work in the same run, and says how they compare.
//!
//! Figures of different runs on a shared machine do not compare: other work spoils them several times over. So the
//! libraries take turns: each measures the whole range of sizes, then the next one does, and after the last the first
//! one again, for as many rounds as asked. What is compared is each library's median over the rounds.
//!
//! The peers' drivers are C and C++ sources in `drivers/`, compiled when the program starts, with whatever compilers
//! are installed. A library that is not installed is skipped, and the output says so.

mod child;
mod compare;
mod join;
mod library;
mod machine;
mod plot;
mod report;
mod row;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Compare rccl with Open MPI, MPICH, Gloo and the limits of the machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Time a collective over a range of sizes, the libraries taking turns.
    Compare(compare::Arguments),
    /// Time from starting N processes to their first barrier.
    Join(join::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Join(arguments) => join::run(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("peers: {why}");
            ExitCode::from(2)
        }
    }
}
