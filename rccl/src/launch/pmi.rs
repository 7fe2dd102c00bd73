//! PMI-1: MPICH's `mpiexec` and `srun --mpi=pmi2`, which speaks it too.
//!
//! The process manager listens on an inherited descriptor, `PMI_FD`. Requests and answers are lines of `name=value`:
//!
//! ```text
//! cmd=init pmi_version=1 pmi_subversion=1      cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0
//! cmd=get_maxes                                cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=1024
//! cmd=get_my_kvsname                           cmd=my_kvsname kvsname=kvs_25643_0
//! cmd=put kvsname=K key=rccl-1 value=HEX       cmd=put_result rc=0 msg=success
//! cmd=barrier_in                               cmd=barrier_out             (when all ranks are in)
//! cmd=get kvsname=K key=rccl-1                 cmd=get_result rc=0 value=HEX
//! ```
//!
//! `cmd=finalize` is said when the process exits, see [`at_exit`](crate::at_exit): the manager closes the descriptor after
//! it, and kills the job when it is missing (both tried). `init` is said once: Slurm does not understand a
//! second one (tried).

use super::vars::Vars;
use super::{Exchange, Launcher, Meeting, Placement, Seat, from_hex, next_meeting, to_hex};
use crate::at_exit::at_exit;
use crate::config::Config;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(super) fn detect(config: &Config, vars: &Vars) -> Result<Option<Placement>> {
    let (Some(fd), Some(rank), Some(size)) =
        (vars.number("PMI_FD")?, vars.number("PMI_RANK")?, vars.number("PMI_SIZE")?)
    else {
        return Ok(None);
    };
    let local = ["MPI_LOCALRANKID", "SLURM_LOCALID"].into_iter().find_map(|name| vars.hint(name));
    let seat = Seat::new(Launcher::Pmi, ["PMI_RANK", "PMI_SIZE"], rank, size, config.local_rank.or(local))?;
    let job = ["PMI_JOBID", "SLURM_JOB_ID"].into_iter().find_map(|name| vars.text(name)).unwrap_or("");
    let placement = seat.meet(config, job, |seat| {
        let stream = inherited(fd).map_err(|error| failed(seat, &format!("PMI_FD={fd}"), &error))?;
        Ok(Meeting::Exchange(Box::new(Manager { seat, stream: File::from(stream), unread: Vec::new() })))
    });
    placement.map(Some)
}

/// A descriptor of our own for what the launcher left open.
fn inherited(fd: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the borrow lives for the one call below, which only hands the number to the kernel: a descriptor that is
    // closed, or never was, is answered with EBADF, and none is closed or taken over here.
    let launchers = unsafe { BorrowedFd::borrow_raw(number) };
    launchers.try_clone_to_owned()
}

/// A conversation with the process manager.
#[derive(Debug)]
struct Manager {
    seat: Seat,
    stream: File,
    unread: Vec<u8>,
}

impl Manager {
    /// The name of the job's key-value space.
    fn space(&mut self, deadline: Instant) -> io::Result<String> {
        self.greet(deadline)?;
        let maxes = self.ask("get_maxes", "maxes", deadline)?;
        let longest: usize = field(&maxes, "vallen_max").and_then(|text| text.parse().ok()).unwrap_or(0);
        if longest <= 256 {
            return Err(io::Error::other(format!(
                "its values have at most {longest} bytes, and 257 are needed"
            )));
        }
        let space = self.ask("get_my_kvsname", "my_kvsname", deadline)?;
        field(&space, "kvsname").map(str::to_owned).ok_or_else(|| unexpected(&space))
    }

    /// Says hello, the first time, and promises to say goodbye.
    fn greet(&mut self, deadline: Instant) -> io::Result<()> {
        static GREETED: Mutex<bool> = Mutex::new(false);
        let mut greeted = GREETED.lock().unwrap_or_else(PoisonError::into_inner);
        if *greeted {
            return Ok(());
        }
        self.ask("init pmi_version=1 pmi_subversion=1", "response_to_init", deadline)?;
        *greeted = true;
        let (seat, stream) = (self.seat, self.stream.try_clone()?);
        at_exit(Box::new(move || {
            let mut manager = Manager { seat, stream, unread: Vec::new() };
            // An MPI library in this program may have said it before; then nobody listens.
            let _ = manager.ask("finalize", "finalize_ack", Instant::now() + Duration::from_secs(1));
        }));
        Ok(())
    }

