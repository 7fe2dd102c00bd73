//! The validator accepts every algorithm of every collective at every size, in place and not, under every link model.
//!
//! Values and freedom from races are proven once for all counts and chunkings; progress is run for each of these. Up to
//! 64 ranks everything is combined. Above, and still more so for 1,000 ranks, counts and chunkings are fewer unless
//! `RCCL_SWEEP=full` is set; every algorithm, link model and placement is proven at every size in any case, but for
//! all_to_all among 1,000 ranks, with its million blocks, which is left to the full sweep. `RCCL_SWEEP=96,1000` is the full
//! sweep of these sizes and no others.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rccl_schedule::{Algorithm, Collective, Layout, Model, Program, Validator, programs};

const SLOTS: Model = Model::Snapshot { slots: 3 };
const BIG: [u32; 7] = [96, 100, 127, 128, 255, 256, 1000];

fn full() -> bool {
    std::env::var_os("RCCL_SWEEP").is_some()
}

/// The numbers of ranks.
fn sizes() -> impl Iterator<Item = u32> {
    match std::env::var("RCCL_SWEEP") {
        Ok(sweep) if sweep != "full" => {
            let number = |n: &str| n.parse().unwrap_or_else(|_| panic!("RCCL_SWEEP is {sweep:?}"));
            sweep.split(',').map(number).collect()
        }
        _ => (1..=64).chain(BIG).collect::<Vec<u32>>(),
    }
    .into_iter()
}

/// Those that a collective is proven for by default.
fn counts_for(collective: Collective) -> impl Iterator<Item = u32> {
    sizes().filter(move |&n| n <= 256 || collective != Collective::AllToAll || full())
}

fn layout(ranks: u32, host: impl Fn(u32) -> u32) -> Layout {
    Layout::of_hosts((0..ranks).map(host))
}

fn prove(algorithm: Algorithm, collective: Collective, layout: &Layout, channels: u8) {
    let n = u64::from(layout.ranks());
    let programs = programs(algorithm, &collective, layout, channels);
    let fail = |what: &dyn std::fmt::Debug, violation: &dyn std::fmt::Display| -> ! {
        panic!("{algorithm}, {collective}, {n} ranks, {channels} channels, {what:?}: {violation}")
    };
    let validator = Validator::new(&programs).unwrap_or_else(|violation| fail(&"wiring", &violation));
    let full = full();

    let mut models = vec![Model::Snapshot { slots: 1 }, SLOTS];
    if !programs[0].snapshot {
        // What the third model, rendezvous, asks for is the same.
        models.push(Model::Shared);
    }
    for &model in models.iter().filter(|&&model| model != SLOTS) {
        for in_place in [false, true] {
            // At 1,000 ranks, each placement with one model.
            let chosen = in_place == (model == Model::Shared) || models.len() == 2;
            if in_place && !collective.has_in_place_form() || n == 1000 && !chosen && !full {
                continue;
            }
            if let Err(violation) = validator.values(&collective, model, in_place) {
                fail(&(model, in_place), &violation);
            }
        }
    }

    let calls = calls(&collective, &programs[0]);
    // Where every message is a single chunk, progress is the same for all sizes and chunkings: once is enough.
    let mut with_single_chunks = false;
    for (sizes, chunks) in &calls {
        let longest = longest_extent(&programs, sizes);
        for &chunk in chunks {
            if longest <= chunk && std::mem::replace(&mut with_single_chunks, true) {
                continue;
            }
            // More slots than one are tried where there are chunks enough to fill them.
            let enough = longest / chunk > 8 && n <= 64;
            for &model in models.iter().filter(|&&model| full || model != SLOTS || enough) {
                if let Err(violation) = validator.progress(&sizes[..], chunk, model) {
                    fail(&(model, chunk, sizes), &violation);
                }
            }
        }
    }
}

