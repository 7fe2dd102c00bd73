//! `rccl tune`: which algorithms are best on a layout, measured on it or simulated on a model of it, as a profile that
//! `RCCL_TUNE_FILE` names.
//!
//! ```text
//! measure    the ranks of a job try every algorithm       simulate    layouts that nobody has, on a cluster file
//! rules      from times to rules
//! ```

mod measure;
mod rules;
mod simulate;

use crate::perf::{Sizes, parse_size};
use rccl::tuner::{Path as Joined, Profile};
use rccl_schedule::Collective;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Find out which algorithms are best here, and write a profile that jobs go by (RCCL_TUNE_FILE).
///
/// Measures with the ranks of a launcher, or with --ranks on this host: every algorithm of each collective, each size in
/// turn, and the best one in chunks of other sizes; the slowest rank's median. Do that on the hosts, with the placement of
/// ranks and the settings that the job will have, while nothing else runs. A profile may hold several layouts; one that is
/// there already keeps those that are not measured again.
///
/// With --cluster nothing is measured: layouts are simulated on that cluster, as `rccl simulate` does.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rccl tune --ranks 4                                  this host, 4 ranks, into rccl-profile.toml
  mpirun -np 8 --map-by node rccl tune --out job.toml  a job of several hosts (or srun, torchrun, rccl run)
  RCCL_TUNE_FILE=job.toml mpirun -np 8 ... ./train     the job goes by it; rank 0's file counts
  rccl tune all_reduce --ranks 2 -b 1K -e 1M           one collective, some sizes
  RCCL_TUNE_FILE=job.toml rccl tune --check --ranks 4  how good the choices are
  rccl tune --cluster clos.toml --layouts 4x8,64x8     hosts x ranks on each, simulated

Sizes are those of rccl perf; what is between two sizes is decided at their geometric mean, and the last one's algorithm
holds for all longer calls. In the profile they are bytes of a block where a rank has one for each rank.

Exit status:
  0  done
  2  a bad option or setting, or a file that cannot be read or written
  3  the ranks could not be joined, or a call failed")]
pub struct Options {
    /// all_reduce, reduce, reduce_scatter, broadcast, scatter, gather, all_gather, all_to_all [default: all of them]
    #[arg(value_parser = crate::simulate::parse_collective)]
    collectives: Vec<Collective>,
    /// Start so many processes on this host; without it, join the launcher
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=4096), conflicts_with = "cluster")]
    ranks: Option<u32>,
    /// Do not give each process of --ranks its share of the processors
    #[arg(long)]
    no_bind: bool,
    /// A process that `--ranks` started
    #[arg(long, hide = true)]
    member: bool,
    /// The profile: what it knows already stays; `-` writes a new one to standard output
    #[arg(long, short, value_name = "FILE", default_value = "rccl-profile.toml")]
    out: PathBuf,
    /// Smallest size
    #[arg(short = 'b', long = "minbytes", value_name = "SIZE", value_parser = parse_size, default_value = "8")]
    begin: u64,
    /// Largest size
    #[arg(short = 'e', long = "maxbytes", value_name = "SIZE", value_parser = parse_size, default_value = "64M")]
    end: u64,
    /// From one size to the next
    #[arg(short = 'f', long = "stepfactor", value_name = "FACTOR", default_value_t = 2,
          value_parser = clap::value_parser!(u64).range(2..))]
    factor: u64,
    /// Only show how what is chosen now, by RCCL_TUNE_FILE if it is set, compares with the best; write nothing
    #[arg(long, conflicts_with = "cluster")]
    check: bool,
    /// Seconds that an algorithm may take for a size
    #[arg(long, value_name = "SECONDS", default_value_t = 0.2, value_parser = crate::perf::parse_seconds)]
    budget: f64,
    /// Simulate on this cluster file, in the place of measuring
    #[arg(long, value_name = "FILE", requires = "layouts")]
    cluster: Option<PathBuf>,
    /// HOSTSxRANKS: so many hosts, with so many ranks on each
    #[arg(long, value_name = "LAYOUTS", value_delimiter = ',', value_parser = parse_layout, requires = "cluster")]
    layouts: Vec<(u32, u32)>,
    /// What joins the hosts of a simulated layout: tcp or verbs
    #[arg(long, value_name = "WORD", default_value = "tcp", value_parser = parse_path, requires = "cluster")]
    path: Joined,
}

