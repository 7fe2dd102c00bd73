//! Counts beyond 4 GiB. They need 9 GB of memory, so `TEST_LARGE=1` asks for them.

mod common;

use common::{config, try_on_ranks};
use rccl::{Communicator, ReduceOp};
use std::time::Duration;

const GIB: usize = 1 << 30;
const COUNT: usize = 4 * GIB + 12_345;
/// What both ranks need, and a little for everything else.
const NEED: usize = 2 * COUNT + GIB / 2;

/// Whether to run; says why not.
fn asked_for() -> bool {
    if std::env::var("TEST_LARGE").as_deref() != Ok("1") {
        eprintln!("skipped: TEST_LARGE=1 runs it; it needs {} MiB of memory", NEED >> 20);
        return false;
    }
    let text = std::fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let free = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("MemAvailable");
    let free: usize = free.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(free > NEED >> 10, "TEST_LARGE=1, but only {free} KiB of {} are available", NEED >> 10);
    true
}

/// Elements at which a 32-bit count, signed or not, a part or a chunk would go wrong.
fn probes() -> Vec<usize> {
    let mut probes: Vec<usize> = (0..COUNT).step_by(1_000_003).collect();
    for boundary in [0, COUNT / 2, 2 * GIB, 3 * GIB, 4 * GIB, COUNT] {
        probes.extend((boundary.saturating_sub(700)..boundary + 700).filter(|&i| i < COUNT));
    }
    probes
}

fn value(rank: u32, i: usize) -> u8 {
    (i / 7 + i / GIB * 31) as u8 & 0x3f | (rank as u8) << 6
}

fn fill(rank: u32, x: &mut [u8]) {
    x.fill(rank as u8);
    probes().into_iter().for_each(|i| x[i] = value(rank, i));
}

fn calls(comm: &Communicator, x: &mut [u8]) {
    fill(comm.rank(), x);
    comm.all_reduce(x, ReduceOp::Max).expect("all_reduce");
    for i in probes() {
        assert_eq!(x[i], value(1, i), "all_reduce, element {i}, rank {}", comm.rank());
    }
    // Between the probes too.
    assert!(
        x[5 * GIB / 2 + 800..5 * GIB / 2 + 900_000].iter().filter(|&&x| x == 1).count() >= 899_999 - 1400
    );
    fill(comm.rank(), x);
    comm.broadcast(x, 1).expect("broadcast");
    for i in probes() {
        assert_eq!(x[i], value(1, i), "broadcast, element {i}, rank {}", comm.rank());
    }
}

fn run(transport: &str) {
    let mut config = config(transport, "");
    config.timeout = Duration::from_secs(300);
    try_on_ranks(2, &config, |comm| {
        let comm = comm.expect("joining");
        calls(&comm, &mut vec![0; COUNT]);
        comm.finish().expect("leaving");
    });
}

/// One after the other: there is no memory for both.
#[test]
fn counts_beyond_four_gibibytes() {
    if asked_for() {
        for transport in ["shm", "tcp"] {
            run(transport);
        }
    }
}
