//! Which rank is this process, of how many, and where do they meet: asked of whatever started it.
//!
//! [`detect`] tries the launchers in a fixed order and takes the first that has left its marks:
//!
//! | launcher | marks | the ranks meet |
//! |---|---|---|
//! | `rccl` | `RCCL_RANK`, `RCCL_SIZE` | at `RCCL_COMM_ID` |
//! | `torchrun` | `TORCHELASTIC_RUN_ID` | in the agent's TCPStore |
//! | `pmix` | `PMIX_RANK`, `PMIX_NAMESPACE` | in the PMIx server: Open MPI, `srun --mpi=pmix` |
//! | `pmi` | `PMI_FD`, `PMI_RANK`, `PMI_SIZE` | in the process manager: MPICH, `srun --mpi=pmi2` |
//! | `variables` | `RANK`, `WORLD_SIZE` | at `MASTER_ADDR:MASTER_PORT`, which rank 0 binds |
//! | `slurm` | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS` | on the step's first host |
//! | `file` | `RCCL_SIZE`, `RCCL_COMM_ID=file://…` | in that file, ranks in order of arrival |
//! | `none` | | one rank, alone |
//!
//! `RCCL_COMM_ID` overrides the meeting place of all of them. Where the launcher or a file carries 128 bytes from rank
//! 0 to the others, these are a unique id with a random key: an [`Exchange`]. Where only an address is known, the key
//! comes from a file or a variable, or is derived from what the ranks know anyway.

mod file;
mod key;
mod pmi;
mod pmix;
mod slurm;
mod tcp_store;
mod torchrun;
mod variables;
mod vars;

use crate::config::{self, Config, MeetingPlace};
use crate::error::{Error, Result};
pub use key::{Key, KeyOrigin};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use vars::Vars;

/// What a launcher says about this process.
#[derive(Debug)]
pub struct Placement {
    /// This process's rank, less than `size`.
    pub rank: u32,
    /// Ranks of the job.
    pub size: u32,
    /// This process's number on its host, where the launcher says it. For reports: never trusted as locality.
    pub local_rank: Option<u32>,
    /// Who said so.
    pub launcher: Launcher,
    /// How the ranks find one another.
    pub meeting: Meeting,
}

/// The launchers, in the order in which they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launcher {
    /// `RCCL_RANK` and `RCCL_SIZE`, as `rccl run` sets them.
    Rccl,
    /// torchrun, the elastic agent of PyTorch.
    Torchrun,
    /// A PMIx server.
    Pmix,
    /// A process manager that speaks PMI-1.
    Pmi,
    /// `RANK` and `WORLD_SIZE`.
    Variables,
    /// `srun`.
    Slurm,
    /// Nobody counted: ranks in the order in which they reach a file.
    File,
    /// Nobody.
    None,
}

impl Launcher {
    /// The word for logs and reports.
    pub fn word(self) -> &'static str {
        match self {
            Launcher::Rccl => "rccl",
            Launcher::Torchrun => "torchrun",
            Launcher::Pmix => "pmix",
            Launcher::Pmi => "pmi",
            Launcher::Variables => "variables",
            Launcher::Slurm => "slurm",
            Launcher::File => "file",
            Launcher::None => "none",
        }
    }
}

/// How the ranks of a job find one another.
#[derive(Debug)]
pub enum Meeting {
    /// There is one rank.
    Alone,
    /// Rank 0 listens on this address, the others connect to it.
    Address {
        /// Name or address of rank 0's host. A name may not resolve yet: look-ups are repeated until the deadline.
        host: String,
        /// TCP port.
        port: u16,
        /// What the ranks prove to one another.
        key: Key,
    },
    /// Rank 0 publishes a unique id, the others fetch it. Drop the exchange once the job has been joined: that
    /// removes a meeting file.
    Exchange(Box<dyn Exchange>),
}

/// `alone`, `node1:4000`, `PMIx server of prterun-1@1`.
impl fmt::Display for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Meeting::Alone => f.write_str("alone"),
            Meeting::Address { host, port, .. } => {
                MeetingPlace::Address { host: host.clone(), port: *port }.fmt(f)
            }
            Meeting::Exchange(exchange) => f.write_str(&exchange.place()),
        }
    }
}

