//! The same short calls over and over, each time on other memory, more kinds of them than a communicator keeps ready, with
//! long ones in between: as training loops make them.

mod common;

use common::stream::Stream;
use common::{config, on_ranks};
use rccl::{Communicator, ReduceOp};

/// Kinds of calls: more than are kept.
const KINDS: usize = 24;
const CALLS: u32 = 600;

/// Element `i` of a rank in call `call`.
fn value(call: u32, rank: u32, i: usize) -> i64 {
    i64::from(call) * 1000 + i64::from(rank) * 100 + i as i64
}

/// Makes call `call` of kind `kind` and compares what comes of it.
fn check(comm: &Communicator, call: u32, kind: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    // Where in a larger array the data begin: the same call on other memory.
    let shift = (call % 7) as usize;
    let length = [1, 5, 29, 30, 64, 200][kind % 6];
    let ones = |rank| (0..length).map(move |i| value(call, rank, i)).collect::<Vec<_>>();
    let sum = |i| (0..size).map(|rank| value(call, rank, i)).sum::<i64>();
    let mut room = vec![-1; shift + length * size as usize];
    match kind / 6 {
        0 => {
            let out = &mut room[shift..shift + length];
            out.copy_from_slice(&ones(rank));
            comm.all_reduce(out, ReduceOp::Sum).unwrap();
            assert_eq!(out, (0..length).map(sum).collect::<Vec<_>>(), "call {call}, kind {kind}");
        }
        1 => {
            let root = length as u32 % size;
            let out = &mut room[shift..shift + length];
            if call.is_multiple_of(2) {
                comm.broadcast_into(&ones(rank), out, root).unwrap();
            } else {
                out.copy_from_slice(&ones(rank));
                comm.broadcast(out, root).unwrap();
            }
            assert_eq!(out, ones(root), "call {call}, kind {kind}");
        }
        2 => {
            let out = &mut room[shift..];
            comm.all_gather_into(&ones(rank), out).unwrap();
            assert_eq!(out, (0..size).flat_map(ones).collect::<Vec<_>>(), "call {call}, kind {kind}");
        }
        _ => {
            let root = (length as u32 + 1) % size;
            let out = &mut room[shift..shift + length];
            comm.reduce_into(&ones(rank), out, ReduceOp::Sum, root).unwrap();
            let right = if rank == root { (0..length).map(sum).collect() } else { vec![-1; length] };
            assert_eq!(out, right, "call {call}, kind {kind}");
        }
    }
}

fn long(comm: &Communicator, length: usize) {
    let mut long = vec![1_i64; length];
    comm.all_reduce(&mut long, ReduceOp::Sum).unwrap();
    assert!(long.iter().all(|&sum| sum == i64::from(comm.size())));
}

fn repeat(ranks: u32, transport: &str, algorithm: &str) {
    on_ranks(ranks, &config(transport, algorithm), |comm| {
        let mut stream = Stream(77);
        let mut favourite = 0;
        for call in 0..CALLS {
            let bits = stream.bits();
            if bits.is_multiple_of(4) {
                favourite = (bits >> 8) as usize % KINDS;
            }
            check(&comm, call, favourite);
            if bits.is_multiple_of(29) {
                // Longer than what is sent at once, so that other memory and another plan are bound.
                long(&comm, 3000 + (bits >> 32) as usize % 3000);
            }
            if bits.is_multiple_of(31) {
                comm.barrier().unwrap();
            }
        }
    });
}

/// What is kept of short calls is not taken for the steps of the call that came before them and comes again, whether they
/// found the other ranks there when they were started or had to wait.
#[test]
fn between_others_of_one_kind() {
    for transport in ["shm", "tcp"] {
        on_ranks(2, &config(transport, ""), |comm| {
            let (rank, other) = (comm.rank(), 1 - comm.rank());
            let mut started = 0;
            let mut short = || {
                started += 1;
                let sum = comm.start_all_reduce(vec![started, rank + 1], ReduceOp::Sum);
                assert_eq!(sum.wait().unwrap(), [2 * started, 3]);
                let told = comm.start_broadcast(vec![started * 2 + rank; 3], started % 2);
                assert_eq!(told.wait().unwrap(), [started * 2 + started % 2; 3]);
            };
            for _ in 0..30 {
                long(&comm, 30_000);
                short();
            }
            for round in 0..30 {
                let message = if rank == 0 {
                    comm.start_send(vec![round; 20_000], other)
                } else {
                    comm.start_recv(vec![99; 20_000], other)
                };
                assert!(message.wait().unwrap().iter().all(|&x| x == round), "round {round}");
                short();
            }
            for round in 0..30 {
                let (mut one, mut two) = ([round; 5], [rank; 9]);
                rccl::group(|calls| {
                    calls.all_reduce(&comm, &mut one, ReduceOp::Sum);
                    calls.all_reduce(&comm, &mut two, ReduceOp::Sum);
                })
                .unwrap();
                assert_eq!((one, two), ([2 * round; 5], [1; 9]));
                short();
            }
        });
    }
}

#[test]
fn in_shared_memory() {
    for ranks in [1, 2, 3, 5] {
        repeat(ranks, "shm", "");
    }
}

#[test]
fn over_tcp() {
    for ranks in [2, 3, 5] {
        repeat(ranks, "tcp", "");
    }
}

/// With memory of the engine's own, which moves when it grows.
#[test]
fn by_algorithms_with_scratch() {
    for algorithm in ["all_reduce:halving", "all_reduce:tree", "all_gather:bruck", "reduce:binomial"] {
        for ranks in [3, 4, 5] {
            repeat(ranks, "shm", algorithm);
        }
    }
}
