//! The validator accepts every algorithm at every size, in place and not, under every link model.
//!
//! Values and freedom from races are proven once for all counts and chunkings; progress is run for each of these. Up to
//! 64 ranks everything is combined. Above, and still more so for 1,000 ranks, counts and chunkings are fewer unless
//! `RCCL_SWEEP=full` is set; every algorithm, link model and placement is proven at every size in any case.

use rccl_schedule::{Algorithm, Collective, Layout, Model, Program, Validator, programs};

const SLOTS: Model = Model::Snapshot { slots: 3 };
const BIG: [u32; 7] = [96, 100, 127, 128, 255, 256, 1000];

fn sizes() -> impl Iterator<Item = u32> {
    (1..=64).chain(BIG)
}

fn layout(ranks: u32, host: impl Fn(u32) -> u32) -> Layout {
    Layout { host: (0..ranks).map(host).collect() }
}

fn prove(algorithm: Algorithm, collective: Collective, layout: &Layout, channels: u8) {
    let n = u64::from(layout.ranks());
    let programs = programs(algorithm, &collective, layout, channels);
    let fail = |what: &dyn std::fmt::Debug, violation: &dyn std::fmt::Display| -> ! {
        panic!("{algorithm}, {collective}, {n} ranks, {channels} channels, {what:?}: {violation}")
    };
    let validator = Validator::new(&programs).unwrap_or_else(|violation| fail(&"wiring", &violation));
    let full = std::env::var("RCCL_SWEEP").is_ok_and(|sweep| sweep == "full");

    let mut models = vec![Model::Snapshot { slots: 1 }, SLOTS];
    if !programs[0].snapshot {
        // What the third model, rendezvous, asks for is the same.
        models.push(Model::Shared);
    }
    for &model in models.iter().filter(|&&model| model != SLOTS) {
        // At 1,000 ranks, each placement with one model.
        let placements = [(false, model != Model::Shared), (true, model == Model::Shared)];
        for (in_place, _) in
            placements.into_iter().filter(|&(_, chosen)| chosen || full || n < 1000 || models.len() == 2)
        {
            if let Err(violation) = validator.values(&collective, model, in_place) {
                fail(&(model, in_place), &violation);
            }
        }
    }

    let prime = [n, 2 * n, 257]
        .into_iter()
        .max()
        .map_or(257, |least| (least..).find(|&p| is_prime(p)).unwrap_or(257));
    let (counts, chunks): (Vec<u64>, Vec<u64>) = match n {
        _ if full || n <= 64 => (vec![0, 1, n - 1, n, n + 1, prime], vec![1, 7, 64, u64::MAX]),
        1000 => (vec![n + 1], vec![7]),
        _ => (vec![n - 1, prime], vec![1, 7]),
    };
    // Where every message is a single chunk, progress is the same for all counts and chunkings: once is enough.
    let mut with_single_chunks = false;
    for &count in &counts {
        let longest = longest_extent(&programs, count);
        for &chunk in &chunks {
            if longest <= chunk && std::mem::replace(&mut with_single_chunks, true) {
                continue;
            }
            // More slots than one are tried where there are chunks enough to fill them.
            for &model in
                models.iter().filter(|&&model| full || model != SLOTS || (count == prime && n <= 64))
            {
                if let Err(violation) = validator.progress(count, chunk, model) {
                    fail(&(model, count, chunk), &violation);
                }
            }
        }
    }
}

fn longest_extent(programs: &[Program], count: u64) -> u64 {
    let lengths = programs.iter().flat_map(|program| {
        program.ops.iter().map(|op| {
            let elements = op.extent.bind(count, program.grain(count));
            elements.end - elements.start
        })
    });
    lengths.max().unwrap_or(0)
}

fn is_prime(p: u64) -> bool {
    (2..).take_while(|d| d * d <= p).all(|d| !p.is_multiple_of(d))
}

fn prove_all_reduce(algorithm: Algorithm, channels: u8) {
    for n in sizes() {
        prove(algorithm, Collective::AllReduce, &Layout::one_host(n), channels);
    }
}

#[test]
fn ring() {
    prove_all_reduce(Algorithm::Ring, 1);
}

#[test]
fn ring_across_channels_and_interleaved_hosts() {
    for n in sizes().filter(|&n| n <= 256) {
        prove(Algorithm::Ring, Collective::AllReduce, &layout(n, |r| r % 3.min(n)), 1 + (n % 4) as u8);
    }
}

#[test]
fn tree() {
    prove_all_reduce(Algorithm::Tree, 1);
    prove_all_reduce(Algorithm::Tree, 2);
}

#[test]
fn recursive_doubling() {
    prove_all_reduce(Algorithm::RecursiveDoubling, 1);
}

#[test]
fn halving_doubling() {
    prove_all_reduce(Algorithm::HalvingDoubling, 1);
}

#[test]
fn direct() {
    prove_all_reduce(Algorithm::Direct, 1);
}

#[test]
fn exchange() {
    prove_all_reduce(Algorithm::Exchange, 1);
}

#[test]
fn hierarchical_on_one_host_and_on_as_many_as_ranks() {
    for n in sizes().filter(|&n| n <= 256) {
        prove(Algorithm::Hierarchical, Collective::AllReduce, &Layout::one_host(n), 1);
        prove(Algorithm::Hierarchical, Collective::AllReduce, &layout(n, |r| r), 1);
    }
}

#[test]
fn hierarchical_in_pairs_and_dealt_out() {
    for n in sizes() {
        let pairs = layout(n, |r| r / 2);
        let dealt = layout(n, |r| r % 4.min(n));
        prove(Algorithm::Hierarchical, Collective::AllReduce, if n == 1000 { &dealt } else { &pairs }, 1);
        if n != 1000 {
            prove(Algorithm::Hierarchical, Collective::AllReduce, &dealt, 1);
        }
    }
}

#[test]
fn hierarchical_on_unequal_hosts() {
    for n in sizes() {
        // One rank, two, and five or whatever is left.
        let leaders = layout(n, |r| u32::from(r >= 1) + u32::from(r >= 3));
        prove(Algorithm::Hierarchical, Collective::AllReduce, &leaders, 1);
        // Two, three and the rest, dealt out.
        if n > 6 {
            let dealt = layout(n, |r| {
                if r < 6 {
                    r % 3
                } else if r == 6 {
                    1
                } else {
                    2
                }
            });
            prove(Algorithm::Hierarchical, Collective::AllReduce, &dealt, 1);
        }
    }
}

fn prove_broadcast(algorithm: Algorithm) {
    for n in sizes() {
        let mut roots = vec![0, 1 % n, n / 2, n - 1];
        roots.sort_unstable();
        roots.dedup();
        if n > 128 {
            roots = vec![n / 2];
        }
        for root in roots {
            prove(algorithm, Collective::Broadcast { root }, &Layout::one_host(n), 1 + (n % 2) as u8);
        }
        prove(algorithm, Collective::Broadcast { root: n - 1 }, &layout(n, |r| r % 3.min(n)), 2);
    }
}

#[test]
fn chain() {
    prove_broadcast(Algorithm::Chain);
}

#[test]
fn binomial() {
    prove_broadcast(Algorithm::Binomial);
}

#[test]
fn pipelined_tree() {
    prove_broadcast(Algorithm::PipelinedTree);
}

#[test]
fn scatter_allgather() {
    prove_broadcast(Algorithm::ScatterAllGather);
}
