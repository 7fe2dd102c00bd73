//! What links over RDMA promise beside right results: no copies, nothing left behind, little memory, a report.

mod common;

use common::{config, devices, on_ranks};
use rccl::{Communicator, Config, ReduceOp, UniqueId, group};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longer than any eager message.
const COUNT: usize = 100_000;

/// Tests run one after the other, as some count what all processes hold of the devices; `None` without devices.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    devices::rdma().then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A test of what this process has needs one of its own: `true` in that, else it has run there.
fn alone(name: &str) -> bool {
    if std::env::var_os("TEST_ALONE").is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("this program");
    let arguments = ["--exact", name, "--nocapture", "--include-ignored"];
    let output = Command::new(program).args(arguments).env("TEST_ALONE", "1").output();
    let output = output.expect("starting a process");
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "{said}");
    println!("{said}");
    false
}

/// What is held of all devices: queue pairs, completion queues, memory regions, protection domains, open devices. (Which
/// process holds them is not told for those whose thread has ended.)
fn held() -> [usize; 5] {
    let output = Command::new("rdma").args(["resource", "show"]).output();
    let output = output.expect("rdma, of iproute2, which tells what devices hold");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ["qp", "cq", "mr", "pd", "ctx"].map(|kind| {
        let words: Vec<&str> = said.split_whitespace().collect();
        let counts = words.windows(2).filter(|pair| pair[0] == kind).map(|pair| pair[1].parse::<usize>());
        counts.sum::<Result<usize, _>>().expect("a number")
    })
}

fn entries(of: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{of}")).map_or(0, Iterator::count)
}

/// A line of /proc/self/status, in bytes.
fn status(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim().trim_end_matches(" kB").parse::<usize>().expect(name) << 10
}

