//! `peers join`: from the start of the launcher to the first barrier, rccl against Open MPI.
//!
//! Three ways take turns: Open MPI's own `MPI_Init` and `MPI_Barrier` under `mpirun`; rccl's example `barrier` under the
//! same `mpirun`; and the same example under `rccl run`. The clock starts just before the launcher does and stops when
//! rank 0 has left the barrier, so that the launcher's share is in it, and the whole time to the launcher's end is
//! given as well.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::child;
use crate::library::{Library, Transport, compile, open_mpi};
use crate::machine::Machine;
use crate::report::Spread;

#[derive(clap::Args)]
pub struct Arguments {
    /// How many processes; several counts may be given.
    #[arg(long, value_delimiter = ',', default_value = "2,16,64")]
    ranks: Vec<u32>,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds after which a start counts as failed.
    #[arg(long, default_value_t = 120)]
    limit_s: u64,
    /// The `rccl` program.
    #[arg(long, default_value = "target/release/rccl")]
    rccl: PathBuf,
    /// The program that joins and passes a barrier: example `barrier` of rccl-examples.
    #[arg(long, default_value = "target/release/barrier")]
    program: PathBuf,
    /// Folder for the CSV file.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../results"))]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    OpenMpi,
    RcclUnderMpirun,
    RcclRun,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::OpenMpi => "Open MPI",
            Way::RcclUnderMpirun => "rccl, mpirun",
            Way::RcclRun => "rccl run",
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let scratch = tempfile::tempdir().map_err(|e| format!("cannot make a scratch folder: {e}"))?;
    let machine = Machine::here();
    let mut ways = vec![Way::OpenMpi, Way::RcclUnderMpirun, Way::RcclRun];
    let mpi = compile("mpicc.openmpi", "join_mpi.c", &[], scratch.path(), Library::Openmpi);
    if let Err(why) = &mpi {
        eprintln!("Open MPI is left out: {why}");
        ways.retain(|way| *way == Way::RcclRun);
    }
    for (needed, program) in [("rccl-cli", &arguments.rccl), ("rccl-examples", &arguments.program)] {
        if !program.is_file() {
            return Err(format!("no program {}: cargo build --release -p {needed}", program.display()));
        }
    }
    println!("{}, {} cores, {}, load {}", machine.cpu, machine.cores, machine.date, machine.load);
    println!("ms from the start of the launcher: median over {} rounds (least-most)\n", arguments.rounds);
    println!("{:>6}  {:<14}  {:>24}  {:>24}", "ranks", "", "to rank 0's barrier", "to the launcher's end");
    let mut csv =
        format!("# {} on {}, {} cores, {}\n", machine.command_line, machine.cpu, machine.cores, machine.date);
    csv += "ranks,way,barrier_min_ms,barrier_median_ms,barrier_max_ms,end_median_ms\n";
    let mut all_well = true;
    for &ranks in &arguments.ranks {
        let mut joined: Vec<Vec<(f64, f64)>> = vec![Vec::new(); ways.len()];
        for _ in 0..arguments.rounds {
            for (at, &way) in ways.iter().enumerate() {
                let mpi = mpi.as_deref().unwrap_or(Path::new(""));
                match join_once(way, ranks, mpi, arguments, scratch.path()) {
                    Ok(times) => joined[at].push(times),
                    Err(why) => {
                        all_well &= way == Way::OpenMpi;
                        eprintln!("{ranks} ranks, {}: {why}", way.name());
                    }
                }
            }
        }
        for (way, times) in ways.iter().zip(&joined) {
            let barrier = Spread::of(times.iter().map(|t| t.0));
            let end = Spread::of(times.iter().map(|t| t.1));
            let (Some(barrier), Some(end)) = (barrier, end) else { continue };
            println!("{ranks:>6}  {:<14}  {:>24}  {:>24}", way.name(), ms(barrier), ms(end));
            let Spread { min, median, max } = barrier;
            csv += &format!(
                "{ranks},{},{min:.2},{median:.2},{max:.2},{:.2}\n",
                way.name().replace(',', ""),
                end.median
            );
        }
    }
    let file = arguments.out.join("join.csv");
    std::fs::create_dir_all(&arguments.out)
        .and_then(|()| std::fs::write(&file, csv))
        .map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    println!("wrote {}", file.display());
    Ok(all_well)
}

/// Milliseconds from the launcher's start to rank 0 past the barrier, and to the launcher's end.
fn join_once(
    way: Way,
    ranks: u32,
    mpi: &Path,
    arguments: &Arguments,
    scratch: &Path,
) -> Result<(f64, f64), String> {
    let answer = scratch.join("answer");
    // Left by the round before, or not there at all.
    let _ = std::fs::remove_file(&answer);
    let mut command = match way {
        Way::OpenMpi | Way::RcclUnderMpirun => open_mpi(ranks, Transport::Shm),
        Way::RcclRun => {
            let mut command = Command::new(&arguments.rccl);
            command.args(["run", "-n", &ranks.to_string(), "--"]);
            command
        }
    };
    command.arg(if way == Way::OpenMpi { mpi } else { &arguments.program }).arg(&answer);
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| format!("the clock is before 1970: {e}"))?;
    command.env("PEERS_START", format!("{:.6}", now.as_secs_f64()));
    let started = Instant::now();
    child::run_all(vec![command], Duration::from_secs(arguments.limit_s))?;
    let end = started.elapsed().as_secs_f64() * 1e3;
    let text = std::fs::read_to_string(&answer).map_err(|e| format!("rank 0 left no time: {e}"))?;
    let barrier: f64 = text.trim().parse().map_err(|e| format!("rank 0 left `{}`: {e}", text.trim()))?;
    Ok((barrier * 1e3, end))
}

fn ms(spread: Spread) -> String {
    format!("{:.0} ({:.0}-{:.0})", spread.median, spread.min, spread.max)
}
