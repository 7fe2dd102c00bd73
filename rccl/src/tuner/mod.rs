//! Which algorithm a call takes, and in how long chunks, when the user does not say.
//!
//! ```text
//! profile      what was measured or simulated for a layout: rows of algorithms, files of them
//! classes      the profiles of kinds of machines, made with the simulator
//! thresholds   rules for one host, measured; and for what no profile knows
//! ```
//!
//! The first of these that knows the layout decides:
//!
//! 1. the profile that `RCCL_TUNE_FILE` names on rank 0, if it has exactly this layout: `rccl tune` has measured it;
//! 2. between hosts, the class of the machine, by what joins the hosts: the nearest layout that was simulated;
//! 3. thresholds.
//!
//! The classes' ranks have processors of their own. Where more ranks than processors share a host, thresholds for that go
//! before them.
//!
//! `RCCL_ALGO` and `RCCL_REPRODUCIBLE=fixed` restrict what may be chosen, and an algorithm that cannot run a call is passed
//! over. Nothing is measured or simulated when a job starts. The choice depends only on what is the same on every rank:
//! rank 0's profile travels to all others when they join.

pub(crate) mod classes;
mod cluster_file;
pub(crate) mod profile;
pub(crate) mod thresholds;

pub use crate::config::{ChunkSize, Chunks};
pub use classes::Class;
pub use cluster_file::ClusterFile;
pub use profile::{Choice, Path, Profile, Rule, Tuned, place};

use crate::bootstrap::processors::Processors;
use crate::call::{self, Call};
use crate::config::{Config, Reproducible};
use crate::control::link_limits;
use crate::error::{Error, Result};
use crate::rdma;
use rccl_schedule::{Algorithm, Collective, Layout};
use rccl_transport::memory::RegionTable;
use serde::{Deserialize, Serialize};
use std::fmt;
use thresholds::Situation;

/// What choices go by besides who is where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// What joins them.
    pub network: Path,
    /// One of them has more ranks than processors for them.
    pub crowded: bool,
}

/// What the ranks of a job know in common, besides who is where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tuning {
    pub hosts: Hosts,
    /// Rank 0's.
    pub profile: Profile,
}

/// Reads what the settings say of choices, for a job of so many ranks: the profile that they name, and the size of chunks.
///
/// # Errors
/// [`Error::InvalidSetting`] when the file cannot be read, with line and column, or knows too many layouts.
pub fn load(config: &Config, ranks: u32) -> Result<Profile> {
    let chunks = config.chunk_size;
    let Some(path) = &config.tune_file else { return Ok(Profile { chunks, ..Profile::default() }) };
    let refused = |what: String| Error::InvalidSetting {
        name: "RCCL_TUNE_FILE".into(),
        value: path.display().to_string(),
        expected: format!("a profile: {what}"),
    };
    let text = std::fs::read_to_string(path).map_err(|error| refused(format!("cannot be read: {error}")))?;
    let mut profile = Profile::parse(&text).map_err(|flaw| refused(format!("{}:{flaw}", path.display())))?;
    profile.layouts.retain(|tuned| tuned.ranks <= ranks);
    profile.chunks = chunks;
    match profile.layouts.len() {
        ..=Profile::MOST_LAYOUTS => Ok(profile),
        many => Err(refused(format!(
            "{many} layouts of at most {ranks} ranks are more than {}",
            Profile::MOST_LAYOUTS
        ))),
    }
}

/// Hosts that are like this one and have these settings, with so many ranks on each: joined by RDMA if it can be used here.
/// Opens the devices, which takes some milliseconds each.
pub fn hosts_like_this(config: &Config, each: u32) -> Hosts {
    let regions = RegionTable::new();
    let network = if rdma::open(config, &regions).is_ok() { Path::Verbs } else { Path::Tcp };
    let processors = Processors::here(config.ignore_cpu_affinity);
    Hosts { network, crowded: each > Processors::together(std::iter::once(&processors)) }
}

/// What chooses algorithms for the ranks of one communicator.
pub struct Tuner {
    situation: Situation,
    /// What a profile, or the class, says of this layout.
    profile: Option<Tuned>,
    class: Option<(Class, Tuned)>,
    crowded: bool,
    /// The algorithms that the user allows, by collective.
    allowed: Vec<(Collective, Vec<Algorithm>)>,
    /// The size of chunks that the user wants.
    chunks: Option<Chunks>,
}

/// What was chosen, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The size of chunks: `RCCL_CHUNK_SIZE`, or what goes with the algorithm; `None`: as long as the engine has them.
    pub chunk: Option<ChunkSize>,
    /// What decided on the algorithm.
    pub by: By,
}

