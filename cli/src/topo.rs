//! `rccl topo`: what this host, or NCCL's topology and graph files, consist of: for people, for programs, as a picture,
//! and as a file.
//!
//! ```text
//! tree      a system for people, and graphs           distances   path types and bandwidths as a table
//! host      processors and network of this host       job         the hosts of a job
//! lines     how people are told                       rings       rings and trees, searched for
//! decisions   which algorithms calls take, and why
//! ```

mod decisions;
mod distances;
mod host;
mod job;
mod lines;
mod rings;
#[cfg(test)]
mod tests;
mod tree;

use decisions::ExplainOptions;
use host::ThisHost;
use rccl::Communicator;
use rccl_topology::draw;
use rccl_topology::graph::Graphs;
use rccl_topology::job::Job;
use rccl_topology::paths::Network;
use rccl_topology::system::System;
use rccl_topology::xml::{self, Error, Parsed};
use rings::{Found, RingOptions};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show this host, or a topology file or graph file of NCCL: what is in it, how near devices are, a picture.
///
/// Under a launcher: the hosts of the job with their ranks, and the subnets and rails that join them.
///
/// Of this host: processors and what this process may use of them, NUMA nodes, GPUs, network adapters and the PCI switches
/// between, interfaces and what carries them, and the switches that lldpd knows. RCCL_TOPO_FILE stands for it.
///
/// With --rings it also searches for the rings and trees by which collectives should go, as NCCL does. With --explain it says
/// which algorithms the calls of a job take, and why, instead.
///
/// Files of AMD's dialect, partial ones and such of other versions are read, too. What in a file is not known is told
/// and left out.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rccl topo                                   this host, as a tree
  rccl topo --xml topo.xml                    and as a file that NCCL reads (NCCL_TOPO_FILE)
  mpirun -np 8 --map-by node rccl topo        the hosts of a job, and what joins them (or srun, torchrun, rccl run)
  rccl topo ndv4-topo.xml                     what is in a file
  rccl topo topo.xml --paths                  and how near devices are, as NCCL sees it
  rccl topo topo.xml --svg topo.svg           a picture
  rccl topo topo.xml --graph graph.xml        with the rings and trees that NCCL found
  rccl topo --graph graph.xml --json -        the graphs for programs; docs/topology.md describes the keys
  rccl topo topo.xml --rings                  rings and trees in that host, searched for
  rccl topo topo.xml --rings --hosts 64 --cluster clos.toml
                                              over 64 such hosts, leaf by leaf and rail by rail
  srun --ntasks-per-node 4 rccl topo --rings  over the hosts of a job
  rccl topo topo.xml --rings --graph-out graph.xml
                                              and as a file that NCCL reads (NCCL_GRAPH_FILE)
  rccl topo topo.xml --xml -                  the file as it was understood
  rccl topo --explain all_reduce --bytes 1M --hosts 4 --ranks 8
                                              the algorithm that such a job takes, and why; without --hosts and
                                              --ranks that of the launcher's job

Exit status:
  0  done
  2  a bad option or setting; a file that cannot be read or written. The message has its name, line and column
  3  the ranks could not be joined, or one was lost")]
pub struct Options {
    /// A topology file, in the place of this host
    file: Option<PathBuf>,
    /// A graph file, by itself or beside the topology
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
    /// This host only, even under a launcher
    #[arg(long)]
    local: bool,
    /// Also show path type and bandwidth between GPUs and all other devices
    #[arg(long)]
    paths: bool,
    /// Write JSON there; - is standard output. With --paths all paths are in it
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Write NCCL's XML there: the topology, or the graphs if there is no topology
    #[arg(long, value_name = "OUT")]
    xml: Option<PathBuf>,
    /// Draw there: hosts, NUMA nodes, switches, GPUs, adapters and ports; rings and trees
    #[arg(long, value_name = "OUT")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    rings: RingOptions,
    #[command(flatten)]
    explain: ExplainOptions,
}

/// What was read and found; system or graphs are there.
#[derive(Default)]
struct Subject {
    /// If it is that of a launcher.
    job: Option<Job>,
    /// If it is this one, and no file stands for it.
    host: Option<ThisHost>,
    system: Option<System>,
    graphs: Option<Graphs>,
    found: Option<Found>,
}

