//! A file on a file system that all ranks share: `RCCL_COMM_ID=file:///path`.
//!
//! Rank 0 writes the unique id there and removes the file when the job has been joined. A file that an earlier job left
//! behind must not be taken for ours, so it says whose it is:
//!
//! ```text
//! rccl meeting 1          number of the meeting in the job
//! job train-7             RCCL_JOB_ID, or what the launcher calls the job
//! host 8f0c…/4026531836   boot id and pid namespace of the writer
//! process 4711/8172634    pid and start time of the writer
//! id 52434944…            the unique id
//! ```
//!
//! A file of another job or meeting, or one whose writer lived on this host and is dead, does not count, and is waited
//! over. What an earlier run of the same job left on *another* host cannot be told apart: give such runs different
//! names or files.
//!
//! Without a launcher, `RCCL_SIZE` and the file are enough: the ranks are counted in the order in which they create
//! `path.rank0`, `path.rank1` and so on.

use super::vars::Vars;
use super::{Exchange, Launcher, Placement, Seat, from_hex, next_meeting, to_hex};
use crate::config::{Config, MeetingPlace};
use crate::error::{Error, Result, remedy};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The launcher that counts by arrival.
pub(super) fn detect(config: &Config, _: &Vars) -> Result<Option<Placement>> {
    let (Some(size), Some(MeetingPlace::File(path))) = (config.size, &config.comm_id) else {
        return Ok(None);
    };
    let claim = Claim::first_free(path, size).map_err(|error| Error::Join {
        rank: 0,
        size,
        meeting: path.display().to_string(),
        cause: format!("claiming a rank: {error}"),
        hint: "choose a file in a directory that all ranks may write, and remove what an earlier job left"
            .into(),
    })?;
    let seat = Seat::new(Launcher::File, ["the rank", "RCCL_SIZE"], claim.rank, size, config.local_rank)?;
    let job = config.job_id.as_deref().unwrap_or("");
    let mut meeting = MeetingFile::new(seat, path, job);
    meeting.claim = Some(claim);
    let meeting = if size == 1 { super::Meeting::Alone } else { super::Meeting::Exchange(Box::new(meeting)) };
    let Seat { rank, size, local_rank, launcher } = seat;
    Ok(Some(Placement { rank, size, local_rank, launcher, meeting }))
}

/// The meeting of one job in a file.
#[derive(Debug)]
pub(super) struct MeetingFile {
    seat: Seat,
    path: PathBuf,
    job: String,
    meeting: u32,
    /// Whether this process wrote the file and so removes it.
    written: bool,
    claim: Option<Claim>,
}

impl MeetingFile {
    pub(super) fn new(seat: Seat, path: &Path, job: &str) -> MeetingFile {
        let job = job.replace(char::is_whitespace, "_");
        MeetingFile { seat, path: path.into(), job, meeting: next_meeting(), written: false, claim: None }
    }

    fn failed(&self, doing: &str, cause: impl std::fmt::Display, hint: Option<&str>) -> Error {
        let usual =
            "choose a file in a directory that rank 0 may write and all may read, on storage that all share";
        let hint = hint.unwrap_or(usual);
        self.seat.error(&self.place(), format!("{doing}: {cause}"), hint)
    }

    /// Writes a new file and renames it, so that nobody reads half of it or what was there before.
    fn write(&self, id: &[u8; 128]) -> io::Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".new-{}", std::process::id()));
        let new = PathBuf::from(name);
        let writer = Writer::this_process();
        let text = format!(
            "rccl meeting {}\njob {}\nhost {}\nprocess {}\nid {}\n",
            self.meeting,
            self.job,
            writer.host,
            writer.process,
            to_hex(id)
        );
        // The id holds the job's key: for this user's eyes only.
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&new, &self.path));
        written.inspect_err(|_| drop(fs::remove_file(&new)))
    }

    /// The id, if the file is there and ours; else why not.
    fn read(&self) -> std::result::Result<[u8; 128], String> {
        let text = fs::read_to_string(&self.path).map_err(|error| error.to_string())?;
        let line = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("")
        };
        if line("rccl meeting") != self.meeting.to_string() || line("job") != self.job {
            return Err(format!(
                "it belongs to meeting {} of job `{}`, this is meeting {} of job `{}`",
                line("rccl meeting"),
                line("job"),
                self.meeting,
                self.job
            ));
        }
        let writer = Writer { host: line("host").into(), process: line("process").into() };
        if writer.is_dead() {
            return Err("the process that wrote it has ended".into());
        }
        from_hex(line("id")).ok_or_else(|| "it holds no unique id".into())
    }
}

impl Exchange for MeetingFile {
    fn publish(&mut self, id: &[u8; 128], _: Instant) -> Result<()> {
        self.write(id).map_err(|error| self.failed("writing it", &error, remedy(&error)))?;
        self.written = true;
        Ok(())
    }