impl Decision {
    fn new(choice: Choice, by: By) -> Decision {
        Decision { algorithm: choice.algorithm, chunk: choice.chunk, by }
    }
}

/// What decided on an algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum By {
    /// The profile of `RCCL_TUNE_FILE` has this layout.
    Profile,
    /// The simulated layout of the class that is nearest to this one.
    Class {
        /// Which.
        class: Class,
        /// Ranks of the layout that was simulated.
        ranks: u32,
        /// Its hosts.
        hosts: u32,
    },
    /// A rule of `thresholds`.
    Thresholds,
    /// A rule of `thresholds` for hosts with more ranks than processors, which classes do not know.
    Crowded,
    /// `RCCL_ALGO` or `RCCL_REPRODUCIBLE` leave out what would have been chosen.
    Settings {
        /// What would have been.
        instead_of: Algorithm,
    },
    /// No rank knows the sizes of all blocks, and this needs none.
    OwnBlocks,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Profile => f.write_str("profile of this layout (RCCL_TUNE_FILE)"),
            By::Class { class, ranks, hosts } => {
                write!(f, "class {class}, simulated with {ranks} ranks on {hosts} hosts")
            }
            By::Thresholds => f.write_str("measured thresholds"),
            By::Crowded => f.write_str("measured thresholds of hosts with more ranks than processors"),
            By::Settings { instead_of } => {
                write!(f, "RCCL_ALGO or RCCL_REPRODUCIBLE, which leave out {instead_of}")
            }
            By::OwnBlocks => f.write_str("needs to know no other rank's block"),
        }
    }
}

impl Tuner {
    /// For the ranks of `layout` on such hosts, with these settings and this profile.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] when `RCCL_ALGO` leaves no algorithm for a collective.
    pub fn new(config: &Config, layout: &Layout, on: Hosts, profile: &Profile) -> Result<Tuner> {
        let (shared, unasked) = link_limits(config);
        let fixed = config.reproducible == Reproducible::Fixed;
        let situation = Situation::new(layout, shared, unasked, fixed);
        let path = if situation.shared { Path::Shm } else { on.network };
        let (ranks, hosts) = (layout.ranks(), layout.hosts());
        // Classes were simulated with shared memory in the hosts.
        let class = (hosts > 1 && shared).then(|| Class::of(path)).flatten();
        let class = class.and_then(|class| Some((class, class.profile().nearest(ranks, hosts)?.clone())));
        let allowed = Collective::ALL.into_iter();
        let allowed = allowed.map(|collective| Ok((collective, allowed_by(config, &collective)?)));
        Ok(Tuner {
            situation,
            profile: profile.find(ranks, hosts, path).cloned(),
            class,
            crowded: on.crowded,
            allowed: allowed.collect::<Result<_>>()?,
            chunks: profile.chunks,
        })
    }

    /// The algorithm for a call of `bytes` bytes: of a block where a rank has one for each rank, else of its data.
    ///
    /// # Panics
    /// If the collective has a root that is no rank.
    pub fn decide(&self, collective: &Collective, bytes: u64) -> Decision {
        self.decide_among(collective, bytes, |_| true)
    }

    /// As [`Tuner::decide`]; of a call whose blocks no rank knows all of, only algorithms that need not.
    pub(crate) fn decide_call(&self, call: &Call, collective: &Collective) -> Decision {
        let bytes = bytes_of(call, self.situation.ranks);
        let knows =
            |algorithm: Algorithm| !call.collective.varies() || algorithm.touches_own_blocks_only(collective);
        self.decide_among(collective, bytes, knows)
    }

    fn decide_among(
        &self,
        collective: &Collective,
        bytes: u64,
        knows: impl Fn(Algorithm) -> bool,
    ) -> Decision {
        let decision = self.unless_in_chunks(collective, bytes, knows);
        let chunk = match self.chunks {
            None => decision.chunk,
            Some(Chunks::Usual) => None,
            Some(Chunks::Of(size)) => Some(size),
        };
        Decision { chunk, ..decision }
    }