const FAILURE: u8 = 3;

/// Runs the command. Blocks until all ranks have joined and measured; every wait has the deadline of a call or of joining.
pub fn main(options: &Options) -> ExitCode {
    if options.end < options.begin {
        return crate::complain("-e is below -b: the largest size is at least the smallest");
    }
    // What is wrong with the file is told before anything is measured.
    let mut profile = match known(&options.out) {
        Ok(profile) => profile,
        Err(error) => return crate::complain(error),
    };
    if let Some(cluster) = &options.cluster {
        let cluster = match crate::simulate::cluster::read(cluster) {
            Ok(cluster) => cluster,
            Err(error) => return crate::complain(error),
        };
        for tuned in simulate::layouts(options, &cluster) {
            profile.insert(tuned);
        }
        return write(&options.out, &header(), &profile);
    }
    if let (Some(ranks), false) = (options.ranks, options.member) {
        return match rccl::config::settings() {
            Ok(_) => crate::run::once_more(ranks, !options.no_bind, "rccl tune"),
            Err(error) => crate::complain(error),
        };
    }
    match measure::run(options) {
        Ok(Some(_)) if options.check => ExitCode::SUCCESS,
        Ok(Some(tuned)) => {
            profile.insert(tuned);
            write(&options.out, &header(), &profile)
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(measure::Error::Usage { rank, message }) => match rank {
            0 => crate::complain(message),
            _ => ExitCode::from(2),
        },
        Err(measure::Error::Call { rank, error }) => {
            if crate::perf::speaks_for_all(rank, &error) {
                eprintln!("rccl tune: {} {error}", error.code());
            }
            ExitCode::from(FAILURE)
        }
    }
}

impl Options {
    fn sizes(&self) -> Sizes {
        Sizes::new(self.begin, self.end, 0, self.factor)
    }

    fn collectives(&self) -> Vec<Collective> {
        if self.collectives.is_empty() { Collective::ALL.to_vec() } else { self.collectives.clone() }
    }
}

/// What the file holds already.
fn known(out: &Path) -> Result<Profile, String> {
    if out == Path::new("-") {
        return Ok(Profile::default());
    }
    match std::fs::read_to_string(out) {
        Ok(text) => Profile::parse(&text).map_err(|flaw| format!("{}:{flaw}", out.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Profile::default()),
        Err(error) => Err(format!("cannot read {}: {error}", out.display())),
    }
}

/// How the file came about, as a comment.
fn header() -> String {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--member").collect();
    format!("# rccl {}\n", words.join(" "))
}

fn write(out: &Path, header: &str, profile: &Profile) -> ExitCode {
    let text = format!("{header}{}", profile.write());
    if out == Path::new("-") {
        return crate::print(&text);
    }
    match std::fs::write(out, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::complain(format!("cannot write {}: {error}", out.display())),
    }
}

fn parse_layout(text: &str) -> Result<(u32, u32), String> {
    let numbers =
        text.split_once('x').and_then(|(hosts, each)| Some((hosts.parse().ok()?, each.parse().ok()?)));
    let fits = |&(hosts, each): &(u32, u32)| hosts > 0 && each > 0 && hosts.saturating_mul(each) <= 1 << 16;
    numbers.filter(fits).ok_or_else(|| "expected HOSTSxRANKS, such as 4x8, of at most 65536 ranks".into())
}

fn parse_path(text: &str) -> Result<Joined, String> {
    match text {
        "tcp" => Ok(Joined::Tcp),
        "verbs" => Ok(Joined::Verbs),
        _ => Err("expected tcp or verbs".into()),
    }
}
