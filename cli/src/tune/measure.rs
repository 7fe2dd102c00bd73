//! The ranks of a job try every algorithm.

use super::Options;
use super::rules::{Row, choices, rules};
use crate::perf::{Bench, Case, Line, Options as PerfOptions, show_size};
use rccl::tuner::{Profile, Rule, Tuned, Tuner};
use rccl::{Communicator, Config, DataType, ReduceOp, UniqueId};
use rccl_schedule::{Algorithm, Collective, Layout};

/// An algorithm that takes so many times as long as the best is not measured further for a size.
const HOPELESS: f64 = 2.0;
/// Nor one that takes so many microseconds longer: less may be a single switch of processes.
const SHORT: f64 = 20.0;
/// The algorithms take turns so often, so that what disturbs the machine for a while disturbs all of them.
const TURNS: usize = 5;

/// Why nothing was measured.
pub enum Error {
    /// What was asked for cannot be done; every rank finds out.
    Usage {
        /// This process's.
        rank: u32,
        /// A sentence for the user.
        message: String,
    },
    /// A call failed; `rank` is unknown before the job was joined.
    Call {
        /// This process's.
        rank: Option<u32>,
        /// Why.
        error: rccl::Error,
    },
}

impl From<rccl::Error> for Error {
    fn from(error: rccl::Error) -> Error {
        Error::Call { rank: None, error }
    }
}

/// Joins the launcher's job and measures; what is best is rank 0's to write.
pub fn run(options: &Options) -> Result<Option<Tuned>, Error> {
    let mut config = Config::from_env()?;
    if !options.check {
        // It is compared with what would be taken without a profile.
        config.tune_file = None;
    }
    let job = Communicator::builder()?.config(config.clone()).label("tune").from_env()?;
    let rank = job.rank();
    if job.size() == 1 {
        let message = "one rank alone has nothing to choose: give --ranks, or start it by a launcher";
        return Err(Error::Usage { rank, message: message.into() });
    }
    let told = |error| Error::Call { rank: Some(rank), error };
    let tuned = all(options, &config, &job).inspect_err(|error| {
        if error.failure().is_none() {
            job.abort(&error.to_string());
        }
    });
    let tuned = tuned.map_err(told)?;
    job.finish().map_err(told)?;
    Ok((rank == 0).then_some(tuned))
}

fn all(options: &Options, config: &Config, job: &Communicator) -> rccl::Result<Tuned> {
    let (host, network) = job.layout();
    let layout = Layout::of_hosts(host.iter().copied());
    let tuner = Tuner::new(config, &layout, network, &Profile::default())?;
    let (ranks, hosts, path) = (layout.ranks(), layout.hosts(), tuner.path(network));
    if job.rank() == 0 {
        eprintln!("# {ranks} ranks on {hosts} host{}, {path}", if hosts == 1 { "" } else { "s" });
        eprintln!(
            "# {:>14} {:>8}  {:<22} {:<22} {:>6}  medians of all, us",
            "collective", "size", "best", "chosen now", "ratio"
        );
    }
    let mut found = Vec::new();
    for collective in options.collectives() {
        found.extend(one(options, config, job, &tuner, collective)?);
    }
    Ok(Tuned { ranks, hosts, path, rules: found })
}

