//! Ranks that call different things learn it: every ordered pair of calls, any rank the odd one, both calls named on
//! every rank, and nothing hangs.
//!
//! Every pair is tried on 2 to 5 ranks with any of them the odd one; blocking, started and in groups by turns; on
//! communicators that are made for it, and some on the world.

mod common;
mod odd;

use common::{config, on_ranks};
use odd::{CASES, Case, Memory, VARYING};
use rccl::{Communicator, Error, Failure, ReduceOp, Result, group};
use std::thread;
use std::time::Duration;

/// At once, each in a job of its own: most of the time ranks wait to be sure.
const LANES: usize = 4;

/// How the odd call is made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Alone,
    /// After another call, which is right, and before a message.
    Grouped,
    Started,
}

/// One rank, `odd`, makes another call than the rest, as its call number `number`.
#[derive(Clone, Copy, Debug)]
struct Provocation {
    common: Case,
    other: Case,
    odd: u32,
    how: How,
}

impl Provocation {
    fn number(self) -> u32 {
        if self.how == How::Grouped { 2 } else { 1 }
    }

    fn provoke(self, comm: &Communicator) -> Result<()> {
        let (rank, n) = (comm.rank(), comm.size());
        let case = if rank == self.odd { self.other } else { self.common };
        let mut memory = Memory::new(comm);
        let (mut byte, sent, mut received) = ([1_u8], [rank], [0_u32]);
        let first = match self.how {
            How::Alone => case.run(comm, &mut memory),
            How::Started => comm.scope(|calls| drop(case.start(calls, &mut memory))),
            How::Grouped => group(|calls| {
                calls.all_reduce(comm, &mut byte, ReduceOp::Sum);
                case.add(calls, comm, &mut memory);
                calls.send(comm, &sent, (rank + 1) % n);
                calls.recv(comm, &mut received, (rank + n - 1) % n);
            }),
        };
        // A rank may get through its own call before the mismatch is known; then it is told by the next one in which it
        // meets the ranks that it should have met.
        first.and_then(|()| meet_all(comm)).and_then(|()| meet_all(comm))
    }

    fn judge(self, rank: u32, n: u32, result: Result<()>) {
        let context = format!("{n} ranks, rank {rank}, {self:?}");
        let error = result.expect_err(&context);
        let Error::Failed { failure, .. } = &error else { panic!("{context}: {error}") };
        assert!(matches!(**failure, Failure::Mismatch { .. }), "{context}: {error}");
        let text = error.to_string();
        let (common, other) = (self.common.named(n), self.other.named(n));
        assert!(text.contains(&common), "{context} does not name the common call {common}: {text}");
        let other = format!("rank {} {}", self.odd, other.trim_start());
        assert!(text.contains(&other), "{context} does not name the odd call {other}: {text}");
        let at = format!("op #{}:", self.number());
        assert!(text.contains(&at), "{context} does not say where: {text}");
        assert_eq!(error.code(), "RCCL-2001", "{context}");
    }
}

/// Brings every two ranks together.
fn meet_all(comm: &Communicator) -> Result<()> {
    let n = comm.size() as usize;
    comm.all_to_all_into(&vec![1_u8; n], &mut vec![0; n])
}

fn pairs(cases: &[Case]) -> Vec<(Case, Case)> {
    let with = |&common: &Case| {
        cases.iter().filter(move |&&other| other != common).map(move |&other| (common, other))
    };
    cases.iter().flat_map(with).collect()
}

/// Provokes every pair on a communicator of its own, some of them with their ranks in another order than the world's.
fn every_pair(transport: &'static str, n: u32) {
    let mut all = Vec::new();
    for (number, (common, other)) in pairs(&CASES).into_iter().enumerate() {
        for odd in 0..n {
            let how = [How::Alone, How::Grouped, How::Started][(number + odd as usize + number / 19) % 3];
            all.push(Provocation { common, other, odd, how });
        }
    }
    thread::scope(|scope| {
        for lane in 0..LANES {
            let mine: Vec<Provocation> = all.iter().skip(lane).step_by(LANES).copied().collect();
            scope.spawn(move || {
                on_ranks(n, &config(transport, ""), move |world| {
                    for (number, &provocation) in mine.iter().enumerate() {
                        let key = if number % 2 == 0 { 0 } else { -(world.rank() as i32) };
                        let comm = world.split(Some(0), key).expect("a split").expect("a part");
                        provocation.judge(comm.rank(), n, provocation.provoke(&comm));
                    }
                    world.barrier().expect("the world is as good as before");
                })
            });
        }
    });
}

#[test]
fn two_ranks_in_shared_memory() {
    every_pair("shm", 2);
}

#[test]
fn three_ranks_in_shared_memory() {
    every_pair("shm", 3);
}

#[test]
fn four_ranks_in_shared_memory() {
    every_pair("shm", 4);
}

#[test]
fn five_ranks() {
    every_pair("", 5);
}

#[test]
fn two_ranks_over_tcp() {
    every_pair("tcp", 2);
}

#[test]
fn four_ranks_over_tcp() {
    every_pair("tcp", 4);
}