/// Sizes of blocks, and chunkings of each, for which progress is shown.
fn calls(collective: &Collective, program: &Program) -> Vec<(Vec<u64>, Vec<u64>)> {
    let (n, blocks) = (u64::from(program.ranks), program.blocks as usize);
    let alike = |size: u64| vec![size; blocks];
    let everything = full() || n <= 64;
    if blocks == 1 {
        let least = n.max(128) * 2;
        let prime = (least..).find(|&p| is_prime(p)).unwrap_or(least);
        let (counts, chunks) = match n {
            _ if everything => {
                // Chunks of one element among 1,000 ranks would take as long as all the rest.
                let chunks = if n < 1000 { vec![1, 7, 64, u64::MAX] } else { vec![7, 64, u64::MAX] };
                (vec![0, 1, n - 1, n, n + 1, prime], chunks)
            }
            1000 => (vec![n + 1], vec![7]),
            _ => (vec![n - 1, prime], vec![1, 7]),
        };
        return counts.into_iter().map(|count| (alike(count), chunks.clone())).collect();
    }
    // Here the calls are cut into pieces by their blocks already.
    let mut rng = StdRng::seed_from_u64(n);
    let uneven = (0..blocks).map(|_| rng.random_range(0..4) * rng.random_range(0..4)).collect();
    match collective {
        _ if everything && blocks < 100_000 => vec![(alike(11), vec![1, 4, 11]), (uneven, vec![1, 4])],
        _ if n == 1000 || *collective == Collective::AllToAll => vec![(uneven, vec![5])],
        _ => vec![(alike(11), vec![4]), (uneven, vec![5])],
    }
}

fn longest_extent(programs: &[Program], sizes: &[u64]) -> u64 {
    let lengths =
        programs.iter().flat_map(|program| program.ops.iter().map(|op| program.len_of(&op.extent, sizes)));
    lengths.max().unwrap_or(0)
}

fn is_prime(p: u64) -> bool {
    (2..).take_while(|d| d * d <= p).all(|d| !p.is_multiple_of(d))
}

fn interleaved(n: u32) -> Layout {
    layout(n, |r| r % 3.min(n))
}

/// The same hosts, whose ranks come in a random order.
fn shuffled(layout: Layout, rng: &mut StdRng) -> Layout {
    let mut places: Vec<u32> = (0..layout.ranks()).collect();
    places.shuffle(rng);
    layout.in_order(places)
}

fn prove_on_one_host(algorithm: Algorithm, collective: Collective) {
    for n in counts_for(collective) {
        prove(algorithm, collective, &Layout::one_host(n), 1);
    }
}

#[test]
fn all_reduce_ring() {
    prove_on_one_host(Algorithm::Ring, Collective::AllReduce);
}

#[test]
fn all_reduce_ring_across_channels_and_interleaved_hosts() {
    for n in sizes().filter(|&n| n <= 256) {
        prove(Algorithm::Ring, Collective::AllReduce, &interleaved(n), 1 + (n % 4) as u8);
    }
}

#[test]
fn all_reduce_tree() {
    for n in sizes() {
        prove(Algorithm::Tree, Collective::AllReduce, &Layout::one_host(n), 1);
        prove(Algorithm::Tree, Collective::AllReduce, &Layout::one_host(n), 2);
    }
}

#[test]
fn all_reduce_doubling() {
    prove_on_one_host(Algorithm::RecursiveDoubling, Collective::AllReduce);
}

#[test]
fn all_reduce_halving() {
    prove_on_one_host(Algorithm::HalvingDoubling, Collective::AllReduce);
}

#[test]
fn all_reduce_direct() {
    prove_on_one_host(Algorithm::Direct, Collective::AllReduce);
}

#[test]
fn all_reduce_exchange() {
    prove_on_one_host(Algorithm::Exchange, Collective::AllReduce);
}

/// Proves a hierarchical algorithm on hosts of many shapes, above 256 ranks on four hosts only.
fn prove_hierarchical(algorithm: Algorithm, collective: Collective) {
    let prove = |layout: &Layout| prove(algorithm, collective, layout, 1);
    for n in counts_for(collective) {
        prove(&layout(n, |r| r % 4.min(n)));
        if n > 256 {
            continue;
        }
        prove(&layout(n, |r| r / 2));
        // What is left of them then is other algorithms.
        if n <= 32 || full() {
            prove(&Layout::one_host(n));
            prove(&layout(n, |r| r));
        }
        // One rank, two, and the rest.
        prove(&layout(n, |r| u32::from(r >= 1) + u32::from(r >= 3)));
        // Two, three and the rest, dealt out.
        if n > 6 && (n <= 64 || full()) {
            prove(&layout(n, |r| if r < 6 { r % 3 } else { 2 - u32::from(r == 6) }));
        }
    }
}