impl Subject {
    /// What was found of a host beneath a root.
    fn of(root: &Path, host: ThisHost) -> Subject {
        let system = System::discover(root, &host.host);
        Subject { system: Some(system), host: Some(host), ..Subject::default() }
    }
}

const FAILURE: u8 = 3;

/// Runs the command. Under a launcher it blocks until all ranks have joined.
pub fn main(options: &Options) -> ExitCode {
    let outputs = [&options.json, &options.xml, &options.svg, &options.rings.graph_out];
    if outputs.iter().filter(|out| out.as_deref() == Some(Path::new("-"))).count() > 1 {
        return crate::complain(
            "only one of --json, --xml, --svg and --graph-out can be standard output (-)",
        );
    }
    if options.explain.are_wanted() {
        return explain(options);
    }
    if options.file.is_none() && options.graph.is_none() && !options.local {
        let config = match rccl::Config::from_env() {
            Ok(config) => config,
            Err(error) => return crate::complain(error),
        };
        match crate::share::join(&config, "topo")
            .and_then(|job| job.map(|job| of_job(options, &config, job)).transpose())
        {
            Ok(Some(status)) => return status,
            Ok(None) => {}
            Err(error) => {
                eprintln!("rccl topo: {} {error}", error.code());
                return ExitCode::from(FAILURE);
            }
        }
    }
    match read(options) {
        Ok(subject) => tell(options, &subject),
        Err(error) => crate::complain(error),
    }
}

/// Which algorithms are taken: by the launcher's job, or one that need not exist.
fn explain(options: &Options) -> ExitCode {
    if options.file.is_some() || options.graph.is_some() || options.xml.is_some() || options.svg.is_some() {
        return crate::complain("--explain is about a job: leave out files, --graph, --xml and --svg");
    }
    let decided = rccl::Config::from_env().map_err(|error| error.to_string()).and_then(|config| {
        if options.rings.is_planned() {
            let (hosts, each) = options.rings.planned();
            return options.explain.planned(&config, hosts, each);
        }
        let job = Communicator::builder().and_then(|builder| builder.label("topo").from_env());
        let job = job.map_err(|error| format!("{} {error}", error.code()))?;
        if job.size() == 1 {
            return Err("--explain: give --hosts and --ranks, or start it by a launcher".into());
        }
        let decided = options.explain.of_job(&config, &job)?;
        let rank = job.rank();
        job.finish().map_err(|error| error.to_string())?;
        Ok(decided.filter(|_| rank == 0))
    });
    match decided {
        Err(error) => crate::complain(error),
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(decisions)) => match &options.json {
            None => crate::print(&decisions.text()),
            Some(out) => {
                let text = serde_json::to_string_pretty(&decisions).unwrap_or_default();
                write(out, &format!("{text}\n")).err().unwrap_or(ExitCode::SUCCESS)
            }
        },
    }
}

/// Runs as one rank of several, of which the first tells.
fn of_job(options: &Options, config: &rccl::Config, communicator: Communicator) -> rccl::Result<ExitCode> {
    // It could be read when this rank joined.
    let file = take(config.topo_file.as_deref(), xml::load_system).unwrap_or_default();
    let subject = job::gather(&communicator, config, file)?;
    let status = match subject.map(|subject| searched(options, subject)) {
        None => ExitCode::SUCCESS,
        Some(Ok(subject)) => tell(options, &subject),
        Some(Err(error)) => crate::complain(error),
    };
    // Nobody leaves before all has been said.
    communicator.barrier()?;
    communicator.finish()?;
    Ok(status)
}

/// Writes what is asked for, or shows it.
fn tell(options: &Options, subject: &Subject) -> ExitCode {
    let outputs = [&options.json, &options.xml, &options.svg, &options.rings.graph_out];
    let network = subject.system.as_ref().filter(|_| options.paths).map(Network::new);
    if outputs.iter().all(|out| out.is_none()) {
        return crate::print(&people(subject, network.as_ref()));
    }
    let texts: [&dyn Fn() -> String; 4] = [
        &|| json(subject, network.as_ref()),
        &|| match (&subject.system, &subject.graphs) {
            (Some(system), _) => xml::write_system(system),
            (None, graphs) => graphs.as_ref().map(xml::write_graphs).unwrap_or_default(),
        },
        &|| draw::svg(subject.system.as_ref(), subject.graphs.as_ref()),
        &|| subject.graphs.as_ref().map(xml::write_graphs).unwrap_or_default(),
    ];
    for (out, text) in outputs.iter().zip(texts) {
        let Some(out) = out else { continue };
        if let Err(status) = write(out, &text()) {
            return status;
        }
    }
    ExitCode::SUCCESS
}

