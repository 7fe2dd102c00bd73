//! The ranks of a job try every algorithm.

use super::Options;
use super::rules::{Row, choices, rules};
use crate::perf::{Bench, Case, Line, Options as PerfOptions, show_size};
use rccl::tuner::{Choice, Chunks, Decision, Profile, Rule, Tuned, Tuner};
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
    let (host, on) = job.layout();
    let layout = Layout::of_hosts(host.iter().copied());
    let tuner = Tuner::new(config, &layout, on, &Profile::default())?;
    let (ranks, hosts, path) = (layout.ranks(), layout.hosts(), tuner.path(on.network));
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

/// Communicators by what their calls are run by.
type Tried = Vec<(Choice, Communicator)>;

/// A communicator for each algorithm, and all of them for each size; then the best one of the size in other chunks.
fn one(
    options: &Options,
    config: &Config,
    job: &Communicator,
    tuner: &Tuner,
    collective: Collective,
) -> rccl::Result<Vec<Rule>> {
    let perf = PerfOptions::of(collective.word());
    let mut tried = Tried::new();
    // What the settings leave out is left out here too.
    let permitted = |algorithm: &&Algorithm| tuner.permits(**algorithm, &collective, 0);
    for &algorithm in Algorithm::for_collective(&collective).iter().filter(permitted) {
        try_also(algorithm.into(), &mut tried, config, job, collective)?;
    }
    let chunks_are_set = config.chunk_size.is_some();
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
        let usual = job.decision(&line.call());
        let usual = usual.map(|Decision { algorithm, chunk, .. }| Choice {
            algorithm,
            chunk: chunk.filter(|_| !chunks_are_set),
        });
        let algorithms = tried.iter().map(|(choice, _)| *choice).filter(|choice| choice.chunk.is_none());
        let possible: Vec<_> =
            algorithms.filter(|choice| tuner.permits(choice.algorithm, &collective, bytes)).collect();
        let whole = usual.map(|usual| usual.algorithm.into());
        let measured = |bench: &mut _, choices: &[Choice], tried: &Tried| {
            let possible: Vec<_> = tried.iter().filter(|(choice, _)| choices.contains(choice)).collect();
            times(options, bench, &case, &possible, &[whole, usual])
        };
        let mut row = Row { bytes, usual, times: measured(&mut bench, &possible, &tried)? };
        let mut in_chunks: Vec<Choice> = row.in_chunks(1).filter(|_| !chunks_are_set).collect();
        in_chunks.extend(usual.filter(|usual| usual.chunk.is_some() && !in_chunks.contains(usual)));
        if let (Some(best), false) = (row.best(), in_chunks.is_empty()) {
            for &choice in &in_chunks {
                try_also(choice, &mut tried, config, job, collective)?;
            }
            // Together with the best once more.
            in_chunks.push(best.0);
            row.add(best, measured(&mut bench, &in_chunks, &tried)?);
        }
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

/// Adds the communicator of a choice, if it is not there yet.
fn try_also(
    choice: Choice,
    tried: &mut Tried,
    config: &Config,
    job: &Communicator,
    collective: Collective,
) -> rccl::Result<()> {
    if tried.iter().all(|(known, _)| *known != choice) {
        let mut config = config.clone();
        config.set("RCCL_ALGO", &format!("{}:{}", collective.word(), choice.algorithm))?;
        config.chunk_size.get_or_insert(choice.chunk.map_or(Chunks::Usual, Chunks::Of));
        tried.push((choice, beside(job, config)?));
    }
    Ok(())
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

/// Medians in microseconds, the same on every rank. Those that are far from the best are left out, but `kept` are not.
fn times(
    options: &Options,
    bench: &mut Bench<'_>,
    case: &Case,
    possible: &[&(Choice, Communicator)],
    kept: &[Option<Choice>],
) -> rccl::Result<Vec<(Choice, f64)>> {
    let mut tried = Vec::new();
    // Some calls to warm up, which makes the links, and some to see how long they take.
    for (choice, by) in possible {
        bench.single_calls(case, by, 2)?;
        let times = bench.single_calls(case, by, 3)?;
        let shortest = times.into_iter().fold(f64::INFINITY, f64::min);
        tried.push((*choice, by, shortest, Vec::new()));
    }
    let best = tried.iter().map(|one| one.2).fold(f64::INFINITY, f64::min);
    tried.retain(|one| one.2 <= best * HOPELESS + SHORT || kept.contains(&Some(one.0)));
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
    Ok(tried.into_iter().map(|(choice, _, _, times)| (choice, median(times))).collect())
}

/// A line for people.
fn tell(row: &Row, collective: Collective, size: u64) {
    let mut times = row.times.clone();
    times.sort_by(|one, other| one.1.total_cmp(&other.1));
    let Some((best, least)) = row.best() else { return };
    let of_usual = row.usual.and_then(|usual| row.time(usual));
    let of_usual = of_usual.map_or("-".into(), |time| format!("{:.2}", least / time));
    let all: Vec<String> =
        times.iter().map(|(choice, time)| format!("{} {time:.1}", short(*choice))).collect();
    let usual = row.usual.map_or("-".into(), short);
    eprintln!(
        "  {:>14} {:>8}  {:<22} {usual:<22} {of_usual:>6}  {}",
        collective.word(),
        show_size(size),
        short(best),
        all.join(", ")
    );
}

/// A choice in one word: `ring`, `ring:8K`.
fn short(choice: Choice) -> String {
    match choice.chunk {
        Some(chunk) => format!("{}:{chunk}", choice.algorithm),
        None => choice.algorithm.to_string(),
    }
}
