//! The ranks of this host, from their start to the last one's end.

use super::again;
use super::environment::Meeting;
use super::output::{Target, copy_lines};
use super::rank::RANK_COMMAND;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::thread::CpuSet;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// How long the others may report what they saw of a rank that failed. rccl names a dead process within a second.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A program to be run as some ranks of a job.
pub struct Job {
    /// The program and its arguments; not empty.
    pub command: Vec<OsString>,
    /// Ranks on this host.
    pub ranks: u32,
    /// Hosts, each with as many ranks.
    pub nodes: u32,
    /// This host's number.
    pub node_rank: u32,
    /// Where the ranks meet.
    pub meeting: Meeting,
    /// When to end the job.
    pub timeout: Option<Duration>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// What happens to the ranks' output.
    pub output: Output,
    /// Whether each rank gets its share of the processors.
    pub bind: bool,
}

/// What happens to the ranks' output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Every line gets `[rank] ` in front.
    Prefixed,
    /// It goes where this process's goes.
    Plain,
}

impl Job {
    /// Runs the ranks and blocks until all of them have ended. Nothing of the job is left behind: each rank leads a
    /// process group, which is killed when the rank has ended, and processes that left their group are found as
    /// orphans.
    ///
    /// Call it from the thread that lives longest, the main one: the ranks die with it. The status is as `rccl run
    /// --help` says.
    pub fn run(self) -> ExitCode {
        // Orphans of the ranks become our children, so that none can hide.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let status = runtime.and_then(|runtime| runtime.block_on(self.supervise()));
        kill_orphans();
        match status {
            Ok(status) => ExitCode::from(status),
            Err(error) => crate::complain(format!("cannot run the ranks: {error}")),
        }
    }

    async fn supervise(&self) -> io::Result<u8> {
        // Before the first rank starts: a signal from now on must reach all of them.
        let mut signals = forwarded_signals()?;
        let mut ranks = Ranks { groups: Vec::new() };
        let mut exits = JoinSet::new();
        let mut outputs = JoinSet::new();
        for local_rank in 0..self.ranks {
            let rank = self.node_rank * self.ranks + local_rank;
            let mut child = match self.start(rank, local_rank) {
                Ok(child) => child,
                Err(error) => {
                    ranks.signal(Signal::KILL);
                    return Err(io::Error::new(error.kind(), format!("rank {rank}: {error}")));
                }
            };
            let pid = child.id().and_then(|pid| Pid::from_raw(pid as i32)).ok_or(io::ErrorKind::NotFound)?;
            ranks.groups.push(pid);
            if let Some(stdout) = child.stdout.take() {
                outputs.spawn(copy_lines(stdout, Target::Stdout, format!("[{rank}] ")));
            }
            if let Some(stderr) = child.stderr.take() {
                outputs.spawn(copy_lines(stderr, Target::Stderr, format!("[{rank}] ")));
            }
            exits.spawn(async move { (rank, pid, child.wait().await) });
        }

        let mut status = 0;
        let mut next = self.timeout.map(|limit| (Instant::now() + limit, Step::TimedOut));
        let mut signalled = false;
        loop {
            let at = next.map_or_else(far_future, |(at, _)| at);
            tokio::select! {
                exit = exits.join_next() => {
                    let Some(exit) = exit else { break };
                    let (rank, pid, result) = exit.map_err(io::Error::other)?;
                    // What the rank itself started ends with it.
                    let _ = kill_process_group(pid, Signal::KILL);
                    ranks.groups.retain(|group| *group != pid);
                    let result = result?;
                    if status == 0 && !result.success() {
                        status = code(result);
                        if !ranks.groups.is_empty() {
                            eprintln!("rccl run: rank {rank} (pid {pid}) {}; ending the others", how(result));
                            next = Some((Instant::now() + LAST_WORDS, Step::Terminate));
                        } else if !signalled {
                            eprintln!("rccl run: rank {rank} (pid {pid}) {}", how(result));
                        }
                    }
                }
                Some(number) = signals.recv() => {
                    // Whoever repeats it is out of patience.
                    let again = std::mem::replace(&mut signalled, true);
                    ranks.signal(if again { Signal::KILL } else { number });
                }
                () = sleep_until(at), if next.is_some() => {
                    let step = next.take().map_or(Step::Kill, |(_, step)| step);
                    if step == Step::TimedOut {
                        eprintln!("rccl run: --timeout has passed; ending all ranks");
                        status = 124;
                    }
                    if step == Step::Kill {
                        ranks.signal(Signal::KILL);
                    } else {
                        ranks.signal(Signal::TERM);
                        next = Some((Instant::now() + self.grace, Step::Kill));
                    }
                }
            }
        }
        // All writers are dead, but for those that left their rank's group: these are killed by the caller.
        let _ = timeout(Duration::from_secs(1), async { while outputs.join_next().await.is_some() {} }).await;
        Ok(status)
    }

