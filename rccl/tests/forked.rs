//! A forked child cannot use its parent's communicator, does not disturb it, and does not hide its death.

#[path = "common/devices.rs"]
mod devices;
mod processes;

use processes::{Job, hear, join, say, say_failed, task};
use rccl::{Buffer, Communicator, Config, Error, ReduceOp, UniqueId, group};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Runs `body` in a forked child; returns the child's process id.
fn fork(body: impl FnOnce()) -> i32 {
    fork_with((), |()| body()).0
}

/// As [`fork`]; the child owns its copy of `things`, and the parent gets its own back.
fn fork_with<T>(things: T, body: impl FnOnce(T)) -> (i32, T) {
    // SAFETY: no other thread of this program holds a lock that the child needs: the test harness waits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let panicked = catch_unwind(AssertUnwindSafe(|| body(things))).is_err();
        // Not Rust's `exit`: it takes a lock of std's that a starting thread of the parent may have held at the fork (of 6,419
        // children of a program that starts threads all the time 8 hung there; of 26,962 that ended as here none).
        // SAFETY: ends the process; the handlers that it runs are what a C or Python program's child runs.
        unsafe { libc::exit(if panicked { 101 } else { 0 }) }
    }
    assert!(child > 0, "fork failed");
    (child, things)
}

/// The exit code of a child, or the signal that ended it.
fn ended(child: i32) -> Result<i32, i32> {
    let end = Instant::now() + processes::DEADLINE;
    let mut status = 0;
    // SAFETY: the pointer is valid for the call.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        assert!(Instant::now() < end, "the child does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
    if libc::WIFEXITED(status) { Ok(libc::WEXITSTATUS(status)) } else { Err(libc::WTERMSIG(status)) }
}

fn sum(comm: &Communicator, count: usize) {
    let mut x = vec![i64::from(comm.rank()); count];
    comm.all_reduce(&mut x, ReduceOp::Sum).expect("the parents' call");
    let expected = (0..i64::from(comm.size())).sum::<i64>();
    assert!(x.iter().all(|&x| x == expected));
}

fn is_forked<T>(result: Result<T, Error>) {
    match result {
        Err(Error::Forked { parent, child }) => {
            assert!(parent != child && child == std::process::id());
        }
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("no error"),
    }
}

/// Everything that a child might try.
fn misuse(comm: &Communicator, buffer: &mut Buffer<f32>) {
    is_forked(comm.all_reduce(&mut [1.0_f32; 10], ReduceOp::Sum));
    is_forked(comm.all_reduce(buffer, ReduceOp::Sum));
    is_forked(comm.broadcast(&mut [1.0_f32; 10], 0));
    is_forked(comm.barrier());
    is_forked(comm.alloc::<f32>(1000));
    is_forked(comm.clone().finish());
    is_forked(comm.start_all_reduce(vec![1.0_f32; 10], ReduceOp::Sum).wait());
    is_forked(comm.start_barrier().wait_timeout(Duration::from_secs(20)));
    is_forked(comm.scope(|calls| drop(calls.all_reduce(buffer, ReduceOp::Sum))));
    is_forked(group(|calls| calls.barrier(comm)));
    is_forked(comm.split(Some(0), 0));
    is_forked(comm.duplicate());
    is_forked(comm.shrink(&[]));
    comm.abort("a child's abort is nobody's business");
    assert_eq!((comm.rank() < comm.size(), comm.transports().len()), (true, 0));
}

