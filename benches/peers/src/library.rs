//! The libraries: how the driver of each is built, and how it is started on each path.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde::Serialize;

use crate::machine::first_line;

/// What moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Shared memory of one host.
    Shm,
    /// TCP over the loopback interface.
    Tcp,
}

/// The collective to time, of f32, out of place where nothing else is said. A size is that of a rank's data, or that of
/// all ranks' blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Collective {
    /// Sum, to every rank.
    AllReduce,
    /// Sum, to rank 0.
    Reduce,
    /// Sum, a block to each rank.
    ReduceScatter,
    /// From rank 0, in place.
    Broadcast,
    /// A block of rank 0's to each rank.
    Scatter,
    /// Every rank's block to rank 0.
    Gather,
    /// Every rank's block to every rank.
    AllGather,
    /// A block of every rank's to every rank.
    AllToAll,
}

impl Collective {
    /// Whether input and output are one array in what is compared: what MPI's call has, and rccl's can have.
    pub fn in_place(self) -> bool {
        self == Collective::Broadcast
    }

    /// The least size in bytes: an element, or one for each rank where there are blocks.
    pub fn smallest(self, ranks: u32) -> u64 {
        match self {
            Collective::AllReduce | Collective::Reduce | Collective::Broadcast => 4,
            _ => 4 * u64::from(ranks),
        }
    }
}

/// Where rccl's buffers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// `Communicator::alloc`: memory that peers can map.
    Registered,
    /// Ordinary memory of the process, as the peers use.
    Plain,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Library {
    /// This project, through `rccl perf`.
    Rccl,
    /// Open MPI.
    Openmpi,
    /// MPICH.
    Mpich,
    /// Gloo; it has no shared-memory path.
    Gloo,
    /// No library: the least work that the collective needs, written out by hand.
    Limit,
}

/// The work that every library is given.
#[derive(Clone, Debug, Serialize)]
pub struct Work {
    pub collective: Collective,
    pub ranks: u32,
    pub transport: Transport,
    pub memory: Memory,
    /// Sizes in bytes: `begin`, `begin * factor` … up to `end`.
    pub begin: u64,
    pub end: u64,
    pub factor: u64,
    /// Each call is timed together with a barrier behind it.
    pub closing_barrier: bool,
    /// Milliseconds of timed calls that one size may take; drivers lower the iterations to stay within it.
    pub budget_ms: u64,
}

impl Work {
    /// How many sizes there are, which is also how many rows a driver writes.
    pub fn sizes(&self) -> usize {
        std::iter::successors(Some(self.begin), |bytes| bytes.checked_mul(self.factor))
            .take_while(|&bytes| bytes <= self.end)
            .count()
    }
}

impl Library {
    pub fn name(self) -> &'static str {
        match self {
            Library::Rccl => "rccl",
            Library::Openmpi => "Open MPI",
            Library::Mpich => "MPICH",
            Library::Gloo => "Gloo",
            Library::Limit => "limit",
        }
    }

    /// The version that is installed, or `None` where the library is not.
    pub fn version(self, rccl: &Path) -> Option<String> {
        match self {
            Library::Rccl => first_line(&rccl.to_string_lossy(), &["--version"]),
            Library::Openmpi => first_line("mpirun.openmpi", &["--version"]),
            Library::Mpich => {
                first_line("mpichversion", &[]).or_else(|| first_line("mpiexec.hydra", &["--version"]))
            }
            // Gloo has no command to ask, and no version in its headers.
            Library::Gloo => first_line("dpkg-query", &["-W", "-f", "libgloo ${Version}\n", "libgloo-dev"])
                .or_else(|| Some("unknown".to_owned())),
            Library::Limit => first_line("cc", &["--version"]),
        }
    }

    /// Builds the driver into `folder`; the error says why the library cannot take part.
    pub fn build(self, work: &Work, rccl: &Path, folder: &Path) -> Result<Driver, String> {
        let compile = |compiler: &str, source: &str, libraries: &[&str]| {
            compile(compiler, source, libraries, folder, self)
                .map(|program| Driver { library: self, program })
        };
        match (self, work.transport) {
            (Library::Rccl, _) if rccl.is_file() => Ok(Driver { library: self, program: rccl.to_owned() }),
            (Library::Rccl, _) => Err(format!(
                "no program {}: build it with `cargo build --release -p rccl-cli`, or name it with --rccl",
                rccl.display()
            )),
            (Library::Openmpi, _) => compile("mpicc.openmpi", "mpi.c", &[]),
            (Library::Mpich, _) => compile("mpicc.mpich", "mpi.c", &[]),
            (Library::Gloo, Transport::Shm) => Err("Gloo has no shared-memory path".to_owned()),
            (Library::Gloo, Transport::Tcp) => compile("g++", "gloo.cc", &["-lgloo", "-lpthread"]),
            (Library::Limit, Transport::Shm) => compile("cc", "limit_shm.c", &[]),
            (Library::Limit, Transport::Tcp) if work.ranks == 2 => compile("cc", "limit_tcp.c", &[]),
            (Library::Limit, Transport::Tcp) => Err("the TCP probe is for 2 ranks".to_owned()),
        }
    }
}