/// The communicator of the whole job, any rank the odd one.
#[test]
fn on_the_world() {
    for (transport, n) in [("shm", 2), ("tcp", 2), ("shm", 3), ("", 5)] {
        for odd in 0..n {
            for (number, (common, other)) in pairs(&CASES).into_iter().enumerate() {
                if number % 29 == odd as usize {
                    let provocation = Provocation { common, other, odd, how: How::Alone };
                    on_ranks(n, &config(transport, ""), move |comm| {
                        provocation.judge(comm.rank(), n, provocation.provoke(&comm));
                    });
                }
            }
        }
    }
}

/// The same call with other lengths of blocks. Where ranks know the lengths of their own blocks only, those two that
/// differ are named, with these.
#[test]
fn lengths_of_blocks_that_differ() {
    for transport in ["shm", "tcp"] {
        for n in 2..=4 {
            on_ranks(n, &config(transport, ""), move |world| {
                for large in [1, 40_000] {
                    for case in VARYING {
                        for odd in 0..n {
                            let comm = world.duplicate().expect("a duplicate");
                            let context =
                                format!("{transport}, {n} ranks, rank {odd} odd, {case:?} by {large}");
                            let first = case.run(&comm, large, odd);
                            let result = first.and_then(|()| comm.barrier()).and_then(|()| comm.barrier());
                            let error = result.expect_err(&context);
                            let is = matches!(error.failure(), Some(Failure::Mismatch { .. }));
                            assert!(is, "{context}: {error}");
                            let text = error.to_string();
                            let names = text.matches(case.name()).count();
                            assert!(names >= 2, "{context}: {text}");
                        }
                    }
                }
            });
        }
    }
}

/// A rank that sends or receives while the others make a call together. Where no message of the call meets its own, it is
/// told when it waits too long, and whom for.
#[test]
fn a_message_instead_of_a_collective() {
    thread::scope(|scope| {
        for (transport, n) in [("shm", 2), ("tcp", 2), ("shm", 3), ("tcp", 3), ("shm", 4), ("tcp", 4)] {
            scope.spawn(move || {
                let mut config = config(transport, "");
                config.timeout = Duration::from_millis(700);
                on_ranks(n, &config, instead_of_collectives);
            });
        }
    });
}

fn instead_of_collectives(world: Communicator) {
    let n = world.size();
    for (number, case) in (0_u32..).zip(CASES) {
        let odd = number % n;
        let peer = (odd + 1 + number / n % (n - 1)) % n;
        let sends = number % 2 == 0;
        let comm = world.duplicate().expect("a duplicate");
        let (rank, mut memory) = (comm.rank(), Memory::new(&comm));
        let word = if sends { "send" } else { "recv" };
        let context = format!("rank {rank} of {n}: {case:?}, but rank {odd} {word} with rank {peer}");
        let first = match (rank == odd, sends) {
            (false, _) => case.run(&comm, &mut memory),
            (true, true) => comm.send(&memory.x, peer),
            (true, false) => comm.recv(&mut memory.x, peer),
        };
        let error = first.and_then(|()| comm.barrier()).and_then(|()| comm.barrier());
        let error = error.expect_err(&context);
        match error.failure() {
            Some(Failure::Mismatch { .. }) => {
                // A message that nobody looks at is sent, and then the next call is the odd one.
                let text = error.to_string();
                assert!(text.contains(word) || text.contains("barrier"), "{context}: {text}");
            }
            Some(Failure::Timeout { .. }) => {}
            _ => panic!("{context}: {error}"),
        }
        world.barrier().expect("the world is as good as before");
    }
}

/// Small calls of a group run as one, and a difference inside of it is still told.
#[test]
fn inside_of_a_group_that_runs_as_one() {
    for transport in ["shm", "tcp"] {
        on_ranks(3, &config(transport, ""), move |world| {
            for which in [0, 3_usize] {
                for odd in 0..3 {
                    let comm = world.duplicate().expect("a duplicate");
                    let is_odd = comm.rank() == odd;
                    let mut arrays: Vec<Vec<f32>> = (0..4).map(|i| vec![1.0; 10 + i]).collect();
                    if is_odd {
                        arrays[which].push(1.0);
                    }
                    let first = group(|calls| {
                        arrays.iter_mut().for_each(|x| calls.all_reduce(&comm, x, ReduceOp::Sum));
                    });
                    let error = first.and_then(|()| comm.barrier()).and_then(|()| comm.barrier());
                    let error = error.expect_err("the lengths differ");
                    assert!(matches!(error.failure(), Some(Failure::Mismatch { .. })), "{error}");
                    let text = error.to_string();
                    let (usual, other) = (format!("x{} sum", 10 + which), format!("x{} sum", 11 + which));
                    assert!(
                        text.contains(&usual) && text.contains(&other),
                        "call {which}, rank {odd}: {text}"
                    );
                    // One call more than the others.
                    let comm = world.duplicate().expect("a duplicate");
                    let mut arrays = vec![vec![1.0_f32; 10]; 3 + usize::from(is_odd)];
                    let first = group(|calls| {
                        arrays.iter_mut().for_each(|x| calls.all_reduce(&comm, x, ReduceOp::Sum));
                    });
                    let error = first.and_then(|()| comm.barrier()).and_then(|()| comm.barrier());
                    let error = error.expect_err("the numbers of calls differ");
                    assert!(matches!(error.failure(), Some(Failure::Mismatch { .. })), "{error}");
                }
            }
        });
    }
}