    fn start(&self, rank: u32, local_rank: u32) -> io::Result<Child> {
        let size = self.nodes * self.ranks;
        let mut command = Command::from(again::bare()?);
        command.arg(RANK_COMMAND).arg("--parent").arg(std::process::id().to_string());
        if self.bind
            && let Some(share) = share(&usable_processors(), local_rank as usize, self.ranks as usize)
        {
            command.arg("--processors").arg(share);
        }
        command.arg("--").args(&self.command);
        command.envs(self.meeting.variables(rank, size, local_rank, self.ranks));
        // A group of its own, to which signals can be sent with all that the rank starts.
        command.process_group(0).kill_on_drop(true);
        // Rank 0 may be fed through a pipe. A process group in the background that reads a terminal would be stopped.
        let fed = rank == 0 && !io::stdin().is_terminal();
        command.stdin(if fed { Stdio::inherit() } else { Stdio::null() });
        if self.output == Output::Prefixed {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        command.spawn()
    }
}

/// The processors that this process may run on.
fn usable_processors() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None);
    set.map_or_else(|_| Vec::new(), |set| (0..CpuSet::MAX_CPU).filter(|&number| set.is_set(number)).collect())
}

/// Part `part` of `parts` equal ones, as a list: one processor at least, which several parts have where there are fewer
/// processors than parts. `None` if none is known.
fn share(processors: &[usize], part: usize, parts: usize) -> Option<String> {
    let bound = |part| processors.len() * part / parts;
    let end = bound(part + 1).max(bound(part) + 1);
    let numbers: Vec<String> = processors.get(bound(part)..end)?.iter().map(ToString::to_string).collect();
    Some(numbers.join(","))
}

/// What is due at a certain time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    TimedOut,
    Terminate,
    Kill,
}

/// The process groups of the ranks that live.
struct Ranks {
    groups: Vec<Pid>,
}

impl Ranks {
    fn signal(&mut self, signal: Signal) {
        for &group in &self.groups {
            // One that has just ended needs no signal.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// The signals that end a job from outside.
fn forwarded_signals() -> io::Result<mpsc::UnboundedReceiver<Signal>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let kinds = [
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::hangup(), Signal::HUP),
    ];
    for (kind, number) in kinds {
        let mut arrivals = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move { while arrivals.recv().await.is_some() && sender.send(number).is_ok() {} });
    }
    Ok(receiver)
}

/// Kills what was started by the ranks, left their process groups, and so became ours.
fn kill_orphans() {
    // Each generation that dies may leave another; no job has thousands.
    for _ in 0..1000 {
        let path = format!("/proc/self/task/{}/children", std::process::id());
        let Ok(children) = std::fs::read_to_string(path) else { return };
        let children = children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        let mut any = false;
        for child in children {
            any = true;
            let _ = kill_process(child, Signal::KILL);
            let _ = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
        }
        if !any {
            return;
        }
    }
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(1 << 30)
}

fn code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(1),
        (None, signal) => 128 + signal.and_then(|signal| u8::try_from(signal).ok()).unwrap_or(0),
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_shared_evenly() {
        let all: Vec<usize> = vec![0, 1, 4, 5, 8];
        assert_eq!(share(&all, 0, 2).as_deref(), Some("0,1"));
        assert_eq!(share(&all, 1, 2).as_deref(), Some("4,5,8"));
        assert_eq!(share(&all, 4, 5).as_deref(), Some("8"));
        assert_eq!(share(&[2, 7], 1, 4).as_deref(), Some("2"));
        assert_eq!(share(&[2, 7], 3, 4).as_deref(), Some("7"));
        assert_eq!(share(&[], 0, 1), None);
    }
}