    /// Without the user's size of chunks.
    fn unless_in_chunks(
        &self,
        collective: &Collective,
        bytes: u64,
        knows: impl Fn(Algorithm) -> bool,
    ) -> Decision {
        let usual = self.usual(collective, bytes);
        let allowed = self.allowed.iter().find(|(of, _)| *of == collective.with_root(0));
        let allowed = allowed.map_or(&[][..], |(_, allowed)| allowed);
        let possible = |algorithm: Algorithm| knows(algorithm) && self.situation.allows(algorithm, bytes);
        let mut candidates = usual.iter().flatten().filter(|decision| possible(decision.algorithm));
        let first = candidates.next();
        let within = first.into_iter().chain(candidates).find(|it| allowed.contains(&it.algorithm));
        if let Some(decision) = within {
            return decision.clone();
        }
        let other = allowed.iter().copied().find(|&algorithm| possible(algorithm));
        match (other, first) {
            (Some(algorithm), Some(first)) => {
                Decision::new(algorithm.into(), By::Settings { instead_of: first.algorithm })
            }
            (Some(algorithm), None) => Decision::new(algorithm.into(), By::OwnBlocks),
            (None, Some(first)) => first.clone(),
            (None, None) => Decision::new(Algorithm::Direct.into(), By::OwnBlocks),
        }
    }

    /// What would be taken if everything were allowed and possible, best first. Nothing is allocated: calls that take turns
    /// ask each time.
    fn usual(&self, collective: &Collective, bytes: u64) -> [Option<Decision>; 4] {
        let measured = self.profile.as_ref().and_then(|tuned| tuned.choose(collective, bytes));
        // Blocks of hosts whose ranks do not follow one another are many pieces, which was not simulated.
        let apart = *collective == Collective::AllToAll && !self.situation.in_order;
        let unfit = apart || self.situation.fixed && collective.reduces();
        let simulated = self.class.as_ref().filter(|_| !unfit).and_then(|(class, tuned)| {
            let by = By::Class { class: *class, ranks: tuned.ranks, hosts: tuned.hosts };
            Some(Decision::new(tuned.choose(collective, bytes)?, by))
        });
        let crowded = if self.crowded { self.situation.choose_crowded(collective, bytes) } else { None };
        let algorithm = self.situation.choose(collective, bytes);
        [
            measured.map(|choice| Decision::new(choice, By::Profile)),
            crowded.map(|algorithm| Decision::new(algorithm.into(), By::Crowded)),
            simulated,
            Some(Decision::new(algorithm.into(), By::Thresholds)),
        ]
    }

    pub(crate) fn situation(&self) -> &Situation {
        &self.situation
    }

    /// Whether `algorithm` can run a call of `bytes` bytes, as [`Tuner::decide`] counts them, and the settings allow it.
    pub fn permits(&self, algorithm: Algorithm, collective: &Collective, bytes: u64) -> bool {
        let of = self.allowed.iter().find(|(of, _)| *of == collective.with_root(0));
        of.is_some_and(|(_, allowed)| allowed.contains(&algorithm)) && self.situation.allows(algorithm, bytes)
    }

    /// What joins the ranks, as a profile of this layout would say it.
    pub fn path(&self, network: Path) -> Path {
        if self.situation.shared { Path::Shm } else { network }
    }
}

/// The bytes of a call that the choice goes by: those of a block, on average where blocks differ; 0 where no rank knows
/// that.
pub(crate) fn bytes_of(call: &Call, ranks: u32) -> u64 {
    use call::Collective::{AllGatherV, ReduceScatterV};
    match call.collective {
        collective if collective.varies() => 0,
        AllGatherV | ReduceScatterV => call.bytes() / u64::from(ranks),
        _ => call.bytes(),
    }
}

/// The algorithms of `collective` that the user allows.
///
/// # Errors
/// [`Error::InvalidSetting`] when `RCCL_ALGO` leaves none.
fn allowed_by(config: &Config, collective: &Collective) -> Result<Vec<Algorithm>> {
    let candidates = Algorithm::for_collective(collective);
    let words: Vec<&str> = candidates.iter().map(Algorithm::word).collect();
    let left = config.algo.restrict(collective.word(), &words)?;
    let left = candidates.iter().copied().filter(|algorithm| left.contains(&algorithm.word()));
    if config.reproducible == Reproducible::Ranks || !collective.reduces() {
        return Ok(left.collect());
    }
    let fixed: Vec<Algorithm> = left.filter(Algorithm::reduces_in_one_pass).collect();
    if fixed.is_empty() {
        let known = candidates.iter().filter(|algorithm| algorithm.reduces_in_one_pass());
        let known: Vec<&str> = known.map(Algorithm::word).collect();
        return Err(Error::InvalidSetting {
            name: "RCCL_ALGO".into(),
            value: config.algo.to_string(),
            expected: format!(
                "with RCCL_REPRODUCIBLE=fixed, an algorithm that does {} in order of rank: {}",
                collective.word(),
                known.join(", ")
            ),
        });
    }
    Ok(fixed)
}