    fn fetch(&mut self, deadline: Instant) -> Result<[u8; 128]> {
        let mut pause = Duration::from_millis(5);
        loop {
            let why = match self.read() {
                Ok(id) => return Ok(id),
                Err(why) => why,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.failed("waiting for rank 0 to write it", why, None));
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    fn place(&self) -> String {
        format!("file {}", self.path.display())
    }
}

impl Drop for MeetingFile {
    fn drop(&mut self) {
        // Only what is still ours: a later meeting may have replaced it.
        if self.written && self.read().is_ok() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Who wrote a file, as far as a process of the same host can check it.
struct Writer {
    host: String,
    process: String,
}

impl Writer {
    fn this_process() -> Writer {
        let pid = std::process::id();
        Writer { host: host(), process: format!("{pid}/{}", start_time(pid).unwrap_or_default()) }
    }

    /// Whether it certainly does not run any more. Of other hosts and pid namespaces nothing is certain.
    fn is_dead(&self) -> bool {
        let Some((pid, started)) = self.process.split_once('/') else { return false };
        let Ok(pid) = pid.parse() else { return false };
        self.host == host() && start_time(pid).is_none_or(|time| time != started)
    }
}

/// Boot id and pid namespace: where a pid means the same process.
fn host() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digits: String = space.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    format!("{}/{digits}", boot.trim())
}

/// When a process started, in clock ticks since boot: with the pid it names one process. `None` when it is gone.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may contain anything; starttime is the 22nd.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Lets one process at a time tidy up. `None` where the file system has no such locks, or somebody sits on it.
fn lock_directory_of(meeting: &Path) -> Option<File> {
    use rustix::fs::{FlockOperation, flock};
    let directory = File::open(meeting.parent()?).ok()?;
    let give_up = Instant::now() + Duration::from_secs(5);
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(_) => return None,
        }
    }
}

/// A rank that this process took by creating a file; given back when dropped.
#[derive(Debug)]
struct Claim {
    rank: u32,
    path: PathBuf,
}

impl Claim {
    fn first_free(meeting: &Path, size: u32) -> io::Result<Claim> {
        let lock = lock_directory_of(meeting);
        for rank in 0..size {
            let mut path = meeting.as_os_str().to_owned();
            path.push(format!(".rank{rank}"));
            let path = PathBuf::from(path);
            // Without the lock two processes could both find a dead one's claim, and one remove the other's new one.
            if lock.is_some() && Claim::is_left_behind(&path) {
                fs::remove_file(&path)?;
            }
            if Claim::take(&path)? {
                return Ok(Claim { rank, path });
            }
        }
        Err(io::Error::new(ErrorKind::AlreadyExists, format!("all {size} ranks are taken")))
    }

    fn take(path: &Path) -> io::Result<bool> {
        let writer = Writer::this_process();
        let text = format!("{}\n{}\n", writer.host, writer.process);
        // Linked into place complete: a claim that is only half written would look like one of another host.
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".new-{}-{:?}", std::process::id(), std::thread::current().id()));
        File::create(&new)?.write_all(text.as_bytes())?;
        let taken = match fs::hard_link(&new, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        };
        fs::remove_file(&new)?;
        taken
    }

    fn is_left_behind(path: &Path) -> bool {
        let Ok(text) = fs::read_to_string(path) else { return false };
        let mut lines = text.lines().map(str::to_owned);
        let (host, process) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        Writer { host, process }.is_dead()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Meeting, detect_in};
    use super::*;

    fn seat(rank: u32) -> Seat {
        Seat { rank, size: 2, local_rank: None, launcher: Launcher::Rccl }
    }

    fn reader(root: &MeetingFile, job: &str) -> MeetingFile {
        let mut file = MeetingFile::new(seat(1), &root.path, job);
        file.meeting = root.meeting;
        file
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(60)
    }

    #[test]
    fn the_others_read_what_rank_0_wrote_and_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meet");
        let mut root = MeetingFile::new(seat(0), &path, "job");
        let mut other = reader(&root, "job");
        assert!(other.fetch(soon()).unwrap_err().to_string().contains("No such file"));
        root.publish(&[7; 128], soon()).unwrap();
        assert_eq!(other.fetch(soon()).unwrap(), [7; 128]);
        let mut stranger = reader(&root, "other");
        assert!(stranger.fetch(soon()).unwrap_err().to_string().contains("of job `job`"));
        drop(root);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_dead_process_left_is_waited_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meet");
        let mut root = MeetingFile::new(seat(0), &path, "job");
        root.publish(&[7; 128], soon()).unwrap();
        let mine = Writer::this_process().process;
        let text = fs::read_to_string(&path).unwrap().replace(&mine, &format!("{}/1", std::process::id()));
        fs::write(&path, text).unwrap();
        let mut other = reader(&root, "job");
        assert!(other.fetch(soon()).unwrap_err().to_string().contains("has ended"));
    }

    #[test]
    fn ranks_are_counted_by_arrival() {
        let directory = tempfile::tempdir().unwrap();
        let meeting = format!("file://{}/meet", directory.path().display());
        let config = Config::from_vars([("RCCL_SIZE", "3"), ("RCCL_COMM_ID", &meeting)]).unwrap();
        // A claim of a process that is gone (1/1 never starts at tick 1 with this pid) is taken over.
        let stale = format!("{}\n{}/1\n", host(), std::process::id());
        fs::write(directory.path().join("meet.rank1"), stale).unwrap();
        let arrivals: Vec<_> = std::thread::scope(|scope| {
            let start = || detect_in(&config, &Vars::of(&[])).unwrap();
            let all: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let mut ranks: Vec<u32> = arrivals.iter().map(|placement| placement.rank).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, [0, 1, 2]);
        assert!(arrivals.iter().all(|placement| matches!(placement.meeting, Meeting::Exchange(_))));
        let error = detect_in(&config, &Vars::of(&[])).unwrap_err().to_string();
        assert!(error.contains("all 3 ranks are taken"), "{error}");
        drop(arrivals);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
