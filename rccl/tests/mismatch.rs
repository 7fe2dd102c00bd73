//! Ranks that call different things learn it: every ordered pair of calls, any rank the odd one, both calls named on
//! every rank, and nothing hangs.

mod common;

use common::{config, on_ranks};
use rccl::{Communicator, Error, Failure, ReduceOp, Result};

/// A call that differs from each of the others in what a user gets wrong: collective, type, count, operator, root.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    Sum,
    Max,
    Ints,
    Longer,
    Large,
    FromZero,
    FromOne,
    Barrier,
}

const CASES: [Case; 8] = [
    Case::Sum,
    Case::Max,
    Case::Ints,
    Case::Longer,
    Case::Large,
    Case::FromZero,
    Case::FromOne,
    Case::Barrier,
];

impl Case {
    fn run(self, comm: &Communicator) -> Result<()> {
        match self {
            Case::Sum => comm.all_reduce(&mut [1.0_f32; 1000], ReduceOp::Sum),
            Case::Max => comm.all_reduce(&mut [1.0_f32; 1000], ReduceOp::Max),
            Case::Ints => comm.all_reduce(&mut [1_i32; 1000], ReduceOp::Sum),
            Case::Longer => comm.all_reduce(&mut [1.0_f32; 1001], ReduceOp::Sum),
            Case::Large => comm.all_reduce(&mut vec![1.0_f32; 100_000], ReduceOp::Sum),
            Case::FromZero => comm.broadcast(&mut [1.0_f32; 1000], 0),
            Case::FromOne => comm.broadcast(&mut [1.0_f32; 1000], 1),
            Case::Barrier => comm.barrier(),
        }
    }
    fn named(self) -> &'static str {
        match self {
            Case::Sum => "all_reduce f32 x1000 sum",
            Case::Max => "all_reduce f32 x1000 max",
            Case::Ints => "all_reduce i32 x1000 sum",
            Case::Longer => "all_reduce f32 x1001 sum",
            Case::Large => "all_reduce f32 x100000 sum",
            Case::FromZero => "broadcast f32 x1000 root 0",
            Case::FromOne => "broadcast f32 x1000 root 1",
            Case::Barrier => "barrier",
        }
    }
}

/// One rank, `odd`, makes another call than the rest.
fn provoke(transport: &'static str, n: u32, odd: u32, common: Case, other: Case) {
    let errors = on_ranks(n, &config(transport, ""), move |comm| {
        let mine = if comm.rank() == odd { other } else { common };
        // A rank may get through its own call before the mismatch is known; then its next call reports it.
        let first = mine.run(&comm);
        first.and_then(|()| comm.barrier()).and_then(|()| comm.barrier())
    });
    for (rank, result) in errors.into_iter().enumerate() {
        let context =
            format!("{transport}, {n} ranks, rank {odd} {other:?}, the others {common:?}: rank {rank}");
        let error = result.expect_err(&context);
        let Error::Failed { failure, .. } = &error else { panic!("{context}: {error}") };
        assert!(matches!(**failure, Failure::Mismatch { .. }), "{context}: {error}");
        let text = error.to_string();
        assert!(text.contains(common.named()), "{context} does not name the common call: {text}");
        assert!(text.contains(other.named()), "{context} does not name the odd call: {text}");
        assert!(text.contains("op #1"), "{context} does not say where: {text}");
        assert_eq!(error.code(), "RCCL-2001", "{context}");
    }
}

fn every_pair(transport: &'static str, n: u32, odd: u32) {
    for common in CASES {
        for other in CASES {
            if common != other {
                provoke(transport, n, odd, common, other);
            }
        }
    }
}

#[test]
fn two_ranks_in_shared_memory() {
    every_pair("shm", 2, 1);
}

#[test]
fn two_ranks_the_first_is_odd() {
    every_pair("shm", 2, 0);
}

#[test]
fn two_ranks_over_tcp() {
    every_pair("tcp", 2, 1);
}

#[test]
fn three_ranks_any_of_them_odd() {
    for odd in 0..3 {
        every_pair("shm", 3, odd);
    }
}

#[test]
fn four_ranks_any_of_them_odd_over_tcp() {
    for odd in 0..4 {
        every_pair("tcp", 4, odd);
    }
}

#[test]
fn five_ranks_any_of_them_odd() {
    for odd in 0..5 {
        every_pair("", 5, odd);
    }
}
