//! Ranks that are processes of their own: they can be killed and stopped.

use super::*;
use rustix::process::{Signal, WaitOptions, waitpid};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;

/// `rank size id` for a process that this test binary starts as a rank; the id may be `new`.
const ROLE: &str = "RCCL_TEST_RANK";

/// Does nothing but in the processes that the other tests start: joins, says so, and waits for a failure or for the
/// end of its input.
#[test]
fn process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let [rank, size, id] = role.split(' ').collect::<Vec<_>>()[..] else { panic!("{role}") };
    let id = match id {
        "new" => UniqueId::create(&Config::default()).unwrap(),
        id => id.parse().unwrap(),
    };
    println!("\nid {id}");
    let meeting = Meeting::Id(id);
    let mut config = config();
    config.set("RCCL_SILENCE_WARN", "1").unwrap();
    config.set("RCCL_SILENCE_FATAL", "2").unwrap();
    let options = JoinOptions::new(&config, RegionTable::new());
    let rank = Control::join(&meeting, rank.parse().unwrap(), size.parse().unwrap(), options).unwrap();
    println!("joined");
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        let _ = ended.send(());
    });
    loop {
        if let Some(failure) = rank.failure() {
            return println!("failed: {failure}");
        }
        match end.recv_timeout(Duration::from_millis(5)) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return rank.goodbye(),
        }
    }
}

/// A rank in a process; killed when dropped.
struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    fn start(id: &str, rank: u32, size: u32) -> Process {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "control::tests::processes::process", "--nocapture", "--test-threads=1"])
            .env(ROLE, format!("{rank} {size} {id}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = mpsc::channel();
        thread::spawn(move || {
            output.lines().map_while(|line| line.ok()).try_for_each(|line| said.send(line))
        });
        Process { child, lines }
    }

    /// The next line that begins with `word`.
    fn says(&self, word: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with(word) => return line,
                Ok(_) => {}
                Err(_) => panic!("no '{word}' within {limit:?}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        if signal == Signal::STOP {
            // A thread that runs goes on for a moment; the system says when none does any more.
            let stopped = || {
                let options = WaitOptions::UNTRACED | WaitOptions::NOHANG;
                waitpid(Some(pid), options).unwrap().is_some_and(|(_, status)| status.stopped())
            };
            until(Duration::from_secs(10), stopped);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This process is rank 0 and the root, the others are processes.
fn job_of_processes(size: u32) -> (Control, Vec<Process>) {
    let id = UniqueId::create(&Config::default()).unwrap();
    let processes: Vec<Process> = (1..size).map(|rank| Process::start(&id.to_string(), rank, size)).collect();
    let silence = Silence { warn: Duration::from_secs(1), fatal: Duration::from_secs(2) };
    let zero = Control::join(&Meeting::Id(id), 0, size, JoinOptions { silence, ..options() }).unwrap();
    for process in &processes {
        process.says("joined", Duration::from_secs(30));
    }
    (zero, processes)
}

#[test]
fn a_killed_process_is_named_within_a_second() {
    let (zero, processes) = job_of_processes(4);
    processes[1].signal(Signal::KILL);
    until(Duration::from_secs(1), || zero.failed());
    let expected = format!("pid {}) exited without goodbye", processes[1].child.id());
    assert!(zero.failure().unwrap().to_string().contains(&expected), "{}", zero.failure().unwrap());
    for other in [0, 2] {
        let line = processes[other].says("failed", Duration::from_secs(1));
        assert!(line.contains("rank 2 (") && line.contains(&expected), "{line}");
    }
}

#[test]
fn a_stopped_process_is_given_up_and_named() {
    let (zero, processes) = job_of_processes(3);
    processes[0].signal(Signal::STOP);
    let line = processes[1].says("failed", Duration::from_secs(6));
    assert!(line.contains("rank 1 (") && line.contains("has been silent for"), "{line}");
    assert!(zero.failed());
}

#[test]
fn the_death_of_the_root_is_noticed_by_all() {
    let root = Process::start("new", 0, 3);
    let id: UniqueId = root.says("id ", Duration::from_secs(10))[3..].parse().unwrap();
    let two = Process::start(&id.to_string(), 2, 3);
    let one = Control::join(&Meeting::Id(id), 1, 3, options()).unwrap();
    let (with_root, without) = (one.child(1, &[1, 0]).unwrap(), one.child(2, &[1]).unwrap());
    two.says("joined", Duration::from_secs(30));
    root.signal(Signal::KILL);
    until(Duration::from_secs(1), || one.failed());
    let expected = format!("pid {}) (the root) exited without goodbye; seen by every rank", root.child.id());
    let failure = one.failure().unwrap().to_string();
    assert!(failure.contains("rank 0 (") && failure.contains(&expected), "{failure}");
    until(Duration::from_secs(1), || with_root.failed() && without.failed());
    let named = |child: &Control| child.failure().unwrap().to_string();
    assert!(named(&with_root).contains("rank 1 (") && named(&with_root).contains(&expected));
    assert!(named(&without).contains("the root process (") && named(&without).contains(&expected));
    assert!(two.says("failed", Duration::from_secs(1)).contains(&failure));
}

/// A rank that hears late of the root's death may first see a link break, or a peer leave that has heard already.
#[test]
fn what_follows_from_the_death_of_the_root_is_not_blamed() {
    for left in [true, false] {
        let root = Process::start("new", 0, 3);
        let id: UniqueId = root.says("id ", Duration::from_secs(10))[3..].parse().unwrap();
        let two = Process::start(&id.to_string(), 2, 3);
        let one = Control::join(&Meeting::Id(id), 1, 3, options()).unwrap();
        two.says("joined", Duration::from_secs(30));
        // It decides nothing any more.
        root.signal(Signal::STOP);
        if left {
            one.0.shared.station.command(crate::control::links::left(&one.0.shared, 2, 1));
        } else {
            one.report_link_lost(2, "tcp", Some(1), "connection reset");
        }
        thread::sleep(Duration::from_millis(50));
        root.signal(Signal::KILL);
        until(Duration::from_secs(1), || one.failed());
        let failure = one.failure().unwrap();
        assert!(matches!(&*failure, Failure::PeerLost { member, .. } if member.rank == 0), "{failure}");
    }
}

#[test]
fn a_root_that_says_goodbye_fails_nobody() {
    let (zero, processes) = job_of_processes(3);
    drop(zero);
    thread::sleep(Duration::from_millis(200));
    for mut process in processes {
        drop(process.child.stdin.take());
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(status) = process.child.try_wait().unwrap() {
                assert!(status.success());
                break;
            }
            assert!(Instant::now() < end, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(!process.lines.try_iter().any(|line| line.starts_with("failed")));
    }
}
