//! What a rank says that gives up is what all others are told.

mod common;
mod processes;

use common::{config, on_ranks, transports};
use processes::{Job, join, say, task};
use rccl::{Communicator, Error, Failure, ReduceOp};
use std::time::{Duration, Instant};

const WHY: &str = "the data are gone";

/// The rank that gave up, and why.
fn aborted(error: &Error) -> Option<(u32, &str)> {
    match error.failure() {
        Some(Failure::Aborted { member, why }) => Some((member.rank, why)),
        _ => None,
    }
}

/// What each rank does; started by the tests below.
#[test]
fn rank() {
    let Some(task) = task() else { return };
    let comm = join();
    if task == "its last words" {
        return last_words(&comm);
    }
    let copy = comm.duplicate().expect("a copy");
    let (which, who) = task.split_once(" by ").expect("a task");
    let given_up = if which == "the copy" { &copy } else { &comm };
    given_up.barrier().expect("a barrier");
    if comm.rank().to_string() == who {
        given_up.abort(WHY);
        // No destructor runs, and nothing is waited for.
        std::process::exit(3);
    }
    let error = given_up.barrier().expect_err("a rank has given up");
    say(&format!("heard {:?} of: {error}", aborted(&error)));
}

/// A rank that ends without leaving has sent all that a call of the others needs.
fn last_words(comm: &Communicator) {
    let mut x = [u32::from(comm.rank() == 1); 5];
    comm.barrier().expect("a barrier");
    // Links, too.
    comm.broadcast(&mut [0_u8; 3], 1).expect("a broadcast");
    if comm.rank() != 1 {
        await_failure(comm);
    }
    comm.broadcast(&mut x, 1).expect("what was sent before");
    assert_eq!(x, [1; 5]);
    if comm.rank() == 1 {
        std::process::exit(3);
    }
    comm.barrier().expect_err("a rank that was lost");
    say("heard its last words");
}

#[test]
fn what_a_lost_rank_has_sent_is_not_lost() {
    for transport in ["shm", "tcp"] {
        let mut job = Job::start(3, "its last words", &[("RCCL_TRANSPORT", transport)], |_, _| {}).joined();
        for other in [0, 2] {
            job.ranks[other].says("heard its last words");
        }
        assert_eq!(job.end()[1].code(), Some(3));
    }
}

/// Rank 0 is also the root, who tells the others.
fn ends_at_once(which: &str) {
    for (transport, who) in [("shm", 1), ("tcp", 1), ("shm", 0), ("tcp", 0)] {
        let task = format!("{which} by {who}");
        let mut job = Job::start(3, &task, &[("RCCL_TRANSPORT", transport)], |_, _| {}).joined();
        for other in (0..3).filter(|&rank| rank != who) {
            let (_, said) = job.ranks[other].says("heard ");
            assert!(said.starts_with(&format!("heard {:?} of: ", Some((who, WHY)))), "rank {other} {said}");
        }
        assert_eq!(job.end()[who].code(), Some(3));
    }
}

#[test]
fn a_program_that_ends_at_once_has_said_why() {
    ends_at_once("the world");
}

#[test]
fn a_program_that_ends_at_once_with_other_communicators_has_said_why() {
    ends_at_once("the copy");
}

/// Until a communicator has failed as far as this rank knows.
fn await_failure(comm: &Communicator) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while comm.check().is_ok() {
        assert!(Instant::now() < deadline, "rank {} hears nothing", comm.rank());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What the others sent before they gave up would be all that these calls need.
#[test]
fn calls_that_would_wait_for_nobody_fail_too() {
    for transport in transports() {
        for made_before in [false, true] {
            on_ranks(3, &config(transport, ""), move |comm| {
                comm.barrier().unwrap();
                if made_before {
                    comm.all_reduce(&mut [0_u32; 2], ReduceOp::Sum).unwrap();
                }
                let start = || comm.start_all_reduce(vec![1_u32; 2], ReduceOp::Sum);
                let work = (comm.rank() != 1).then(start);
                if comm.rank() == 0 {
                    // Its messages are on their way, and those of rank 2.
                    std::thread::sleep(Duration::from_millis(200));
                    comm.abort(WHY);
                }
                await_failure(&comm);
                let error = match work {
                    Some(work) => work.wait().expect_err("given up"),
                    None => comm.all_reduce(&mut [1_u32; 2], ReduceOp::Sum).expect_err("given up"),
                };
                assert_eq!(aborted(&error), Some((0, WHY)), "{transport}: {error}");
                let started = start().wait().expect_err("given up");
                assert_eq!(aborted(&started), Some((0, WHY)), "{transport}: {started}");
            });
        }
    }
}
