//! A killed process is named on every other rank within a second, whatever the others are doing, and leaves nothing.

mod processes;

use processes::{Job, hear, join, say, say_failed, task};
use rccl::ReduceOp;
use std::time::Duration;

/// A second on a quiet machine; what is asserted leaves room for a busy one.
const SOON: Duration = Duration::from_secs(3);
const BYTES: usize = 100_000;

/// What each rank does; started by the tests below.
#[test]
fn rank() {
    let Some(task) = task() else { return };
    let comm = join();
    let mut x = vec![1.0_f32; BYTES / 4];
    if task != "cold" {
        comm.all_reduce(&mut x, ReduceOp::Max).expect("the first call");
        say("warm");
    }
    let error = loop {
        if task == "idle" && hear().is_none() {
            return comm.finish().expect("leaving");
        }
        if let Err(error) = comm.all_reduce(&mut x, ReduceOp::Max) {
            break error;
        }
    };
    say_failed(&error);
    // Later calls report the same first cause.
    let again = comm.barrier().expect_err("a broken communicator");
    assert_eq!(again.to_string(), error.to_string());
    comm.finish().expect_err("a broken communicator");
}

fn kill(size: u32, victim: u32, transport: &str, task: &str) {
    let mut job = Job::start(size, task, &[("RCCL_TRANSPORT", transport)], |_, _| {}).joined();
    if task != "cold" {
        job.ranks.iter().for_each(|rank| drop(rank.says("warm")));
        // Into the loop of calls.
        std::thread::sleep(Duration::from_millis(50));
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
