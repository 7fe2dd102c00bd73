//! Who does not belong to the job is told why, and does not disturb it: ranks that exist twice, not at all, or beyond
//! the size, other keys, other settings, and whatever else knocks on the ports.

mod processes;

use processes::{DEADLINE, Job, hear, join, say, task};
use rccl::{Communicator, Config, Error, ReduceOp, UniqueId};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Large enough for several pieces on every link.
const COUNT: usize = 100_000;
/// How a process exits that could not join.
const NOT_JOINED: i32 = 3;

/// What each rank does; started by the tests below.
#[test]
fn rank() {
    let Some(task) = task() else { return };
    say("ready");
    let comm = match task.as_str() {
        "now" => join(),
        "told" => {
            if hear().is_none() {
                return;
            }
            say("joining");
            join()
        }
        "id" => join_by_id(),
        // The root lives in rank 0's process, and lives on to explain a failure to those that come late.
        "stay" => match Communicator::from_env() {
            Ok(comm) => comm,
            Err(error) => {
                say(&format!("not joined: {} {error}", error.code()));
                while hear().is_some() {}
                std::process::exit(NOT_JOINED);
            }
        },
        other => panic!("no task {other}"),
    };
    while hear().is_some() {
        let mut x: Vec<u64> = (0..COUNT as u64).map(|i| i + u64::from(comm.rank())).collect();
        comm.all_reduce(&mut x, ReduceOp::Sum).expect("all_reduce");
        let ranks = u64::from(comm.size());
        let wrong = x.iter().zip(0..).position(|(&x, i)| x != i * ranks + ranks * (ranks - 1) / 2);
        say(&wrong.map_or("right".into(), |at| format!("wrong at {at}")));
    }
    comm.finish().expect("leaving");
}

/// Rank 0 makes an id and says it; the others hear ids until one lets them in.
fn join_by_id() -> Communicator {
    let config = Config::from_env().expect("the settings");
    let (rank, size) = (config.rank.expect("a rank"), config.size.expect("a size"));
    let made = (rank == 0).then(|| UniqueId::create(&config).expect("making an id"));
    if let Some(id) = &made {
        say(&format!("id {id}"));
    }
    loop {
        let id = made.unwrap_or_else(|| {
            let heard = hear().unwrap_or_else(|| std::process::exit(NOT_JOINED));
            heard.parse().expect("an id")
        });
        match Communicator::new(&id, rank, size) {
            Ok(comm) => {
                say("joined");
                return comm;
            }
            Err(error) => say(&format!("not joined: {} {error}", error.code())),
        }
    }
}

/// Has these processes, which are all ranks of their job, call all_reduce.
fn works(job: &mut Job, ranks: &[usize]) {
    ranks.iter().for_each(|&rank| job.ranks[rank].tell("call"));
    for &rank in ranks {
        let line = job.ranks[rank].says_any(&["right", "wrong"]);
        assert_eq!(line, "right", "process {rank}");
    }
}

/// What a process says that could not join; it has the code of the error and all `words`.
fn refused(job: &Job, rank: usize, code: &str, words: &[&str]) -> String {
    let line = job.ranks[rank].says_any(&["not joined", "joined"]);
    eprintln!("process {rank}: {line}");
    let start = format!("not joined: {code} ");
    assert!(line.starts_with(&start), "process {rank}: {code} expected: {line}");
    for word in words {
        assert!(line.contains(word), "process {rank}: `{word}` expected: {line}");
    }
    line
}

/// All processes end by themselves, those in `failed` because they could not join, and leave no file.
fn ends(mut job: Job, failed: &[usize]) {
    for (rank, status) in job.end().into_iter().enumerate() {
        let expected = if failed.contains(&rank) { NOT_JOINED } else { 0 };
        assert_eq!(status.code(), Some(expected), "process {rank}: {status}");
    }
    assert_eq!(job.left_behind(), Vec::<std::path::PathBuf>::new());
}

/// An address that a rank 0 can bind. Below the ports that the system gives to outgoing connections, of which the tests
/// that run meanwhile make many.
fn free_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (std::process::id().wrapping_mul(31) + next) % 18_000;
        if TcpListener::bind(("0.0.0.0", port as u16)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
}

fn pid(job: &Job, rank: usize) -> String {
    format!("pid {}", job.ranks[rank].child.id())
}

/// Starts a process for each pair of rank and size; all meet at `address`.
fn numbered(ranks: &'static [(u32, u32)], task: &str, address: &str, settings: &[(&str, &str)]) -> Job {
    let settings = [&[("RCCL_COMM_ID", address)], settings].concat();
    Job::start(ranks.len() as u32, task, &settings, |process, command| {
        let (rank, size) = ranks[process as usize];
        command.env("RCCL_RANK", rank.to_string()).env("RCCL_SIZE", size.to_string());
    })
}