/// What each rank does; started by the tests below.
#[test]
fn rank() {
    let Some(task) = task() else { return };
    let comm = join();
    sum(&comm, 100);
    sum(&comm, 100_000);
    let mut buffer = comm.alloc::<f32>(5000).expect("memory");
    buffer.fill(1.0);
    if task == "orphan" {
        if comm.rank() == 1 {
            let child = fork(|| std::thread::sleep(Duration::from_secs(20)));
            say(&format!("child {child}"));
        }
        say("warm");
        let error = loop {
            if let Err(error) = comm.all_reduce(&mut [1_i32; 100], ReduceOp::Sum) {
                break error;
            }
        };
        return say_failed(&error);
    }

    let using = fork(|| misuse(&comm, &mut buffer));
    // One that drops the last handle that it has.
    let (dropping, (comm, buffer)) = fork_with((comm, buffer), |(comm, mut buffer)| {
        misuse(&comm, &mut buffer);
        drop(comm);
        drop(buffer);
    });
    // The parent goes on while its children live.
    sum(&comm, 50_000);
    // One that is forked while a call is under way, which it cannot wait for and the parent can.
    let work = comm.start_all_reduce(vec![1_i64; 1_000_000], ReduceOp::Sum);
    let (waiting, work) = fork_with(work, |mut work| {
        is_forked(work.wait_timeout(Duration::from_secs(20)));
        is_forked(work.wait());
    });
    let all = i64::from(comm.size());
    assert!(work.wait().expect("the parents' call").iter().all(|&x| x == all));
    assert_eq!(ended(waiting), Ok(0));
    assert_eq!(ended(using), Ok(0));
    assert_eq!(ended(dropping), Ok(0));
    assert!(buffer.iter().all(|&x| x == 1.0), "a child's call that failed changed its parent's memory");
    // One that ends without any clean-up.
    let gone = fork(|| {
        // SAFETY: ends the process.
        unsafe { libc::_exit(7) }
    });
    assert_eq!(ended(gone), Ok(7));
    let own = fork(own_communicator);
    sum(&comm, 50_000);
    assert_eq!(ended(own), Ok(0));
    sum(&comm, 10);
    comm.finish().expect("leaving");
    say("done");
    while hear().is_some() {}
}

/// A child may join anew, with memory that is not its parent's.
fn own_communicator() {
    let config = Config::default();
    let id = UniqueId::create(&config).expect("an id");
    let connect = |rank| {
        let (id, config) = (id, Config::default());
        std::thread::spawn(move || {
            let builder = Communicator::builder().expect("settings").config(config);
            let comm = builder.connect(&id, rank, 2).expect("joining in a child");
            sum(&comm, 100_000);
            let mut memory = comm.alloc::<f64>(30_000).expect("memory");
            memory.fill(1.0);
            comm.all_reduce(&mut memory, ReduceOp::Sum).expect("the child's call");
            assert!(memory.iter().all(|&x| x == 2.0));
            comm.finish().expect("leaving");
        })
    };
    let ranks = [connect(0), connect(1)];
    ranks.into_iter().for_each(|rank| rank.join().expect("a rank of the child"));
}

fn children(transport: &str) {
    let mut job = Job::start(3, "children", &[("RCCL_TRANSPORT", transport)], |_, _| {});
    job.ranks.iter().for_each(|rank| drop(rank.says("done")));
    assert!(job.end().iter().all(|status| status.success()));
    assert_eq!(job.left_behind(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn children_are_told_and_disturb_nobody_in_shared_memory() {
    children("shm");
}

#[test]
fn children_are_told_and_disturb_nobody_over_tcp() {
    children("tcp");
}

#[test]
fn children_are_told_and_disturb_nobody_over_verbs() {
    if devices::rdma() {
        children("verbs");
    }
}

fn orphan(transport: &str) {
    let mut job = Job::start(3, "orphan", &[("RCCL_TRANSPORT", transport)], |_, _| {});
    let child: i32 = job.ranks[1].says("child ").1["child ".len()..].parse().expect("a number");
    job.ranks.iter().for_each(|rank| drop(rank.says("warm")));
    std::thread::sleep(Duration::from_millis(50));
    let killed = job.ranks[1].kill();
    let child = Orphan(child);
    for rank in [0, 2] {
        let (when, line) = job.ranks[rank].says("lost 1 ");
        let after = when.duration_since(killed);
        eprintln!("{transport}: {after:?} after the kill: {line}");
        assert!(after < Duration::from_secs(3), "learnt only after {after:?}, from the child's end?");
    }
    drop(child);
}

/// A process whose parent has been killed; killed when dropped.
struct Orphan(i32);

impl Drop for Orphan {
    fn drop(&mut self) {
        // SAFETY: takes integers only.
        let answer = unsafe { libc::kill(self.0, libc::SIGKILL) };
        assert!(answer == 0 || std::thread::panicking(), "the child has ended before: nothing was shown");
    }
}

#[test]
fn the_death_of_a_parent_is_noticed_while_its_child_lives() {
    orphan("shm");
    orphan("tcp");
}

/// Whose memory the devices know, and who has open devices.
#[test]
fn the_death_of_a_parent_is_noticed_over_verbs_too() {
    if devices::rdma() {
        orphan("verbs");
    }
}