#[test]
fn all_reduce_hierarchical() {
    prove_hierarchical(Algorithm::Hierarchical, Collective::AllReduce);
}

#[test]
fn all_reduce_hierarchical_halving() {
    prove_hierarchical(Algorithm::HierarchicalHalving, Collective::AllReduce);
}

#[test]
fn reduce_scatter_hierarchical() {
    prove_hierarchical(Algorithm::Hierarchical, Collective::ReduceScatter);
}

#[test]
fn all_gather_hierarchical() {
    prove_hierarchical(Algorithm::Hierarchical, Collective::AllGather);
}

#[test]
fn all_to_all_hierarchical() {
    prove_hierarchical(Algorithm::Hierarchical, Collective::AllToAll);
}

/// All algorithms that pass the ranks in an order, in any order of those of a host.
#[test]
fn any_order_within_hosts() {
    use Algorithm::{Binomial, Chain, PipelinedTree, Ring, Tree};
    let rng = &mut StdRng::seed_from_u64(1);
    for n in sizes().filter(|&n| n <= 33 || n == 64 || full() && n <= 256) {
        for collective in Collective::ALL {
            let collective = collective.with_root(rng.random_range(0..n));
            let ordered =
                |algorithm: &&Algorithm| matches!(algorithm, Ring | Tree | Binomial | Chain | PipelinedTree);
            for &algorithm in Algorithm::for_collective(&collective).iter().filter(ordered) {
                let channels = 1 + (n % 2) as u8;
                prove(algorithm, collective, &shuffled(Layout::one_host(n), rng), channels);
                prove(algorithm, collective, &shuffled(interleaved(n), rng), channels);
            }
        }
    }
}

/// All algorithms of a collective with a root, for all roots where ranks are few.
fn prove_rooted(collective: Collective) {
    for n in sizes() {
        let mut roots = match n {
            _ if n <= 8 => (0..n).collect(),
            _ if n <= 64 => vec![0, 1, n / 2, n - 1],
            _ => vec![n / 2],
        };
        roots.dedup();
        for &algorithm in Algorithm::for_collective(&collective) {
            for &root in &roots {
                prove(algorithm, collective.with_root(root), &Layout::one_host(n), 1 + (n % 2) as u8);
            }
            if n <= 256 {
                prove(algorithm, collective.with_root(n - 1), &interleaved(n), 2);
            }
        }
    }
}

#[test]
fn reduce() {
    prove_rooted(Collective::Reduce { root: 0 });
}

#[test]
fn broadcast() {
    prove_rooted(Collective::Broadcast { root: 0 });
}

#[test]
fn scatter() {
    prove_rooted(Collective::Scatter { root: 0 });
}

#[test]
fn gather() {
    prove_rooted(Collective::Gather { root: 0 });
}

#[test]
fn reduce_scatter_direct() {
    prove_on_one_host(Algorithm::Direct, Collective::ReduceScatter);
}

#[test]
fn reduce_scatter_bruck() {
    prove_on_one_host(Algorithm::Bruck, Collective::ReduceScatter);
}

#[test]
fn all_gather_direct() {
    prove_on_one_host(Algorithm::Direct, Collective::AllGather);
}

#[test]
fn all_gather_bruck() {
    prove_on_one_host(Algorithm::Bruck, Collective::AllGather);
}

#[test]
fn reduce_scatter_and_all_gather_ring() {
    for collective in [Collective::ReduceScatter, Collective::AllGather] {
        prove_on_one_host(Algorithm::Ring, collective);
        sizes().filter(|&n| n <= 256).for_each(|n| prove(Algorithm::Ring, collective, &interleaved(n), 1));
    }
}

#[test]
fn all_to_all_direct() {
    prove_on_one_host(Algorithm::Direct, Collective::AllToAll);
}

#[test]
fn all_to_all_bruck() {
    prove_on_one_host(Algorithm::Bruck, Collective::AllToAll);
}

#[test]
fn all_to_all_pairwise() {
    prove_on_one_host(Algorithm::Pairwise, Collective::AllToAll);
}
