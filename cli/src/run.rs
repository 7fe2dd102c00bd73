//! `rccl run`: starts ranks on this host, and ends them all when one dies.

mod again;
mod environment;
mod job;
mod output;
mod rank;

pub use again::remember;
use environment::Meeting;
use job::{Job, Output};
pub use rank::{RANK_COMMAND, RankOptions, become_rank};

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

/// Start ranks of a program, prefix their output, and end them all when one dies.
///
/// Each rank gets RCCL_RANK, RCCL_SIZE, RCCL_LOCAL_RANK and RCCL_COMM_ID, and for other libraries RANK, WORLD_SIZE,
/// LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and a free MASTER_PORT that rccl itself does not use.
///
/// When a rank fails, the others have a second to report what they saw; then they get SIGTERM, and after --grace
/// SIGKILL. SIGINT, SIGTERM and SIGHUP are passed on to all ranks; the second one kills. The exit status is that of
/// the rank that failed first, 128 and the signal's number if a signal ended it, and 124 after --timeout.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rccl run -n 4 -- python train.py
  rccl run -n 2 --timeout 10m -- ./target/release/my-program --size 1M

Two hosts of four ranks; the rendezvous is an address of the first host with two free ports in a row:
  host0$ rccl run -n 4 --nodes 2 --node-rank 0 --rendezvous host0:29400 -- python train.py
  host1$ rccl run -n 4 --nodes 2 --node-rank 1 --rendezvous host0:29400 -- python train.py
On a network with strangers, give all hosts the same secret file in RCCL_KEY_FILE.")]
pub struct Options {
    /// Ranks to start on this host
    #[arg(short = 'n', long = "ranks", value_name = "N")]
    ranks: NonZeroU32,
    /// Hosts of the job; each starts N ranks
    #[arg(long, default_value = "1", value_name = "K", requires_if("2", "rendezvous"))]
    nodes: NonZeroU32,
    /// This host's number, from 0
    #[arg(long, default_value_t = 0, value_name = "R")]
    node_rank: u32,
    /// Where the hosts meet: an address of host 0, and a port there; the port after it becomes MASTER_PORT
    #[arg(long, value_name = "HOST:PORT")]
    rendezvous: Option<String>,
    /// End the job after this time: 30 (seconds), 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// How long ranks have between SIGTERM and SIGKILL
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = parse_time)]
    grace: Duration,
    /// Give each rank an equal share of the processors that this command may use, at least one
    #[arg(long)]
    bind: bool,
    /// Do not put [rank] in front of each line
    #[arg(long)]
    no_prefix: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

pub fn main(options: Options) -> ExitCode {
    let nodes = options.nodes.get();
    if options.node_rank >= nodes {
        return crate::complain(format!("--node-rank {} is not below --nodes {nodes}", options.node_rank));
    }
    let meeting = match (&options.rendezvous, nodes) {
        (Some(rendezvous), _) => Meeting::at(rendezvous),
        (None, 1) => {
            Meeting::on_this_host().map_err(|error| format!("no port for the ranks to meet: {error}"))
        }
        (None, _) => Err("--nodes needs --rendezvous HOST:PORT, with an address of host 0".into()),
    };
    let meeting = match meeting {
        Ok(meeting) => meeting,
        Err(error) => return crate::complain(error),
    };
    Job {
        command: options.program,
        ranks: options.ranks.get(),
        nodes,
        node_rank: options.node_rank,
        meeting,
        timeout: options.timeout,
        grace: options.grace,
        output: if options.no_prefix { Output::Plain } else { Output::Prefixed },
        bind: options.bind,
    }
    .run()
}

/// The library's own notation of times.
fn parse_time(text: &str) -> Result<Duration, String> {
    match rccl::Config::from_vars([("RCCL_TIMEOUT", text)]) {
        Ok(config) if !text.is_empty() => Ok(config.timeout),
        Ok(_) => Err("a time such as 30, 500ms or 10m".into()),
        Err(rccl::Error::InvalidSetting { expected, .. }) => Err(format!("expected {expected}")),
        Err(error) => Err(error.to_string()),
    }
}
/// Runs this very command once more for each of `ranks` ranks on this host, with `--member` behind the tool's name, and
/// blocks until they have ended. `tool` is who complains if they cannot be started.
pub fn once_more(ranks: u32, bind: bool, tool: &str) -> ExitCode {
    let prepared = again::with_arguments().and_then(|command| Ok((command, Meeting::on_this_host()?)));
    let (command, meeting) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("{tool}: cannot start the ranks: {error}");
            return ExitCode::from(NOT_STARTED);
        }
    };
    let grace = Duration::from_secs(5);
    let (timeout, output) = (None, Output::Plain);
    Job { command, ranks, nodes: 1, node_rank: 0, meeting, timeout, grace, output, bind }.run()
}

/// The status of [`once_more`] when no rank could be started.
const NOT_STARTED: u8 = 3;
