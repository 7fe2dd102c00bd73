//! Ranks as processes of their own: the test binary, started again.
//!
//! A test file that uses this has a test named `rank`, which does nothing unless [`task`] gives it something to do.
#![allow(dead_code)]

use rccl::{Communicator, Error, Failure};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// No step of these tests takes this long; one that does hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// What a started process is to do.
const TASK: &str = "TEST_TASK";

/// In a process that a [`Job`] started: what it is to do.
pub fn task() -> Option<String> {
    std::env::var(TASK).ok()
}

/// In a rank: says `line` to the test.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).expect("the test reads what its ranks say");
    out.flush().expect("the test reads what its ranks say");
}

/// In a rank: waits for the next line that the test sends; `None` when there will be no more.
pub fn hear() -> Option<String> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).expect("reading what the test says");
    (read > 0).then(|| line.trim().to_owned())
}

/// In a rank: joins by the environment that the job gave it, and says so.
pub fn join() -> Communicator {
    let comm = Communicator::from_env().unwrap_or_else(|error| {
        say(&format!("not joined: {} {error}", error.code()));
        std::process::exit(3);
    });
    say("joined");
    comm
}

/// In a rank: says how a call failed.
pub fn say_failed(error: &Error) {
    match error.failure() {
        Some(Failure::PeerLost { member, .. }) => say(&format!("lost {} | {error}", member.rank)),
        _ => say(&format!("failed {} | {error}", error.code())),
    }
}

/// Some processes, with a directory of their own for everything that they leave on disk.
pub struct Job {
    pub ranks: Vec<Process>,
    runtime: tempfile::TempDir,
    _meeting: tempfile::TempDir,
}

/// A rank in a process; killed when dropped.
pub struct Process {
    pub child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<(Instant, String)>,
    rank: u32,
}

impl Job {
    /// Starts `size` ranks that do `task` with these settings; `more` adds to the settings of one rank.
    pub fn start(size: u32, task: &str, settings: &[(&str, &str)], more: impl Fn(u32, &mut Command)) -> Job {
        let runtime = tempfile::tempdir().expect("a temporary directory");
        let meeting = tempfile::tempdir().expect("a temporary directory");
        let start = |rank: u32| {
            let mut command = Command::new(std::env::current_exe().expect("this program's path"));
            command.args(["--exact", "rank", "--nocapture", "--test-threads=1"]);
            command.env(TASK, task).env("XDG_RUNTIME_DIR", runtime.path());
            command.env("RCCL_RANK", rank.to_string()).env("RCCL_SIZE", size.to_string());
            command.env("RCCL_COMM_ID", format!("file://{}/meet", meeting.path().display()));
            command.env("RCCL_INIT_TIMEOUT", "30").env("RCCL_TIMEOUT", "30");
            command.envs(settings.iter().copied());
            more(rank, &mut command);
            Process::start(command, rank)
        };
        let ranks = (0..size).map(start).collect();
        Job { ranks, runtime, _meeting: meeting }
    }

    /// Waits until all ranks have joined.
    pub fn joined(self) -> Job {
        self.ranks.iter().for_each(|rank| drop(rank.says("joined")));
        self
    }

    /// Ends the ranks' input, and waits until all of them have ended.
    pub fn end(&mut self) -> Vec<ExitStatus> {
        self.ranks.iter_mut().for_each(|rank| rank.input = None);
        self.ranks.iter_mut().map(Process::ended).collect()
    }

    /// The files in the runtime directory.
    pub fn left_behind(&self) -> Vec<PathBuf> {
        files(self.runtime.path())
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the runtime directory");
    let paths = entries.map(|entry| entry.expect("an entry of the runtime directory").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

impl Process {
    fn start(mut command: Command, rank: u32) -> Process {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starting a rank");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (said, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| said.send((Instant::now(), line)))
        });
        Process { child, input, lines, rank }
    }

    /// The next line that begins with `word`, and when it was said.
    ///
    /// # Panics
    /// When there is none within [`DEADLINE`], or the process says that it failed.
    pub fn says(&self, word: &str) -> (Instant, String) {
        self.find(|line| line.starts_with(word), word)
    }

    fn find(&self, wanted: impl Fn(&str) -> bool, word: &str) -> (Instant, String) {
        let end = Instant::now() + DEADLINE;
        let mut others = Vec::new();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((when, line)) if wanted(&line) => return (when, line),
                Ok((_, line)) => others.push(line),
                Err(error) => {
                    panic!("rank {} did not say '{word}' ({error}), but:\n{}", self.rank, others.join("\n"))
                }
            }
        }
    }

    /// The next line that begins with one of `words`.
    ///
    /// # Panics
    /// As [`Process::says`].
    pub fn says_any(&self, words: &[&str]) -> String {
        self.find(|line| words.iter().any(|word| line.starts_with(word)), &words.join("' or '")).1
    }

    /// Sends a line to the process.
    pub fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(format!("{line}\n").as_bytes()).expect("the rank listens");
    }

    /// Ends it with SIGKILL; returns when that was.
    pub fn kill(&mut self) -> Instant {
        let now = Instant::now();
        self.child.kill().expect("killing a rank");
        self.child.wait().expect("a killed process ends");
        now
    }

    fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waiting for a rank") {
                return status;
            }
            assert!(Instant::now() < end, "rank {} does not end", self.rank);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