#[test]
fn a_rank_beyond_the_size_is_an_error_of_that_process_alone() {
    let address = free_address();
    let mut job = numbered(&[(0, 2), (1, 2), (2, 2)], "now", &address, &[]);
    refused(&job, 2, "RCCL-1002", &["RCCL_RANK=2", "RCCL_SIZE=2", "ranks count from 0"]);
    works(&mut job, &[0, 1]);
    ends(job, &[2]);
}

#[test]
fn twins_are_named_to_all() {
    let address = free_address();
    let settings = [("RCCL_INIT_TIMEOUT", "20")];
    let job = numbered(&[(0, 3), (1, 3), (1, 3)], "now", &address, &settings);
    let began = Instant::now();
    for rank in 0..3 {
        refused(
            &job,
            rank,
            "RCCL-1003",
            &[
                "two processes with rank 1",
                &pid(&job, 1),
                &pid(&job, 2),
                "give every process a rank of its own",
            ],
        );
    }
    assert!(began.elapsed() < Duration::from_secs(10), "only after {:?}", began.elapsed());
    ends(job, &[0, 1, 2]);

    // Nothing is in the way of those who do it right at the same address.
    let mut job = numbered(&[(0, 2), (1, 2)], "now", &address, &[]);
    works(&mut job, &[0, 1]);
    ends(job, &[]);
}

#[test]
fn twins_of_rank_0_are_named_to_all() {
    let settings = [("RCCL_INIT_TIMEOUT", "20")];
    let job = numbered(&[(0, 3), (1, 3), (0, 3)], "stay", &free_address(), &settings);
    let began = Instant::now();
    for rank in 0..3 {
        refused(&job, rank, "RCCL-1003", &["two processes with rank 0", &pid(&job, 0), &pid(&job, 2)]);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "only after {:?}", began.elapsed());
    ends(job, &[0, 1, 2]);
}

/// Those that come when the job is complete are told so; the job goes on.
#[test]
fn late_twins_do_not_disturb() {
    let ranks = &[(0, 2), (1, 2), (0, 2), (1, 2), (2, 3)];
    let mut job = numbered(ranks, "told", &free_address(), &[]);
    for rank in [0, 1] {
        job.ranks[rank].tell("join");
    }
    job.ranks[..2].iter().for_each(|rank| drop(rank.says("joined")));
    for late in [2, 3, 4] {
        job.ranks[late].tell("join");
        works(&mut job, &[0, 1]);
    }
    let twins = |rank: usize| format!("two processes with rank {rank}");
    for rank in [0, 1] {
        let words = [&twins(rank), &pid(&job, rank), &pid(&job, rank + 2), "which has joined"];
        refused(&job, rank + 2, "RCCL-1003", &words.map(|word| word as &str));
    }
    refused(&job, 4, "RCCL-1003", &["complete with 2 ranks", &pid(&job, 4), "one too many"]);
    works(&mut job, &[0, 1]);
    ends(job, &[2, 3, 4]);
}

#[test]
fn missing_ranks_are_named_to_those_that_came() {
    const PATIENCE: Duration = Duration::from_secs(3);
    let address = free_address();
    let settings = [("RCCL_INIT_TIMEOUT", "3")];
    let mut job = numbered(&[(0, 5), (1, 5), (2, 5), (3, 5), (4, 5)], "told", &address, &settings);
    job.ranks.iter().for_each(|rank| drop(rank.says("ready")));
    let began = Instant::now();
    [0, 3].into_iter().for_each(|rank| job.ranks[rank].tell("join"));
    for rank in [0, 3] {
        let words = ["2 of 5 ranks arrived", "missing 1, 2, 4", &address, "RCCL_INIT_TIMEOUT"];
        refused(&job, rank, "RCCL-1003", &words);
    }
    let took = began.elapsed();
    assert!(took > PATIENCE / 2 && took < PATIENCE * 3, "{took:?} instead of {PATIENCE:?}");
    ends(job, &[0, 3]);
}

