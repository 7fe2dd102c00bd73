//! all_reduce and broadcast give the right elements: every algorithm, transport, kind of memory and awkward count.

mod common;

use common::{config, devices, on_ranks};
use rccl::{Communicator, ReduceOp};

const COUNTS: &[usize] = &[0, 1, 2, 3, 5, 10, 11, 63, 64, 997, 4096, 70_001, 300_000];

fn value(rank: u32, i: usize) -> i64 {
    i64::from(rank + 1) * 1_000_003 + (i as i64 * 7919) % 10_007
}

fn sum(ranks: u32, i: usize) -> i64 {
    (0..ranks).map(|rank| value(rank, i)).sum()
}

/// Every count, in place and not, in registered and in plain memory.
fn all_reduce_everything(comm: &Communicator) {
    let (rank, ranks) = (comm.rank(), comm.size());
    for &count in COUNTS {
        let input: Vec<i64> = (0..count).map(|i| value(rank, i)).collect();
        let expected: Vec<i64> = (0..count).map(|i| sum(ranks, i)).collect();

        let mut plain = input.clone();
        comm.all_reduce(&mut plain, ReduceOp::Sum).unwrap();
        assert!(plain == expected, "plain, in place, {count} elements, rank {rank}");

        let mut out = vec![-1; count];
        comm.all_reduce_into(&input, &mut out, ReduceOp::Sum).unwrap();
        assert!(out == expected, "plain, out of place, {count} elements, rank {rank}");

        let mut registered = comm.alloc::<i64>(count).unwrap();
        registered.copy_from_slice(&input);
        comm.all_reduce(&mut registered, ReduceOp::Sum).unwrap();
        assert!(*registered == expected, "registered, in place, {count} elements, rank {rank}");

        let mut from = comm.alloc::<i64>(count).unwrap();
        from.copy_from_slice(&input);
        registered.fill(-1);
        comm.all_reduce_into(&from, &mut registered, ReduceOp::Sum).unwrap();
        assert!(*registered == expected, "registered, out of place, {count} elements, rank {rank}");
        assert!(*from == input, "the input was written, {count} elements, rank {rank}");

        // Ranks need not agree on the kind of their memory.
        let mut mixed = input.clone();
        if rank.is_multiple_of(2) {
            registered.copy_from_slice(&input);
            comm.all_reduce(&mut registered, ReduceOp::Sum).unwrap();
            mixed.copy_from_slice(&registered);
        } else {
            comm.all_reduce(&mut mixed, ReduceOp::Sum).unwrap();
        }
        assert!(mixed == expected, "mixed memory, {count} elements, rank {rank}");
    }
}

fn broadcast_everything(comm: &Communicator) {
    let rank = comm.rank();
    for &count in COUNTS {
        for root in [0, comm.size() - 1, comm.size() / 2] {
            let expected: Vec<i64> = (0..count).map(|i| value(root, i)).collect();
            let mut plain: Vec<i64> = (0..count).map(|i| value(rank, i)).collect();
            comm.broadcast(&mut plain, root).unwrap();
            assert!(plain == expected, "plain, {count} elements from {root}, rank {rank}");

            let mut registered = comm.alloc::<i64>(count).unwrap();
            for (i, x) in registered.iter_mut().enumerate() {
                *x = value(rank, i);
            }
            comm.broadcast(&mut registered, root).unwrap();
            assert!(*registered == expected, "registered, {count} elements from {root}, rank {rank}");

            let input: Vec<i64> = (0..count).map(|i| value(rank, i)).collect();
            let mut out = vec![-1; count];
            comm.broadcast_into(&input, &mut out, root).unwrap();
            assert!(out == expected, "out of place, {count} elements from {root}, rank {rank}");
        }
    }
}

fn with(transport: &'static str, algorithms: &[&'static str], ranks: &[u32], body: fn(&Communicator)) {
    for &algorithm in algorithms {
        for &n in ranks {
            eprintln!("{transport} {algorithm} on {n} ranks");
            on_ranks(n, &config(transport, algorithm), move |comm| {
                body(&comm);
                comm.finish().unwrap();
            });
        }
    }
}

const REDUCING: &[&str] = &[
    "ring",
    "tree",
    "doubling",
    "halving",
    "direct",
    "hierarchical",
    "hierarchical_halving",
    "exchange",
    "",
];
const SHARING: &[&str] = &["chain", "binomial", "pipelined_tree", "scatter_allgather", ""];

#[test]
fn all_reduce_in_shared_memory() {
    with("shm", REDUCING, &[2, 3, 4, 5], all_reduce_everything);
}

#[test]
fn all_reduce_over_tcp() {
    with("tcp", REDUCING, &[2, 3, 4, 5], all_reduce_everything);
}

#[test]
fn all_reduce_over_verbs() {
    if devices::rdma() {
        with("verbs", REDUCING, &[2], all_reduce_everything);
        with("verbs", &[""], &[4], all_reduce_everything);
    }
}

#[test]
fn broadcast_in_shared_memory() {
    with("shm", SHARING, &[2, 3, 5], broadcast_everything);
}

#[test]
fn broadcast_over_tcp() {
    with("tcp", SHARING, &[2, 3, 5], broadcast_everything);
}

#[test]
fn broadcast_over_verbs() {
    if devices::rdma() {
        with("verbs", SHARING, &[2], broadcast_everything);
        with("verbs", &[""], &[4], broadcast_everything);
    }
}

#[test]
fn one_rank_needs_nobody() {
    on_ranks(1, &config("", ""), |comm| {
        all_reduce_everything(&comm);
        broadcast_everything(&comm);
        comm.barrier().unwrap();
        comm.finish().unwrap();
    });
}

#[test]
fn eight_ranks_and_many_calls() {
    on_ranks(8, &config("", ""), |comm| {
        for i in 0..300_u64 {
            let mut x = vec![i + u64::from(comm.rank()); (i as usize * 37) % 5000 + 1];
            comm.all_reduce(&mut x, ReduceOp::Max).unwrap();
            assert!(x.iter().all(|&x| x == i + 7), "call {i}");
            if i % 10 == 0 {
                comm.barrier().unwrap();
            }
        }
        comm.finish().unwrap();
    });
}