fn read(options: &Options) -> Result<Subject, String> {
    let system = take(options.file.as_deref(), xml::load_system)?;
    let graphs = take(options.graph.as_deref(), xml::load_graphs)?;
    let subject = if system.is_some() || graphs.is_some() {
        Subject { system, graphs, ..Subject::default() }
    } else {
        let config = rccl::Config::from_env().map_err(|error| error.to_string())?;
        match take(config.topo_file.as_deref(), xml::load_system)? {
            Some(system) => Subject { system: Some(system), ..Subject::default() },
            None => Subject::of(Path::new("/"), ThisHost::discover()),
        }
    };
    searched(options, subject)
}

/// With the rings and trees that are wished for.
fn searched(options: &Options, mut subject: Subject) -> Result<Subject, String> {
    if let Some(system) = &subject.system {
        subject.found = options.rings.search(system, subject.job.as_ref())?;
    }
    subject.graphs = subject.graphs.or(subject.found.as_ref().map(|found| found.graphs.clone()));
    Ok(subject)
}

/// Reads a file, and tells what in it was left out.
fn take<T>(
    path: Option<&Path>,
    load: impl Fn(&Path) -> Result<Parsed<T>, Error>,
) -> Result<Option<T>, String> {
    let Some(path) = path else { return Ok(None) };
    let parsed = load(path).map_err(|error| error.to_string())?;
    for note in &parsed.notes {
        eprintln!("rccl: {}:{note}, and is left out", path.display());
    }
    Ok(Some(parsed.value))
}

fn people(subject: &Subject, network: Option<&Network>) -> String {
    let host = subject.host.as_ref();
    let mut text = subject.job.as_ref().map(job::text).unwrap_or_default();
    text.push_str(&host.map(|host| host::processors(&host.processors)).unwrap_or_default());
    text.push_str(&subject.system.as_ref().map(tree::system).unwrap_or_default());
    text.push_str(&host.map(host::network).unwrap_or_default());
    if let Some(network) = network {
        text.push('\n');
        text.push_str(&distances::table(network));
    }
    if let Some(graphs) = &subject.graphs {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&tree::graphs(graphs));
    }
    if let Some(found) = &subject.found {
        text.push_str(&found.text());
    }
    text
}

fn json(subject: &Subject, network: Option<&Network>) -> String {
    let mut value = serde_json::Map::new();
    // Maps with keys that are strings: these cannot fail.
    let as_value = |value: serde_json::Result<serde_json::Value>| value.unwrap_or_default();
    if let Some(job) = &subject.job {
        value.insert("job".to_owned(), as_value(serde_json::to_value(job)));
    }
    if let Some(host) = &subject.host {
        value.insert("host".to_owned(), as_value(serde_json::to_value(host)));
    }
    if let Some(system) = &subject.system {
        value.insert("system".to_owned(), as_value(serde_json::to_value(system)));
    }
    if let Some(network) = network {
        value.insert("paths".to_owned(), as_value(serde_json::to_value(distances::all(network))));
    }
    if let Some(graphs) = &subject.graphs {
        value.insert("graphs".to_owned(), as_value(serde_json::to_value(graphs)));
    }
    if let Some(job) = subject.found.as_ref().and_then(|found| found.job.as_ref()) {
        value.insert("search".to_owned(), as_value(serde_json::to_value(job)));
    }
    if let Some(leaves) = subject.found.as_ref().and_then(|found| found.fabric.as_ref()) {
        value.insert("fabric".to_owned(), as_value(serde_json::to_value(leaves)));
    }
    format!("{:#}\n", serde_json::Value::Object(value))
}

fn write(out: &Path, text: &str) -> Result<(), ExitCode> {
    if out == Path::new("-") {
        return match crate::print(text) {
            ExitCode::SUCCESS => Ok(()),
            status => Err(status),
        };
    }
    std::fs::write(out, text)
        .map_err(|error| crate::complain(format!("{} cannot be written: {error}", out.display())))
}