#[test]
fn ranks_that_disagree_about_the_size_are_named() {
    let job = numbered(&[(0, 3), (1, 3), (2, 4)], "stay", &free_address(), &[]);
    let began = Instant::now();
    for rank in 0..3 {
        let line = refused(
            &job,
            rank,
            "RCCL-1003",
            &["disagree about the size", "start all ranks with the same size"],
        );
        assert!(line.contains("says 3") && line.contains("says 4"), "{line}");
        assert!(line.contains(&format!("{})", pid(&job, 2))), "the one that differs is not named: {line}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "only after {:?}", began.elapsed());
    ends(job, &[0, 1, 2]);
}

/// Starts ranks that join by an id, which is returned; rank 0 waits for the others.
fn by_id(size: u32, settings: &[(&str, &str)]) -> (Job, UniqueId) {
    let job = Job::start(size, "id", settings, |_, _| {});
    let (_, line) = job.ranks[0].says("id ");
    let id = line["id ".len()..].parse().expect("an id");
    (job, id)
}

#[test]
fn an_id_with_another_key_is_refused_and_the_right_one_still_joins() {
    let (mut job, id) = by_id(3, &[]);
    let mut bytes = id.to_bytes();
    // Where the key is.
    bytes[8..24].copy_from_slice(&rand::random::<[u8; 16]>());
    let other = UniqueId::from_bytes(bytes).expect("an id");
    for rank in [1, 2, 1] {
        job.ranks[rank].tell(&other.to_string());
        let line = refused(&job, rank, "RCCL-1003", &["the key does not match", "the same unique id"]);
        for id in [id, other] {
            assert!(!line.contains(&id.to_string()[16..48]), "it shows a key: {line}");
        }
    }
    // The same processes, which are as good as before.
    [1, 2].into_iter().for_each(|rank| job.ranks[rank].tell(&id.to_string()));
    let mut job = job.joined();
    works(&mut job, &[0, 1, 2]);
    // When all have joined it is the same.
    let error = Communicator::new(&other, 1, 3).map(drop).expect_err("another key");
    assert!(matches!(error, Error::Join { rank: 1, size: 3, .. }), "{error:?}");
    assert!(error.to_string().contains("the key does not match"), "{error}");
    works(&mut job, &[0, 1, 2]);
    ends(job, &[]);
}

#[test]
fn another_key_in_a_variable_is_refused_and_the_right_one_still_joins() {
    let keys = ["00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"];
    let address = free_address();
    let mut job =
        Job::start(3, "told", &[("RCCL_COMM_ID", &address), ("RCCL_SIZE", "2")], |process, command| {
            // Process 2 is another that wants to be rank 1.
            command.env("RCCL_RANK", process.min(1).to_string());
            command.env("RCCL_KEY", keys[usize::from(process == 2)]);
        });
    [0, 2].into_iter().for_each(|rank| job.ranks[rank].tell("join"));
    let line = refused(&job, 2, "RCCL-1003", &["the key does not match", "RCCL_KEY", &address]);
    assert!(keys.iter().all(|key| !line.contains(key)), "it shows a key: {line}");
    job.ranks[1].tell("join");
    works(&mut job, &[0, 1]);
    ends(job, &[2]);
}

/// The TCP ports that the process listens on.
fn ports_of(pid: u32) -> BTreeSet<u16> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a running process");
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let sockets: BTreeSet<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    let port = |line: &str| {
        const LISTENS: &str = "0A";
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let ours = *state == LISTENS && sockets.contains(&format!("socket:[{inode}]"));
        ours.then(|| u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()).flatten()
    };
    tables.iter().flatten().flat_map(|table| table.lines().filter_map(port)).collect()
}

/// Connections that say nothing, or stop in the middle.
type Silent = Vec<TcpStream>;

/// Everything that knocks on a port without being a rank of the job with this number. `at_once`: who says something
/// wrong is answered at once, as the root does; else the connection may wait, as until a rank has joined.
fn knock(port: u16, job: &[u8], at_once: bool, silent: &mut Silent) {
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a port that is listened on");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
        stream
    };
    // A hello as a rank's, up to the proof: magic, version 1, control, rank 1 to the root.
    let hello = [b"RCCL\x01\x00\x01\x00\x01\x00\x00\x00\xff\xff\xff\xff", job, &[7; 40]].concat();
    drop(connect());
    for words in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        (0..4096_u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect(),
        [b"RCCL\x63\x00".to_vec(), vec![0; 58]].concat(),
        [&hello[..], &[9; 32]].concat(),
    ] {
        let mut stream = connect();
        // The other end may close before it has read everything.
        let _ = stream.write_all(&words);
        if at_once {
            assert!(closes(&mut stream), "port {port} keeps a stranger that said {}", words.escape_ascii());
        } else {
            silent.push(stream);
        }
    }
    silent.push(connect());
    for begun in [&hello[..4], &hello[..30], &hello] {
        let mut stream = connect();
        stream.write_all(begun).expect("some bytes");
        silent.push(stream);
    }
}

/// Whether the other end closes the connection, whatever it says before.
fn closes(stream: &mut TcpStream) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        match stream.read(&mut [0; 256]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
    false
}