/// Compiles one source of `drivers/`. All of them get the same flags.
pub fn compile(
    compiler: &str,
    source: &str,
    libraries: &[&str],
    folder: &Path,
    library: Library,
) -> Result<PathBuf, String> {
    let program =
        folder.join(format!("{}-{}", format!("{library:?}").to_lowercase(), source.replace('.', "-")));
    let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers");
    let output = Command::new(compiler)
        .args(["-O3", "-march=native", "-o"])
        .arg(&program)
        .arg(drivers.join(source))
        .args(libraries)
        .output()
        .map_err(|e| format!("{compiler}: {e}"))?;
    if output.status.success() {
        return Ok(program);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| line.contains("error")).unwrap_or("no message");
    Err(format!("{compiler} cannot build {source}: {first}"))
}

/// A library that can take part.
pub struct Driver {
    pub library: Library,
    pub program: PathBuf,
}

impl Driver {
    /// The processes of one measurement, whose rows go to `rows`. `scratch` is an empty folder.
    pub fn commands(
        &self,
        work: &Work,
        rccl_arguments: &[String],
        rows: &Path,
        scratch: &Path,
    ) -> Vec<Command> {
        let ranks = work.ranks.to_string();
        let mut command = match self.library {
            Library::Rccl => {
                let mut command = Command::new(&self.program);
                command.args(["perf", &word(&work.collective), "--ranks", &ranks]);
                let (begin, end, factor) =
                    (work.begin.to_string(), work.end.to_string(), work.factor.to_string());
                command.args(["-b", &begin, "-e", &end, "-f", &factor]);
                command.args(["--transport", &word(&work.transport), "--memory", &word(&work.memory)]);
                if work.closing_barrier {
                    command.arg("--closing-barrier");
                }
                command.arg("--json").arg(rows).args(rccl_arguments);
                return vec![command];
            }
            Library::Openmpi => open_mpi(work.ranks, work.transport),
            Library::Mpich => mpich(work.ranks, work.transport),
            Library::Gloo | Library::Limit => Command::new(&self.program),
        };
        if matches!(self.library, Library::Openmpi | Library::Mpich) {
            command.arg(&self.program);
        }
        // Each call of the probe in shared memory ends with a barrier as it is.
        let closed = self.library == Library::Limit && work.transport == Transport::Shm;
        let closes = u64::from(work.closing_barrier && !closed);
        let numbers = [work.begin, work.end, work.factor, closes, work.budget_ms].map(|n| n.to_string());
        command.arg(word(&work.collective)).arg(&ranks).args(numbers);
        command.args([word(&self.library), word(&work.transport)]).arg(rows);
        if self.library != Library::Gloo {
            return vec![command];
        }
        // Gloo has no launcher: its ranks are started here, and meet through files in `scratch`.
        (0..work.ranks)
            .map(|rank| {
                let mut one = Command::new(command.get_program());
                one.args(command.get_args());
                one.env("PEERS_RANK", rank.to_string()).env("PEERS_SIZE", &ranks).env("PEERS_STORE", scratch);
                one
            })
            .collect()
    }
}

/// `mpirun` with the settings that choose the path; one rank a core as long as there are cores.
pub fn open_mpi(ranks: u32, transport: Transport) -> Command {
    let mut command = Command::new("mpirun.openmpi");
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.args(["-np", &ranks.to_string(), "--mca", "pml", "ob1"]);
    match transport {
        Transport::Shm => command.args(["--mca", "btl", "vader,self"]),
        Transport::Tcp => command.args(["--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo"]),
    };
    if std::thread::available_parallelism().map_or(1, usize::from) < ranks as usize {
        command.args(["--oversubscribe", "--bind-to", "core:overload-allowed"]);
    }
    command
}

fn mpich(ranks: u32, transport: Transport) -> Command {
    let mut command = Command::new("mpiexec.hydra");
    command.args(["-np", &ranks.to_string()]);
    if transport == Transport::Tcp {
        // Without the second setting UCX still moves the bytes through shared memory.
        command.env("MPIR_CVAR_NOLOCAL", "1").env("UCX_TLS", "tcp");
    }
    command
}

/// The word for a value on a command line and in a file.
pub fn word<T: ValueEnum>(value: &T) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counted_as_the_drivers_go_through_them() {
        let sizes = |begin, end, factor| {
            let (collective, transport, memory) = (Collective::Gather, Transport::Shm, Memory::Plain);
            Work {
                collective,
                ranks: 2,
                transport,
                memory,
                begin,
                end,
                factor,
                closing_barrier: false,
                budget_ms: 1,
            }
            .sizes()
        };
        assert_eq!([sizes(8, 16 << 20, 8), sizes(8, 8, 2), sizes(16, 8, 2)], [8, 1, 0]);
        assert_eq!([Collective::Gather.smallest(8), Collective::Reduce.smallest(8)], [32, 4]);
    }
}
