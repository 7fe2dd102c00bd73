//! A killed process is named on every other rank within a second, whatever the others are doing, and leaves nothing.

#[path = "common/devices.rs"]
mod devices;
mod processes;

use processes::{Job, hear, join, say, say_failed, task};
use rccl::{Communicator, Error, Failure, ReduceOp, Result, group};
use std::time::Duration;

/// A second on a quiet machine; what is asserted leaves room for a busy one.
const SOON: Duration = Duration::from_secs(3);
const BYTES: usize = 100_000;
/// One call takes longer than a test waits before it kills, so that it is hit in the middle of it.
const LARGE: usize = 64 << 20;

/// What each rank does; started by the tests below.
#[test]
fn rank() {
    let Some(task) = task() else { return };
    let comm = join();
    let mut call = calls(&task, &comm);
    if task == "large" {
        comm.barrier().expect("a barrier");
        say("warm");
    } else if task != "cold" {
        call().expect("the first call");
        say("warm");
    }
    let error = loop {
        if task == "idle" && hear().is_none() {
            break None;
        }
        if let Err(error) = call() {
            break Some(error);
        }
    };
    drop(call);
    let Some(error) = error else { return comm.finish().expect("leaving") };
    say_failed(&error);
    // Later calls report the same first cause.
    let again = comm.barrier().expect_err("a broken communicator");
    if task == "group" {
        // A death breaks every communicator by itself.
        let lost = |error: &Error| match error.failure() {
            Some(Failure::PeerLost { member, .. }) => Some(member.clone()),
            _ => None,
        };
        assert!(lost(&again).is_some() && lost(&again) == lost(&error), "{error}, then {again}");
    } else {
        assert_eq!(again.to_string(), error.to_string());
    }
    comm.finish().expect_err("a broken communicator");
}

/// What a rank goes on doing until it fails.
fn calls<'a>(task: &str, comm: &'a Communicator) -> Box<dyn FnMut() -> Result<()> + 'a> {
    let mut x = vec![1.0_f32; if task == "large" { LARGE } else { BYTES } / 4];
    match task {
        "works" => Box::new(move || {
            let works: Vec<_> =
                (0..8).map(|_| comm.start_all_reduce(vec![1.0_f32; BYTES / 4], ReduceOp::Max)).collect();
            let mut results = works.into_iter().map(|work| work.wait().map(drop));
            let Some(error) = results.find_map(Result::err) else { return Ok(()) };
            // Those behind it fail for the same reason.
            results.for_each(|result| {
                assert_eq!(result.expect_err("after a failure").to_string(), error.to_string());
            });
            Err(error)
        }),
        "group" => {
            let (rank, size) = (comm.rank(), comm.size());
            let copy = comm.duplicate().expect("a copy");
            let (mine, mut theirs) = (vec![rank; BYTES], vec![rank; BYTES]);
            Box::new(move || {
                group(|calls| {
                    calls.all_reduce(&copy, &mut x, ReduceOp::Max);
                    calls.send(comm, &mine, (rank + 1) % size);
                    calls.recv(comm, &mut theirs, (rank + size - 1) % size);
                })
            })
        }
        _ => Box::new(move || comm.all_reduce(&mut x, ReduceOp::Max)),
    }
}

fn kill(size: u32, victim: u32, transport: &str, task: &str) {
    let mut job = Job::start(size, task, &[("RCCL_TRANSPORT", transport)], |_, _| {}).joined();
    if task != "cold" {
        job.ranks.iter().for_each(|rank| drop(rank.says("warm")));
        // Into the loop of calls.
        std::thread::sleep(Duration::from_millis(if task == "large" { 500 } else { 50 }));
    }
    let mut since = job.ranks[victim as usize].kill();
    let survivors = (0..size).filter(|&rank| rank != victim).map(|rank| rank as usize);
    if task == "idle" {
        // Long enough to be known before the next call, which then fails at once.
        std::thread::sleep(Duration::from_secs(1));
        since = std::time::Instant::now();
        survivors.clone().for_each(|rank| job.ranks[rank].tell("call"));
    }
    for rank in survivors {
        let (when, line) = job.ranks[rank].says("lost ");
        let after = when.duration_since(since);
        eprintln!("{transport} {task}: {after:?} after the kill: {line}");
        assert!(line.starts_with(&format!("lost {victim} |")), "rank {rank} blames another: {line}");
        assert!(line.contains(&format!("pid {}", job.ranks[victim as usize].child.id())), "{line}");
        assert!(after < SOON, "rank {rank} learnt it only after {after:?}");
    }
    for (rank, status) in job.end().into_iter().enumerate() {
        assert!(rank as u32 == victim || status.success(), "rank {rank}: {status}");
    }
    assert_eq!(job.left_behind(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn in_calls_through_shared_memory() {
    kill(3, 1, "shm", "loop");
    kill(4, 3, "shm", "loop");
}

#[test]
fn in_calls_over_tcp() {
    kill(3, 2, "tcp", "loop");
    kill(4, 1, "tcp", "loop");
}

#[test]
fn in_calls_that_are_not_waited_for() {
    kill(3, 1, "shm", "works");
    kill(4, 2, "tcp", "works");
    kill(3, 0, "shm", "works");
}

#[test]
fn in_groups_on_two_communicators() {
    kill(3, 2, "shm", "group");
    kill(4, 1, "tcp", "group");
    kill(3, 0, "tcp", "group");
}

#[test]
fn the_root_in_calls_through_shared_memory() {
    kill(3, 0, "shm", "loop");
    kill(4, 0, "shm", "loop");
}

#[test]
fn the_root_in_calls_over_tcp() {
    kill(3, 0, "tcp", "loop");
    kill(4, 0, "tcp", "loop");
}

#[test]
fn between_calls() {
    kill(3, 1, "shm", "idle");
    kill(3, 2, "tcp", "idle");
    kill(4, 0, "shm", "idle");
    kill(3, 0, "tcp", "idle");
}

/// At any moment of the first call, in which the links are made.
#[test]
fn while_links_are_made() {
    for victim in [0, 1, 2, 3] {
        for transport in ["shm", "tcp"] {
            kill(4, victim, transport, "cold");
        }
    }
}

/// The moments are those of the tests above.
#[test]
fn over_verbs() {
    if !devices::rdma() {
        return;
    }
    kill(2, 1, "verbs", "large");
    kill(4, 2, "verbs", "large");
    kill(3, 0, "verbs", "loop");
    kill(4, 1, "verbs", "works");
    kill(3, 2, "verbs", "group");
    kill(3, 1, "verbs", "idle");
    for victim in [0, 1, 2] {
        kill(3, victim, "verbs", "cold");
    }
}
