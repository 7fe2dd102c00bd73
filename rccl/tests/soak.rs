//! Random programs of 2 to 8 processes, every result compared with what plain arithmetic gives: all collectives and
//! messages, types, operators, lengths from 0 to 4 Mi elements, roots, in place and not, registered and plain memory;
//! blocking, started, in scopes, in groups and raw; on communicators that are split, duplicated, shrunk and dropped on
//! the way; through shared memory, over TCP and mixed; over RDMA, where there are devices, in arrays of at most 64 Ki
//! elements on 2 and 4 ranks.
//!
//! `cargo test` makes 600 calls of each. `RCCL_SOAK=n` makes n, in rounds of at most 500; every round is a job of its own and has
//! a seed, which a failure names. `RCCL_SOAK_SEED` begins with that round: the same calls on the same memory, though not
//! the same timing. `RCCL_SOAK_RANKS` sets the number of ranks.

#[path = "common/devices.rs"]
mod devices;
mod processes;
mod program;

use processes::{Job, join, say, task};
use program::steps::{AT, Program};
use program::stream::Stream;
use std::time::{Duration, Instant};

const SHARE: usize = 600;
const ROUND: usize = 500;
const MOST: usize = 4 << 20;
/// Devices in software are slow.
const MOST_OVER_VERBS: usize = 64 << 10;
/// Longer than a call's own deadline, which names who is missing, and shorter than the test's.
const STUCK: Duration = Duration::from_secs(55);

/// What each rank does; started by the test below.
#[test]
fn rank() {
    let Some(task) = task() else { return };
    let numbers: Vec<u64> = task.split(' ').map(|word| word.parse().expect("a number")).collect();
    let [seed, calls, most] = numbers[..] else { panic!("what is '{task}'?") };
    let before = connections();
    let world = join();
    let rank = world.rank();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let at = AT.try_lock().map_or_else(|_| "?".into(), |at| at.clone());
        eprintln!("RCCL_SOAK_SEED={seed}, rank {rank} at {at}:");
        usual(panic);
    }));
    // Says what this rank does if it does not get on; its test ends it then.
    std::thread::spawn(move || {
        let (mut before, mut since) = (String::new(), Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let now = AT.lock().map_or_else(|poisoned| poisoned.into_inner().clone(), |at| at.clone());
            if now != before {
                (before, since) = (now, Instant::now());
            } else if since.elapsed() > STUCK {
                eprintln!("RCCL_SOAK_SEED={seed}, rank {rank} is stuck at {now}");
                since = Instant::now();
            }
        }
    });
    let mut program = Program::new(world, seed, most as usize);
    let mut said = 0;
    while program.calls < calls as usize {
        program.step();
        if program.calls / 20 > said {
            said = program.calls / 20;
            say(&format!("call {}", program.calls));
        }
    }
    let made = program.calls;
    program.end();
    left_everything(before);
    say(&format!("done {made}"));
}

/// Calls that nobody waits for, on communicators that nobody holds, end by themselves, and then this process leaves the
/// job: of its connections only those are left that it had before.
fn left_everything(before: usize) {
    let end = Instant::now() + STUCK;
    while connections() > before {
        assert!(Instant::now() < end, "calls that were dropped have not ended");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// TCP sockets of this process.
fn connections() -> usize {
    let read = |family| std::fs::read_to_string(format!("/proc/self/net/{family}")).unwrap_or_default();
    let (tcp, tcp6) = (read("tcp"), read("tcp6"));
    let lines = tcp.lines().chain(tcp6.lines());
    let known: Vec<String> =
        lines.filter_map(|line| Some(format!("socket:[{}]", line.split_whitespace().nth(9)?))).collect();
    let entries = std::fs::read_dir("/proc/self/fd").expect("what this process has open");
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| known.iter().any(|socket| target.as_os_str() == socket.as_str())).count()
}

/// What rounds draw from.
struct Choice {
    /// Number of ranks.
    sizes: &'static [usize],
    ways: &'static [&'static str],
    /// Elements of the longest array.
    most: usize,
}

/// Settings of a round: number of ranks, settings of all, whether and how they are spread over hosts.
fn round(choice: &Choice, seed: u64, calls: usize, ranks: Option<usize>) -> usize {
    let mut stream = Stream(seed);
    let drawn = *stream.one_of(choice.sizes);
    let size = ranks.unwrap_or(drawn) as u32;
    let way = *stream.one_of(choice.ways);
    let algorithm = *stream.one_of(&["", "", "", "direct", "ring,chain,pairwise", "^direct"]);
    let copies = if stream.once_in(4) { "1" } else { "0" };
    let hosts = stream.below(2);
    let chunk = *stream.one_of(&["", "", "1K", "8K", "128K"]);
    let mut settings = vec![("RCCL_ALGO", algorithm), ("RCCL_COPY_DISABLE", copies), ("RCCL_TIMEOUT", "50")];
    settings.push(("RCCL_CHUNK_SIZE", chunk));
    if way != "mixed" {
        settings.push(("RCCL_TRANSPORT", way));
    }
    let calls_text = calls.to_string();
    println!(
        "RCCL_SOAK_SEED={seed} RCCL_SOAK={calls_text}: {size} ranks, {way} {hosts}, '{algorithm}', copies off {copies}, chunks '{chunk}'"
    );
    let job = Job::start(size, &format!("{seed} {calls} {}", choice.most), &settings, |rank, command| {
        for name in ["RCCL_SOAK", "RCCL_SOAK_SEED", "RCCL_SOAK_RANKS"] {
            command.env_remove(name);
        }
        if way == "mixed" {
            // By turns, or one rank alone on its host.
            let host = if hosts == 0 { rank % 2 } else { u32::from(rank == 0) };
            command.env("RCCL_HOSTID", format!("host {host}"));
        }
    });
    let mut made = 0;
    for rank in &job.ranks {
        made = loop {
            let line = rank.says_any(&["call", "done"]);
            if let Some(made) = line.strip_prefix("done ") {
                break made.parse().expect("a number");
            }
        };
    }
    let mut job = job;
    assert!(job.end().iter().all(|status| status.success()), "a rank failed at its end");
    assert_eq!(job.left_behind(), Vec::<std::path::PathBuf>::new());
    made
}

#[test]
fn random_programs_give_what_arithmetic_says() {
    let (sizes, ways) = (&[2, 3, 4, 5, 6, 7, 8], &["shm", "tcp", "mixed", "mixed"]);
    soak(&Choice { sizes, ways, most: MOST });
}

#[test]
fn random_programs_give_the_same_over_verbs() {
    if devices::rdma() {
        soak(&Choice { sizes: &[2, 4], ways: &["verbs"], most: MOST_OVER_VERBS });
    }
}

fn soak(choice: &Choice) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let calls = number("RCCL_SOAK").map_or(SHARE, |calls| calls as usize);
    let ranks = number("RCCL_SOAK_RANKS").map(|ranks| ranks as usize);
    let first = number("RCCL_SOAK_SEED").unwrap_or_else(|| rand::random::<u64>() >> 16);
    let (began, mut made, mut seed) = (Instant::now(), 0, first);
    while made < calls {
        made += round(choice, seed, ROUND.min(calls - made), ranks);
        seed += 1;
    }
    println!("{made} calls in {} rounds, {:.1} s", seed - first, began.elapsed().as_secs_f64());
}