    fn try_publish(&mut self, id: &[u8; 128], deadline: Instant) -> io::Result<()> {
        let space = self.space(deadline)?;
        let put = format!("put kvsname={space} key=rccl-{} value={}", next_meeting(), to_hex(id));
        self.ask(&put, "put_result", deadline)?;
        self.ask("barrier_in", "barrier_out", deadline).map(drop)
    }

    fn try_fetch(&mut self, deadline: Instant) -> io::Result<[u8; 128]> {
        let space = self.space(deadline)?;
        self.ask("barrier_in", "barrier_out", deadline)?;
        let get = format!("get kvsname={space} key=rccl-{}", next_meeting());
        let answer = self.ask(&get, "get_result", deadline)?;
        field(&answer, "value").and_then(from_hex).ok_or_else(|| unexpected(&answer))
    }

    /// One request and its answer.
    fn ask(&mut self, request: &str, answer: &str, deadline: Instant) -> io::Result<String> {
        self.send(format!("cmd={request}\n").as_bytes())?;
        let line = self.line(deadline)?;
        let good = field(&line, "cmd") == Some(answer) && field(&line, "rc").is_none_or(|rc| rc == "0");
        if good { Ok(line) } else { Err(unexpected(&line)) }
    }

    /// A manager that is gone must not kill this process by SIGPIPE.
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.stream, bytes, rustix::net::SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(rustix::io::Errno::INTR) => {}
                // Some managers use a pipe.
                Err(rustix::io::Errno::NOTSOCK) => return self.stream.write_all(bytes),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn line(&mut self, deadline: Instant) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line = self.unread.drain(..=end).collect::<Vec<u8>>();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.await_bytes(deadline)?;
            let mut buffer = [0; 1024];
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
                read => self.unread.extend_from_slice(&buffer[..read]),
            }
        }
    }

    fn await_bytes(&self, deadline: Instant) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer before the deadline"));
            }
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&left)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Exchange for Manager {
    fn publish(&mut self, id: &[u8; 128], deadline: Instant) -> Result<()> {
        self.try_publish(id, deadline).map_err(|error| failed(self.seat, "publishing the unique id", &error))
    }
    fn fetch(&mut self, deadline: Instant) -> Result<[u8; 128]> {
        self.try_fetch(deadline).map_err(|error| failed(self.seat, "waiting for rank 0's unique id", &error))
    }
    fn place(&self) -> String {
        "the process manager at PMI_FD".into()
    }
}

fn failed(seat: Seat, doing: &str, error: &io::Error) -> Error {
    seat.error(
        "the process manager at PMI_FD",
        format!("{doing}: {error}"),
        "all ranks of the job must join, and PMI_FD must not have been closed; or set RCCL_COMM_ID=host:port",
    )
}

fn unexpected(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it answered `{line}`"))
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    fn manager(stream: UnixStream) -> Manager {
        let seat = Seat { rank: 1, size: 2, local_rank: None, launcher: Launcher::Pmi };
        Manager { seat, stream: File::from(OwnedFd::from(stream)), unread: Vec::new() }
    }

    #[test]
    fn refusals_and_silence_are_errors_that_quote_the_manager() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let answering = std::thread::spawn(move || {
            let mut theirs = BufReader::new(theirs);
            let mut line = String::new();
            theirs.read_line(&mut line).unwrap();
            theirs.get_mut().write_all(b"cmd=response_to_init rc=-1\n").unwrap();
        });
        let error = manager(ours).fetch(Instant::now() + Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("it answered `cmd=response_to_init rc=-1`"), "{error}");
        answering.join().unwrap();

        let (ours, _silent) = UnixStream::pair().unwrap();
        let error = manager(ours).publish(&[7; 128], Instant::now() + Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("no answer before the deadline"), "{error}");
    }

    #[test]
    fn a_closed_descriptor_is_an_error() {
        assert_eq!(inherited(u32::MAX).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(inherited(1_000_000).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
