//! Memory: an allocation that a limit forbids is an error with need and limit, and a rank of a large job stays small.

mod processes;

use processes::{Job, hear, join, say, task};
use rccl::{Communicator, Error, ReduceOp};

const RANKS: u32 = 64;
/// Proportional set size of a rank, in KiB: its own pages, and its part of those that it shares.
const MOST: u64 = 20 << 10;

/// A line of one of this process's files in /proc, in KiB.
fn proc_kib(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).expect("/proc");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim().trim_end_matches(" kB").parse().expect(name)
}

/// What each rank does; started by the tests below.
#[test]
fn rank() {
    match task().as_deref() {
        Some("limit") => limited(&join()),
        Some("many") => many(&join()),
        Some("scratch") => scratch(&join()),
        _ => {}
    }
}

fn sum(comm: &Communicator, count: usize) {
    let mut x = vec![1.0_f32; count];
    comm.all_reduce(&mut x, ReduceOp::Sum).expect("a call");
    assert!(x.iter().all(|&x| x == comm.size() as f32), "{count} elements");
}

/// Lets this process have `more` bytes of address space than it has now; returns the limit.
fn limit_memory(more: u64) -> u64 {
    let most = (proc_kib("status", "VmSize:") << 10) + more;
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the pointer is valid for the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    most
}

/// Rank 1 cannot have the memory that the algorithm needs: the others are told, and do not wait.
fn scratch(comm: &Communicator) {
    let mut x = vec![1.0_f32; 8 << 20];
    // An abort is immediate: it may reach a rank that still waits in the small call.
    let small = comm.all_reduce(&mut x[..100], ReduceOp::Sum);
    if comm.rank() == 1 {
        limit_memory(16 << 20);
    }
    let error = small.and_then(|()| comm.all_reduce(&mut x, ReduceOp::Sum)).expect_err("no memory");
    say(&format!("{} {error}", error.code()));
    hear();
}

fn limited(comm: &Communicator) {
    sum(comm, 1000);
    let most = limit_memory(64 << 20);
    let error = comm.alloc::<u8>(256 << 20).err().expect("more than the limit allows");
    let text = error.to_string();
    assert!(matches!(error, Error::System { .. }), "{text}");
    for word in ["268435456", "address space (ulimit -v)", &most.to_string()] {
        assert!(text.contains(word), "'{word}' is missing: {text}");
    }
    // A request beyond the whole machine is refused without trying it.
    let error = comm.alloc::<u64>(1 << 40).err().expect("more than any machine has");
    assert!(matches!(error, Error::System { .. }), "{error}");
    let error = comm.alloc::<u64>(usize::MAX / 4).err().expect("more than there are addresses");
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    // Nothing is broken.
    sum(comm, 100_000);
    let mut registered = comm.alloc::<u8>(1 << 20).expect("within the limit");
    comm.broadcast(&mut registered, 0).expect("a call");
    say("done");
}

fn many(comm: &Communicator) {
    sum(comm, 16 << 10);
    comm.barrier().expect("a barrier");
    sum(comm, 1);
    sum(comm, 1 << 20);
    comm.barrier().expect("a barrier");
    assert_eq!(comm.transports().len(), RANKS as usize - 1, "all peers are contacted");
    say(&format!("pss {}", proc_kib("smaps_rollup", "Pss:")));
    if comm.rank() == 0 {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("/proc");
        say(&format!("rollup {}", rollup.replace('\n', "; ")));
        say(&format!("largest {}", largest()));
    }
    // Pages are shared for as long as all ranks have them mapped.
    hear();
}

/// The mappings with the largest Pss, by name, in KiB.
fn largest() -> String {
    let text = std::fs::read_to_string("/proc/self/smaps").expect("/proc");
    let mut sums = std::collections::HashMap::<String, u64>::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(size) = line.strip_prefix("Pss:") {
            *sums.entry(name.clone()).or_default() +=
                size.trim().trim_end_matches(" kB").parse::<u64>().expect("a size");
        } else if line.split(' ').next().is_some_and(|word| word.contains('-')) {
            name = line.split_whitespace().nth(5).unwrap_or("anonymous").to_owned();
        }
    }
    let mut sums: Vec<(u64, String)> = sums.into_iter().map(|(name, size)| (size, name)).collect();
    sums.sort_unstable();
    sums.iter().rev().take(6).map(|(size, name)| format!("{name} {size}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn an_allocation_beyond_a_limit_says_need_and_limit() {
    let mut job = Job::start(2, "limit", &[], |_, _| {}).joined();
    job.ranks.iter().for_each(|rank| drop(rank.says("done")));
    assert!(job.end().iter().all(|status| status.success()));
}

#[test]
fn a_rank_without_memory_for_a_call_tells_the_others() {
    let mut job = Job::start(4, "scratch", &[("RCCL_ALGO", "doubling")], |_, _| {}).joined();
    for (rank, process) in job.ranks.iter().enumerate() {
        let (code, words) = if rank == 1 {
            ("RCCL-1004 ", "bytes of scratch memory")
        } else {
            ("RCCL-2004 ", "aborted the communicator: allocating")
        };
        let line = process.says("RCCL-").1;
        assert!(line.starts_with(code) && line.contains(words), "rank {rank}: {line}");
        assert!(line.contains("address space (ulimit -v)"), "rank {rank}: {line}");
    }
    assert!(job.end().iter().all(|status| status.success()));
}

#[test]
fn a_rank_that_has_met_63_others_is_small() {
    meet_63("0");
    // Everything goes through the staging memory of the links.
    meet_63("1");
}

fn meet_63(copies_disabled: &str) {
    let settings = [("RCCL_ALGO", "direct"), ("RCCL_COPY_DISABLE", copies_disabled)];
    let mut job = Job::start(RANKS, "many", &settings, |_, _| {}).joined();
    let mut sizes: Vec<u64> =
        job.ranks.iter().map(|rank| rank.says("pss ").1["pss ".len()..].parse().expect("a size")).collect();
    println!("{}", job.ranks[0].says("rollup").1);
    println!("{}", job.ranks[0].says("largest").1);
    assert!(job.end().iter().all(|status| status.success()));
    sizes.sort_unstable();
    let (median, largest) = (sizes[sizes.len() / 2], sizes[sizes.len() - 1]);
    println!(
        "{RANKS} ranks, copies disabled {copies_disabled}: Pss {median} KiB (median), {largest} KiB (largest)"
    );
    assert!(largest < MOST, "a rank takes {largest} KiB");
}
