//! `rccl doctor`: does RDMA work here, what would be used, why not the rest, and what to do about it.
//!
//! ```text
//! facts     everything that is known of a host         gather, system   where it comes from
//! check     what is wrong, a pure function of facts    finding          how that is said
//! report    the JSON of one host                       text             the same for people
//! write     a queue pair that writes, to itself or to a peer
//! ranks     several hosts: joins, gathers all reports, writes between all pairs, compares
//! ```

mod check;
mod facts;
mod finding;
mod gather;
mod ranks;
mod report;
mod system;
mod text;
mod write;

#[cfg(test)]
mod tests;

use report::Report;
use std::process::ExitCode;
pub use system::identity;

/// Check RDMA on this host, and between the hosts of a job: what there is, what would be used and why not the rest, and
/// what commonly breaks RoCE, each with its remedy.
///
/// Every port that would be used is tested: 64 KiB are registered and written from the port to itself. Ranks on several
/// hosts also write to each other, which finds firewalls, wrong addresses and packets that are too large.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  rccl doctor                                this host
  rccl doctor --json | jq .hosts             the same for programs; docs/doctor.md describes the keys
  mpirun -np 2 --map-by node rccl doctor     two hosts, and between them (or srun, torchrun, rccl run)
  RCCL_IB_HCA=^rxe rccl doctor               what would another setting choose?

Exit status:
  0  RDMA works, or there is none and none is demanded: without a device, or with RCCL_IB_DISABLE=1 or RCCL_NET=tcp,
     TCP is used, which is no failure. With RCCL_NET=verbs it is one.
  1  something keeps RDMA from working, on this host or between two
  2  a bad option or setting
  3  the ranks could not be joined, or one was lost")]
pub struct Options {
    /// Start this many processes on this host; without it, join the launcher, if there is one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    ranks: Option<u32>,
    /// This process only, even under a launcher
    #[arg(long, conflicts_with = "ranks")]
    local: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// A process that `--ranks` started
    #[arg(long, hide = true)]
    member: bool,
}

const BROKEN: u8 = 1;
const FAILURE: u8 = 3;

/// Runs the command. Blocks until it has ended; a write that nobody acknowledges takes 15 s, and joining has its
/// deadline.
pub fn main(options: &Options) -> ExitCode {
    if let (Some(ranks), false) = (options.ranks, options.member) {
        return spawn(ranks);
    }
    let config = match rccl::Config::from_env() {
        Ok(config) => config,
        Err(error) => return crate::complain(error),
    };
    match ranks::join(options, &config) {
        Ok(Some(communicator)) => ranks::main(options, &config, &communicator),
        Ok(None) => alone(options, &config),
        Err(error) => {
            eprintln!("rccl doctor: {} {error}", error.code());
            ExitCode::from(FAILURE)
        }
    }
}

/// This host only.
fn alone(options: &Options, config: &rccl::Config) -> ExitCode {
    let gathered = gather::gather(config);
    let findings = check::check(&gathered.facts, &gathered.choice);
    let report = Report::new(&gathered.facts, &gathered.choice, findings);
    let text = if options.json {
        report::json(report.healthy, &report.verdict, &[], &[&report], &[], &[])
    } else {
        text::host(&report)
    };
    answer(&text, report.healthy)
}

/// Prints the answer. The status is that of the health, unless the answer cannot be written.
fn answer(text: &str, healthy: bool) -> ExitCode {
    let printed = crate::print(text);
    match healthy {
        true => printed,
        false if printed == ExitCode::SUCCESS => ExitCode::from(BROKEN),
        false => printed,
    }
}

/// Runs this very command once more for each rank.
fn spawn(ranks: u32) -> ExitCode {
    if let Err(error) = rccl::config::settings() {
        return crate::complain(error);
    }
    crate::run::once_more(ranks, false, "rccl doctor")
}