fn strangers_on_every_port(transport: &str) {
    let (mut job, id) = by_id(3, &[("RCCL_TRANSPORT", transport)]);
    let bytes = id.to_bytes();
    let number = &bytes[24..32];
    let root = u16::from_le_bytes([bytes[6], bytes[7]]);
    let mut silent = Silent::new();
    let everywhere = |job: &Job, silent: &mut Silent| {
        let ports: BTreeSet<u16> = job.ranks.iter().flat_map(|rank| ports_of(rank.child.id())).collect();
        eprintln!("{transport}: the ranks listen on {ports:?}");
        assert!(ports.contains(&root), "{ports:?} without {root}");
        ports.into_iter().for_each(|port| knock(port, number, port == root, silent));
    };

    // Before anybody else joins, and between the second and the third rank.
    everywhere(&job, &mut silent);
    job.ranks[1].tell(&id.to_string());
    everywhere(&job, &mut silent);
    job.ranks[2].tell(&id.to_string());
    let mut job = job.joined();
    // Before the first call, which makes the links; after it, and during others.
    everywhere(&job, &mut silent);
    works(&mut job, &[0, 1, 2]);
    everywhere(&job, &mut silent);
    for _ in 0..20 {
        job.ranks.iter_mut().for_each(|rank| rank.tell("call"));
    }
    everywhere(&job, &mut silent);
    for rank in &job.ranks {
        for _ in 0..20 {
            assert_eq!(rank.says_any(&["right", "wrong"]), "right");
        }
    }
    // Nobody keeps a connection for those who do not say who they are.
    for stream in &mut silent {
        assert!(closes(stream), "a silent connection is kept: {stream:?}");
    }
    works(&mut job, &[0, 1, 2]);
    ends(job, &[]);
}

#[test]
fn strangers_do_not_disturb_a_job_over_tcp() {
    strangers_on_every_port("tcp");
}

#[test]
fn strangers_do_not_disturb_a_job_through_shared_memory() {
    strangers_on_every_port("shm");
}

/// Rank 1 of two, at an address where no root is, with two seconds to join.
fn without_a_root(address: &str, words: &[&str]) {
    let settings = [("RCCL_INIT_TIMEOUT", "2")];
    let mut job = numbered(&[(1, 2)], "told", address, &settings);
    job.ranks[0].says("ready");
    let began = Instant::now();
    job.ranks[0].tell("join");
    let line = refused(&job, 0, "RCCL-1003", &["rank 1 of 2", address]);
    assert!(words.iter().all(|word| line.contains(word)), "{words:?} expected: {line}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?} instead of 2 s", began.elapsed());
    ends(job, &[0]);
}

#[test]
fn a_root_that_nobody_started_is_an_error() {
    without_a_root(&free_address(), &["Connection refused", "is the root running", "firewall"]);
}

#[test]
fn another_program_at_the_address_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    // Its connections stay open in the backlog: somebody listens and never says anything.
    without_a_root(&address, &["no answer within 2.0 s", "firewall"]);

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n");
            kept.push(stream);
        }
    });
    without_a_root(&address, &["SSH-", "another program listens there", "choose another port"]);
}

#[test]
fn an_id_whose_maker_has_ended_is_an_error() {
    let (mut job, id) = by_id(2, &[]);
    job.ranks[0].kill();
    let began = Instant::now();
    job.ranks[1].tell(&id.to_string());
    refused(&job, 1, "RCCL-1003", &["Connection refused", "has ended", "make a new id"]);
    // Not only after the time to join, which is 30 s here: nobody else can listen there.
    assert!(began.elapsed() < Duration::from_secs(10), "only after {:?}", began.elapsed());
}

#[test]
fn unknown_words_in_settings_name_the_known_ones() {
    for (name, value, words) in [
        ("RCCL_ALGO", "ring,trea", ["ring, tree, doubling", "not `trea`", "did you mean `tree`?"]),
        ("RCCL_ALGO", "gaffer:ring", ["all_reduce, reduce", "before `:`", "not `gaffer`"]),
        ("RCCL_TRANSPORT", "rdma", ["one of", "shm", "tcp"]),
        ("RCCL_TRANSPORT", "shm,", ["one of", "shm", "tcp"]),
    ] {
        let wrong = |process: u32, command: &mut Command| {
            if process == 1 {
                command.env(name, value);
            }
        };
        let began = Instant::now();
        let job = Job::start(2, "now", &[("RCCL_INIT_TIMEOUT", "2")], wrong);
        let line = refused(&job, 1, "RCCL-1002", &words);
        assert!(line.contains(&format!("{name}={value}: expected ")), "{line}");
        refused(
            &job,
            0,
            "RCCL-1003",
            &["1 of 2 ranks arrived", "missing 1", "look at those ranks' own output"],
        );
        ends(job, &[0, 1]);
        assert!(began.elapsed() < DEADLINE);
    }
}