/// A communicator for each algorithm, and all of them for each size.
fn one(
    options: &Options,
    config: &Config,
    job: &Communicator,
    tuner: &Tuner,
    collective: Collective,
) -> rccl::Result<Vec<Rule>> {
    let perf = PerfOptions::of(collective.word());
    let mut tried = Vec::new();
    // What the settings leave out is left out here too.
    let permitted = |algorithm: &&Algorithm| tuner.permits(**algorithm, &collective, 0);
    for &algorithm in Algorithm::for_collective(&collective).iter().filter(permitted) {
        let mut config = config.clone();
        config.set("RCCL_ALGO", &format!("{}:{algorithm}", collective.word()))?;
        tried.push((algorithm, beside(job, config)?));
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut bench = Bench::new(job, &perf, options.end)?;
    for size in options.sizes() {
        let reduces = collective.reduces().then_some(ReduceOp::Sum);
        let root = collective.root();
        let line = Line::new(perf.collective, DataType::F32, reduces, root, job.size(), size);
        let bytes = line.call().bytes();
        // Below an element for each block nothing is moved, and sizes that are alike after rounding are one.
        if bytes == 0 || rows.last().is_some_and(|row| row.bytes == bytes) {
            continue;
        }
        // As callers have it: MPI's broadcast, and the methods of a communicator, know no other.
        let in_place = matches!(collective, Collective::Broadcast { .. });
        let case = Case { line, in_place };
        let usual = job.decision(&line.call()).map(|decision| decision.algorithm);
        let possible: Vec<_> =
            tried.iter().filter(|(algorithm, _)| tuner.permits(*algorithm, &collective, bytes)).collect();
        let row = Row { bytes, usual, times: times(options, &mut bench, &case, &possible, usual)? };
        if job.rank() == 0 {
            tell(&row, collective, size);
        }
        rows.push(row);
    }
    for (_, communicator) in tried {
        communicator.finish()?;
    }
    let chosen = choices(&rows);
    Ok(rules(collective, &rows, &chosen))
}

/// Another communicator of the same ranks, with settings of its own.
fn beside(job: &Communicator, config: Config) -> rccl::Result<Communicator> {
    let mut id = [0; UniqueId::BYTES];
    // Rank 0 says whether it could: the others wait for its word.
    let made = if job.rank() == 0 { Some(UniqueId::create(&config)) } else { None };
    if let Some(Ok(made)) = &made {
        id = made.to_bytes();
    }
    job.broadcast(&mut id, 0)?;
    if let Some(Err(error)) = made {
        return Err(error);
    }
    Communicator::builder()?.config(config).label("tried").connect(
        &UniqueId::from_bytes(id)?,
        job.rank(),
        job.size(),
    )
}

/// Medians in microseconds, the same on every rank. Those that are far from the best are left out, but `usual` is not.
fn times(
    options: &Options,
    bench: &mut Bench<'_>,
    case: &Case,
    possible: &[&(Algorithm, Communicator)],
    usual: Option<Algorithm>,
) -> rccl::Result<Vec<(Algorithm, f64)>> {
    let mut tried = Vec::new();
    // Some calls to warm up, which makes the links, and some to see how long they take.
    for (algorithm, by) in possible {
        bench.single_calls(case, by, 2)?;
        let times = bench.single_calls(case, by, 3)?;
        let shortest = times.into_iter().fold(f64::INFINITY, f64::min);
        tried.push((*algorithm, by, shortest, Vec::new()));
    }
    let best = tried.iter().map(|one| one.2).fold(f64::INFINITY, f64::min);
    tried.retain(|one| one.2 <= best * HOPELESS + SHORT || Some(one.0) == usual);
    for _ in 0..TURNS {
        for (_, by, shortest, times) in &mut tried {
            let calls = options.budget * 1e6 / TURNS as f64 / shortest.max(0.1);
            times.extend(bench.single_calls(case, by, (calls as usize).clamp(1, 200))?);
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    Ok(tried.into_iter().map(|(algorithm, _, _, times)| (algorithm, median(times))).collect())
}

/// A line for people.
fn tell(row: &Row, collective: Collective, size: u64) {
    let mut times = row.times.clone();
    times.sort_by(|one, other| one.1.total_cmp(&other.1));
    let Some(&(best, least)) = times.first() else { return };
    let of_usual = row.usual.and_then(|usual| row.time(usual));
    let of_usual = of_usual.map_or("-".into(), |time| format!("{:.2}", least / time));
    let all: Vec<String> = times.iter().map(|(algorithm, time)| format!("{algorithm} {time:.1}")).collect();
    let usual = row.usual.map_or("-", |usual| usual.word());
    eprintln!(
        "  {:>14} {:>8}  {:<22} {usual:<22} {of_usual:>6}  {}",
        collective.word(),
        show_size(size),
        best.word(),
        all.join(", ")
    );
}
