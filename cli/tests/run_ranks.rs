//! `rccl run` with real processes.

use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn rccl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rccl"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str], script: &str) -> Output {
    // A deadline of its own, far above what any test takes.
    let mut all = vec!["run", "--timeout", "40"];
    all.extend(arguments);
    all.extend(["--", "sh", "-c", script]);
    rccl(&all).output().unwrap()
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Whether a process runs; a zombie does not.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn ranks_know_who_they_are_and_lines_are_prefixed() {
    let output = run(
        &["-n", "2"],
        "echo $RCCL_RANK/$RCCL_SIZE $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR; \
         test $RCCL_COMM_ID != $MASTER_ADDR:$MASTER_PORT && test ${#RCCL_KEY} = 32 && printf unfinished; echo err >&2",
    );
    assert!(output.status.success(), "{output:?}");
    let expected =
        ["[0] 0/2 0/2 0/2 127.0.0.1", "[0] unfinished", "[1] 1/2 1/2 1/2 127.0.0.1", "[1] unfinished"];
    assert_eq!(lines(&output.stdout), expected);
    assert_eq!(lines(&output.stderr), ["[0] err", "[1] err"]);
}

#[test]
fn lines_of_ranks_never_mix() {
    let output = run(
        &["-n", "4"],
        "for i in 1 2 3 4 5 6 7 8; do printf \"$RANK$RANK\"; printf \"$RANK$RANK\\n\"; done",
    );
    let lines = lines(&output.stdout);
    assert_eq!(lines.len(), 32);
    assert!(lines.iter().all(|line| line[4..] == line[1..2].repeat(4)), "{lines:?}");
}

#[test]
fn several_hosts_share_one_numbering() {
    let arguments = ["-n", "2", "--nodes", "2", "--node-rank", "1", "--rendezvous", "[fd00::1]:4000"];
    let output =
        run(&arguments, "echo $RCCL_RANK/$RCCL_SIZE $LOCAL_RANK $RCCL_COMM_ID $MASTER_ADDR $MASTER_PORT");
    let expected = ["[2] 2/4 0 [fd00::1]:4000 fd00::1 4001", "[3] 3/4 1 [fd00::1]:4000 fd00::1 4001"];
    assert_eq!(lines(&output.stdout), expected, "{output:?}");
    let refused = rccl(&["run", "-n", "2", "--nodes", "2", "--", "true"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--rendezvous"));
}

#[test]
fn the_first_failing_rank_ends_all_and_gives_the_status() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let start = Instant::now();
    let script =
        format!("sleep 100 & echo $! >> {0}; test $RANK = 1 && sleep 0.3 && exit 7; wait", pids.display());
    let output = run(&["-n", "3"], &script);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(start.elapsed() < Duration::from_secs(20));
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(report.contains("rank 1 (pid") && report.contains("exited with status 7"), "{report}");
    let pids = text(&pids);
    assert_eq!(pids.lines().count(), 3);
    assert!(!pids.lines().any(is_alive), "children of the ranks live on");
}

#[test]
fn a_signal_becomes_128_and_its_number_and_deaf_ranks_are_killed() {
    let output =
        run(&["-n", "2", "--grace", "300ms"], "trap '' TERM; test $RANK = 0 && kill -KILL $$; sleep 100");
    assert_eq!(output.status.code(), Some(128 + 9), "{output:?}");
}

#[test]
fn a_process_that_leaves_its_group_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}; exec sleep 100' & while ! test -s {0}; do sleep 0.02; done",
        pid.display()
    );
    let output = run(&["-n", "1"], &script);
    assert!(output.status.success(), "{output:?}");
    assert!(!is_alive(&text(&pid)));
}

#[test]
fn a_job_that_takes_too_long_is_ended() {
    let output = rccl(&["run", "-n", "2", "--timeout", "300ms", "--", "sleep", "100"]).output().unwrap();
    assert_eq!(output.status.code(), Some(124), "{output:?}");
}

/// Starts ranks that write their pids, and waits until both have.
fn start_sleepers(pids: &Path, script: &str) -> Child {
    let script = format!("echo $$ >> {0}; {script}", pids.display());
    let child = rccl(&["run", "-n", "2", "--", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the ranks start", || text(pids).lines().count() == 2);
    child
}

/// Not by the command, which a small system does not have.
fn send(signal: Signal, pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

#[test]
fn signals_are_passed_on() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let mut child = start_sleepers(&pids, "trap 'echo goodbye; exit 3' TERM; sleep 100 & wait");
    // A shell may be signalled between its first line and its trap.
    std::thread::sleep(Duration::from_millis(300));
    send(Signal::TERM, child.id());
    let status = child.wait().unwrap();
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    assert_eq!(status.code(), Some(3));
    assert_eq!(lines(stdout.as_bytes()), ["[0] goodbye", "[1] goodbye"]);
}

#[test]
fn ranks_do_not_outlive_a_killed_parent() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let mut child = start_sleepers(&pids, "exec sleep 100");
    send(Signal::KILL, child.id());
    child.wait().unwrap();
    wait_until("the ranks end", || !text(&pids).lines().any(is_alive));
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let output = rccl(&["run", "-n", "1", "--", "/no/such/program"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/program"), "{output:?}");
}