/// Carries 128 bytes from rank 0 to all others.
///
/// Exactly one of the two methods is called, exactly once, on every rank: some launchers need all ranks to take part.
pub trait Exchange: Send + fmt::Debug {
    /// Rank 0: hands out the bytes. Blocks, at most until the deadline, where the launcher makes ranks wait for each
    /// other.
    ///
    /// # Errors
    /// [`Error::Join`] with what the launcher answered.
    fn publish(&mut self, id: &[u8; 128], deadline: Instant) -> Result<()>;
    /// The others: blocks until rank 0 has published, at most until the deadline.
    ///
    /// # Errors
    /// [`Error::Join`] when the deadline passes or the launcher is gone.
    fn fetch(&mut self, deadline: Instant) -> Result<[u8; 128]>;
    /// Where the bytes pass, for reports.
    fn place(&self) -> String;
}

/// Asks the environment who this process is, and logs the answer.
///
/// Starts a conversation with the launcher where that is the only way to know the size (PMIx), else only reads
/// variables. A program may join several times: every call is a new meeting, and all ranks must make the same calls.
///
/// # Errors
/// [`Error::InvalidSetting`] for a launcher's variable that makes no sense: half of a pair, a rank beyond the size.
/// [`Error::Join`] when the launcher does not answer.
pub fn detect(config: &Config) -> Result<Placement> {
    let placement = detect_in(config, &Vars::from_process())?;
    config::set_rank(placement.rank);
    tracing::info!(
        "rank {} of {}, started by {}, meeting: {}",
        placement.rank,
        placement.size,
        placement.launcher.word(),
        placement.meeting
    );
    Ok(placement)
}

fn detect_in(config: &Config, vars: &Vars) -> Result<Placement> {
    type Detect = fn(&Config, &Vars) -> Result<Option<Placement>>;
    const ORDER: [Detect; 7] = [
        variables::detect_rccl,
        torchrun::detect,
        pmix::detect,
        pmi::detect,
        variables::detect_plain,
        slurm::detect,
        file::detect,
    ];
    for detect in ORDER {
        if let Some(placement) = detect(config, vars)? {
            return Ok(placement);
        }
    }
    Ok(Placement { rank: 0, size: 1, local_rank: Some(0), launcher: Launcher::None, meeting: Meeting::Alone })
}

/// Who this process is, while its launcher's file works out where to meet.
#[derive(Clone, Copy, Debug)]
struct Seat {
    rank: u32,
    size: u32,
    local_rank: Option<u32>,
    launcher: Launcher,
}

impl Seat {
    /// Checks the numbers. `names`: where they stand, for the error.
    fn new(
        launcher: Launcher,
        names: [&str; 2],
        rank: u32,
        size: u32,
        local_rank: Option<u32>,
    ) -> Result<Seat> {
        if rank < size {
            return Ok(Seat { rank, size, local_rank, launcher });
        }
        if size == 0 {
            return Err(Error::InvalidSetting {
                name: names[1].into(),
                value: "0".into(),
                expected: "the number of ranks, at least 1".into(),
            });
        }
        Err(Error::InvalidSetting {
            name: names[0].into(),
            value: rank.to_string(),
            expected: format!("a rank below {}={size}: ranks count from 0", names[1]),
        })
    }

    /// The placement with the meeting place that the settings ask for, if they do, and else with the launcher's own.
    fn meet(
        self,
        config: &Config,
        job: &str,
        own: impl FnOnce(Seat) -> Result<Meeting>,
    ) -> Result<Placement> {
        let job = config.job_id.as_deref().unwrap_or(job);
        let meeting = match &config.comm_id {
            _ if self.size == 1 => Meeting::Alone,
            Some(MeetingPlace::Address { host, port }) => self.address(config, host, *port, job)?,
            Some(MeetingPlace::File(path)) => {
                Meeting::Exchange(Box::new(file::MeetingFile::new(self, path, job)))
            }
            None => own(self)?,
        };
        let Seat { rank, size, local_rank, launcher } = self;
        Ok(Placement { rank, size, local_rank, launcher, meeting })
    }

    fn address(self, config: &Config, host: &str, port: u16, job: &str) -> Result<Meeting> {
        let key = Key::find(config, job, host, port, self.rank)?;
        Ok(Meeting::Address { host: host.into(), port, key })
    }

    fn error(self, meeting: &str, cause: impl fmt::Display, hint: &str) -> Error {
        Error::Join {
            rank: self.rank,
            size: self.size,
            meeting: meeting.into(),
            cause: cause.to_string(),
            hint: hint.into(),
        }
    }
}

/// Numbers the meetings of this process, from 1, so that a second one never reads what the first left.
fn next_meeting() -> u32 {
    static MEETINGS: AtomicU32 = AtomicU32::new(0);
    MEETINGS.fetch_add(1, Ordering::Relaxed) + 1
}

/// The id as text, for launchers that carry nothing else.
fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 128]> {
    let digits = text.as_bytes();
    if digits.len() != 256 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 128];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
