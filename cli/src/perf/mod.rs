//! `rccl perf`: times a collective and checks its results, with nccl-tests' options, table and way of checking.
//!
//! ```text
//! options   what to run                     size    the sizes of a run
//! job       the ranks, and the loop over all cases
//! line      one line of the table           plan    what a rank passes, and what must come out
//! measure   one case: two ways of timing, and the check
//! calls     an iteration                    image   arrays before and after a call
//! check     data whose result is known      table, json, report    what is printed
//! ```
//!
//! Exit status: 0 all right, 1 wrong elements, 2 a bad option, 3 anything else (a rank was lost, a file cannot be
//! written …).

mod calls;
mod check;
mod image;
mod job;
mod json;
mod line;
mod links;
mod measure;
mod options;
mod plan;
mod report;
mod size;
mod table;

use rccl::{Error, Failure};
use std::process::ExitCode;

pub use line::Line;
pub use measure::{Bench, Case};
pub use options::{Options, parse_seconds};
pub use size::{Sizes, parse_size, show_size};

const WRONG: u8 = 1;
const USAGE: u8 = 2;
const FAILURE: u8 = 3;

/// Runs the command. Blocks until it has ended; every wait has the deadline of a call or of joining.
pub fn main(options: &Options) -> ExitCode {
    if let Err(message) = options.validate() {
        return usage(&message);
    }
    if let (Some(ranks), false) = (options.ranks, options.member) {
        return spawn(options, ranks);
    }
    match job::run(options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(WRONG),
        Err(job::Error::Usage { rank: 0, message }) => usage(&message),
        Err(job::Error::Usage { .. }) => ExitCode::from(USAGE),
        Err(job::Error::Elsewhere) => ExitCode::from(FAILURE),
        Err(job::Error::Output(error)) => {
            eprintln!("rccl perf: cannot write the results: {error}");
            ExitCode::from(FAILURE)
        }
        Err(job::Error::Call { rank, error }) => {
            if speaks_for_all(rank, &error) {
                eprintln!("rccl perf: {} {error}", error.code());
            }
            ExitCode::from(FAILURE)
        }
    }
}

/// Runs this very command once more for each rank.
fn spawn(options: &Options, ranks: u32) -> ExitCode {
    // What would fail in every rank is said once, before there are any: settings, and the file that rank 0 writes.
    if let Err(error) = rccl::config::settings() {
        return usage(&error.to_string());
    }
    if let Err(error) = report::create_json(options) {
        return usage(&error.to_string());
    }
    crate::run::once_more(ranks, !options.no_bind, "rccl perf")
}

fn usage(message: &str) -> ExitCode {
    let error = clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{message}\n"));
    let _ = error.print(); // nowhere left to complain
    ExitCode::from(USAGE)
}

/// Whether this rank is the one to print an error. What broke the communicator is reported to every rank and printed by
/// the lowest that lives; an abort by the rank that knows why; and what went wrong in one rank by that one.
pub fn speaks_for_all(rank: Option<u32>, error: &Error) -> bool {
    match (rank, error.failure()) {
        (Some(rank), Some(Failure::PeerLost { member, .. })) => rank == u32::from(member.rank == 0),
        (Some(rank), Some(Failure::Aborted { member, .. })) => rank == member.rank,
        (Some(rank), Some(_)) => rank == 0,
        _ => true,
    }
}