/// Waits until `what` returns what is wanted, 10 s at most; the last that it returned.
fn settle<T: PartialEq>(wanted: &T, what: impl Fn() -> T) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let now = what();
        if now == *wanted || Instant::now() > end {
            return now;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn sum(comm: &Communicator, count: usize) {
    let mut x = vec![u64::from(comm.rank()) + 1; count];
    comm.all_reduce(&mut x, ReduceOp::Sum).unwrap();
    let all = u64::from(comm.size());
    assert!(x.iter().all(|&x| x == all * (all + 1) / 2));
}

#[test]
fn the_report_names_device_gid_and_mtu() {
    let Some(_turn) = turn() else { return };
    on_ranks(3, &config("verbs", ""), |comm| {
        sum(&comm, COUNT);
        let reached = comm.transports();
        assert_eq!(reached.len(), 2);
        for (_, transport, reason) in reached {
            assert_eq!(transport, "verbs");
            let words = ["RCCL_TRANSPORT leaves shm out: verbs", " port ", " GID ", ", MTU "];
            assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
        }
    });
}

/// What the settings allow goes over RDMA, without any memory of links in which bytes could be copied.
#[test]
fn registered_memory_is_never_copied() {
    let Some(_turn) = turn() else { return };
    if !alone("registered_memory_is_never_copied") {
        return;
    }
    for algorithm in ["", "all_gather:direct;broadcast:binomial", "all_gather:ring;broadcast:chain"] {
        let mut config = config("verbs", algorithm);
        config.set("RCCL_BUFFSIZE", "0").unwrap();
        for ranks in [2, 4] {
            on_ranks(ranks, &config, move |comm| straight(&comm));
        }
    }
    // Other memory is copied, so that the figure above shows something.
    on_ranks(2, &config("verbs", ""), |comm| {
        assert_eq!(comm.staged_bytes(), 0);
        sum(&comm, COUNT);
        comm.barrier().unwrap();
        assert!(comm.staged_bytes() > 0);
    });
}

fn straight(comm: &Communicator) {
    let (rank, ranks) = (comm.rank(), comm.size());
    for count in [1, 2000, COUNT, 1 << 20] {
        let mut all = comm.alloc::<u32>(count * ranks as usize).unwrap();
        all[rank as usize * count..][..count].fill(rank + 7);
        comm.all_gather(&mut all).unwrap();
        assert!(all.chunks(count).zip(7..).all(|(block, value)| block.iter().all(|&x| x == value)));

        let (mut mine, mut theirs) = (comm.alloc::<u32>(count).unwrap(), comm.alloc::<u32>(count).unwrap());
        for root in [0, ranks - 1] {
            mine.fill(rank * 10 + root);
            comm.broadcast(&mut mine, root).unwrap();
            assert!(mine.iter().all(|&x| x == root * 11), "{count} elements from {root}");
        }
        mine.fill(rank);
        group(|calls| {
            calls.send(comm, &mine, (rank + 1) % ranks);
            calls.recv(comm, &mut theirs, (rank + ranks - 1) % ranks);
        })
        .unwrap();
        assert!(theirs.iter().all(|&x| x == (rank + ranks - 1) % ranks), "{count} elements");
        comm.barrier().unwrap();
        assert_eq!(comm.staged_bytes(), 0, "{count} elements");
    }
}

/// With links without memory of their own, a call on memory that no device knows says what is wrong.
#[test]
fn other_memory_needs_memory_of_links() {
    let Some(_turn) = turn() else { return };
    let mut config = config("verbs", "");
    config.set("RCCL_BUFFSIZE", "0").unwrap();
    for text in on_ranks(2, &config, |comm| {
        let mut x = vec![comm.rank(); COUNT];
        comm.broadcast(&mut x, 0).expect_err("there is no way for these bytes").to_string()
    }) {
        assert!(text.contains("slot"), "{text}");
    }
}

/// How much memory a link pins, and how much that would be with 63 peers.
#[test]
fn a_link_pins_little() {
    let Some(_turn) = turn() else { return };
    if !alone("a_link_pins_little") {
        return;
    }
    // All ranks are in this process, so every link has both ends here.
    const RANKS: usize = 4;
    let ends = RANKS * (RANKS - 1);
    on_ranks(RANKS as u32, &config("verbs", "direct"), move |comm| {
        sum(&comm, COUNT);
        comm.barrier().unwrap();
        if comm.rank() == 0 {
            let pinned = status("VmPin:") / ends;
            let peers = (pinned * 63) as f64 / f64::from(1 << 20);
            let held = held();
            println!(
                "{pinned} bytes pinned by each end of a link, {peers:.1} MiB with 63 peers; {held:?} held"
            );
            // As ARCHITECTURE.md states.
            assert_eq!(pinned, 2_400_256, "bytes pinned by each of {ends} ends of links");
        }
        comm.barrier().unwrap();
    });
}

/// `TEST_COMMUNICATORS` sets another number than 1,000: one in fifty is a job of its own, the others are parts of those.
#[test]
fn nothing_is_left_of_a_thousand_communicators() {
    let Some(_turn) = turn() else { return };
    if !alone("nothing_is_left_of_a_thousand_communicators") {
        return;
    }
    const PARTS: usize = 49;
    let wanted = std::env::var("TEST_COMMUNICATORS").map_or(1000, |n| n.parse().expect("a number"));
    let (nothing, began) = (held(), Instant::now());
    job(2);
    assert_eq!(
        settle(&nothing, held),
        nothing,
        "queue pairs, completion queues, regions, domains, open devices"
    );
    let before = [entries("fd"), entries("task")];
    let mut made = 0;
    while made < wanted {
        job(PARTS);
        made += PARTS + 1;
    }
    assert_eq!(
        settle(&nothing, held),
        nothing,
        "queue pairs, completion queues, regions, domains, open devices"
    );
    let after = settle(&before, || [entries("fd"), entries("task")]);
    println!(
        "{made} communicators in {:.1} s; descriptors, threads: {after:?}",
        began.elapsed().as_secs_f64()
    );
    assert!(after <= before, "descriptors, threads: {before:?}, then {after:?}");
    assert_eq!(status("VmPin:"), 0, "pinned memory");
}

/// A job of two ranks, and `parts` communicators of them one after the other, with real calls on each.
fn job(parts: usize) {
    let config: Config = config("verbs", "");
    let id = UniqueId::create(&config).unwrap();
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let (id, config) = (&id, config.clone());
            scope.spawn(move || {
                let comm = Communicator::builder().unwrap().config(config).connect(id, rank, 2).unwrap();
                sum(&comm, COUNT);
                let mut memory = comm.alloc::<u8>(COUNT).unwrap();
                comm.broadcast(&mut memory, 0).unwrap();
                for _ in 0..parts {
                    let part = comm.duplicate().unwrap();
                    sum(&part, 3);
                    part.broadcast(&mut memory, 1).unwrap();
                    assert!(part.transports().iter().all(|(_, transport, _)| transport == "verbs"));
                }
                assert!(held()[0] >= 2, "nothing is counted");
                comm.finish().unwrap();
            });
        }
    });
}
