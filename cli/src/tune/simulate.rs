//! Layouts on a modelled cluster.

use super::Options;
use super::rules::{Row, choices, rules};
use rccl::tuner::{Choice, Path, Rule, Tuned};
use rccl_schedule::simulate::{Call, Cluster, simulate};
use rccl_schedule::{Algorithm, Collective};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Ranks from which on no algorithm is tried in which a rank meets all others: so many links take memory and time to make
/// that are not simulated. all_to_all cannot do without.
const MANY: u32 = 64;

/// So many of the best algorithms are tried in chunks of other sizes.
const CUT: usize = 2;

/// The layouts that are asked for, in their order; by as many threads as there are processors.
pub fn layouts(options: &Options, cluster: &Cluster) -> Vec<Tuned> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let collectives = options.collectives();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(hosts, each)) = options.layouts.get(index) else { break };
            let cluster = Cluster { ranks_per_host: each, ..cluster.clone() };
            let rules = collectives.iter().flat_map(|&of| collective(options, &cluster, of, hosts * each));
            let path = if hosts > 1 { options.path } else { Path::Shm };
            let tuned = Tuned { ranks: hosts * each, hosts, path, rules: rules.collect() };
            found.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((index, tuned));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, tuned)| tuned).collect()
}

fn collective(options: &Options, cluster: &Cluster, collective: Collective, ranks: u32) -> Vec<Rule> {
    // A profile's sizes are those of blocks, where there are some; the simulator's are nccl-tests'.
    let blocks = if collective.blocks(ranks) > 1 { u64::from(ranks) } else { 1 };
    let mut rows: Vec<Row> = options
        .sizes()
        .map(|size| {
            let bytes = (size / blocks).max(4);
            let time = |choice: Choice| {
                let call = Call {
                    algorithm: choice.algorithm,
                    collective,
                    ranks,
                    bytes: bytes * blocks,
                    element: 4,
                };
                let chunk = choice.chunk.map_or(cluster.chunk, |chunk| chunk.bytes());
                Some((choice, simulate(&call, &Cluster { chunk, ..cluster.clone() }).ok()?.time as f64))
            };
            // An exchange needs messages that every link of a job sends eagerly.
            let eager = cluster.local.eager.min(cluster.network.eager);
            let known = Algorithm::for_collective(&collective).iter();
            let tried = known
                .filter(|algorithm| **algorithm != Algorithm::Exchange || bytes <= eager)
                .filter(|algorithm| ranks < MANY || meets_few(**algorithm, &collective));
            // In which nobody waits for another to pass things on.
            let usual = Some(Algorithm::Direct.into());
            let tried = tried.map(|&algorithm| Choice::from(algorithm));
            let mut row = Row { bytes, usual, times: tried.filter_map(time).collect() };
            let in_chunks: Vec<_> = row.in_chunks(CUT).filter_map(time).collect();
            row.times.extend(in_chunks);
            row
        })
        .collect();
    rows.retain(|row| !row.times.is_empty());
    // Small sizes are all one element of a block.
    rows.dedup_by_key(|row| row.bytes);
    let chosen = choices(&rows);
    rules(collective, &rows, &chosen)
}

fn meets_few(algorithm: Algorithm, collective: &Collective) -> bool {
    let all = [Algorithm::Direct, Algorithm::Exchange, Algorithm::ReduceGather, Algorithm::ScatterAllGather];
    *collective == Collective::AllToAll || !all.contains(&algorithm)
}
