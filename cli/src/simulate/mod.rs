//! `rccl simulate`: what a collective takes on a cluster that need not exist.
//!
//! ```text
//! cluster   reads cluster files          report    all rows, and how they come about
//! table     for people                   json      for programs                        plot    as a picture
//! ```

pub mod cluster;
mod json;
mod plot;
mod report;
mod table;

use crate::perf::parse_size;
use rccl_schedule::{Algorithm, Collective};
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Simulate a collective on a modelled cluster, by the schedules that the engine runs: time, bus bandwidth, use of links.
///
/// Calls with more messages than memory holds are computed by a formula where there is one; the last column says so.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rccl simulate all_reduce --ranks 64                               all algorithms, 1 KiB to 1 GiB
  rccl simulate all_reduce --ranks 4096 --bytes 1M --algo ring,tree
  rccl simulate broadcast --ranks 512 --cluster docs/clusters/clos-2to1.toml --svg plot.svg
  rccl simulate all_gather --ranks 128 --json - | jq .time_us

docs/simulator.md describes the model, cluster files and the JSON. Exit status: 0, or 2 if something is wrong with the
command line or the cluster file.")]
pub struct Options {
    /// all_reduce, reduce, reduce_scatter, broadcast, scatter, gather, all_gather or all_to_all
    #[arg(value_parser = parse_collective)]
    collective: Collective,
    /// Number of ranks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    ranks: u32,
    /// Sizes, as nccl-tests mean them; K, M and G are powers of 1024
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = parse_size, default_value = "1K,1M,1G")]
    bytes: Vec<u64>,
    /// Algorithms, or `all`
    #[arg(long, value_name = "ALGOS", value_delimiter = ',', default_value = "all")]
    algo: Vec<String>,
    /// Cluster file, TOML or (with a name that ends in .json) JSON; `-` reads TOML from standard input
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// The root, where there is one
    #[arg(long, default_value_t = 0)]
    root: u32,
    /// Bytes of an element
    #[arg(long, value_name = "BYTES", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=8))]
    element: u32,
    /// Write JSON, one object a line, here; `-` for standard output, instead of the table
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Write a picture, times over sizes, here; `-` for standard output, instead of the table
    #[arg(long, value_name = "OUT")]
    svg: Option<PathBuf>,
}

pub fn main(options: &Options) -> ExitCode {
    match run(options) {
        Ok(text) => crate::print(&text),
        Err(error) => crate::complain(error),
    }
}

/// The text for standard output. The error is one line.
fn run(options: &Options) -> Result<String, String> {
    let Options { collective, ranks, root, .. } = *options;
    if root >= ranks {
        return Err(format!("--root {root} is none of {ranks} ranks, which are numbered from 0"));
    }
    let is_stdout = |out: &Option<PathBuf>| out.as_deref() == Some(Path::new("-"));
    if is_stdout(&options.json) && is_stdout(&options.svg) {
        return Err("--json - and --svg - would write both to standard output".into());
    }
    let collective = collective.with_root(root);
    let algorithms = algorithms(&options.algo, &collective)?;
    let cluster = options.cluster.as_deref().map_or_else(|| Ok(Default::default()), cluster::read)?;
    let report = Report::of(collective, ranks, &options.bytes, options.element, &algorithms, cluster)?;

    let mut stdout = String::new();
    let mut write = |out: &Option<PathBuf>, text: String| match out {
        Some(path) if path.as_path() != Path::new("-") => {
            std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
        }
        _ => {
            stdout += &text;
            Ok(())
        }
    };
    if options.json.is_some() {
        write(&options.json, json::lines(&report))?;
    }
    if options.svg.is_some() {
        write(&options.svg, plot::draw(&report)?)?;
    }
    if !is_stdout(&options.json) && !is_stdout(&options.svg) {
        stdout = table::table(&report);
    }
    Ok(stdout)
}

/// A collective's name, underscores and case aside.
pub fn parse_collective(word: &str) -> Result<Collective, String> {
    let plain = |word: &str| word.replace(['_', '-'], "").to_ascii_lowercase();
    let found = Collective::ALL.into_iter().find(|collective| plain(collective.word()) == plain(word));
    found.ok_or_else(|| {
        let known: Vec<&str> = Collective::ALL.iter().map(Collective::word).collect();
        format!("there are {}", known.join(", "))
    })
}

fn algorithms(words: &[String], collective: &Collective) -> Result<Vec<Algorithm>, String> {
    if words.iter().any(|word| word == "all") {
        return Ok(Algorithm::for_collective(collective).to_vec());
    }
    words.iter().map(|word| Algorithm::parse(word, collective).map_err(|e| format!("--algo: {e}"))).collect()
}
