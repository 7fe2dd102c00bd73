//! Every way in which a call can fail.

use crate::call::{Call, Collective};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Result of rccl's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A process of the job, as errors name it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Its rank in the communicator that is spoken of.
    pub rank: u32,
    /// Its host's name.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
}

/// `rank 3 (hostB, pid 4711)`
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rank == u32::MAX {
            // The process that made the unique id may hold no rank.
            return write!(f, "the root process ({}, pid {})", self.host, self.pid);
        }
        write!(f, "rank {} ({}, pid {})", self.rank, self.host, self.pid)
    }
}

/// A call as one rank made it, for mismatch reports and time-outs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CallOf {
    /// The rank.
    pub rank: u32,
    /// Number of the call in the communicator, from 1.
    pub sequence: u32,
    /// The call, or `None` when the rank is outside of any call.
    pub call: Option<Call>,
}

impl fmt::Display for CallOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.call {
            Some(call) => write!(f, "rank {} {call}", self.rank),
            None => write!(f, "rank {} is in no call (it completed #{})", self.rank, self.sequence),
        }
    }
}

/// What broke a communicator. The first cause is sent to every rank, so all of them report the same one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Ranks made different calls at the same point of the program.
    #[error("mismatch {} op #{sequence}: {}", at_or_after(calls), list(calls))]
    Mismatch {
        /// Number of the call, or of the one before the message.
        sequence: u32,
        /// What each rank called; at least the two that differ.
        calls: Vec<CallOf>,
    },
    /// A process ended or was cut off.
    #[error("{member} {how}{}; seen by {seen_by}", during(*sequence))]
    PeerLost {
        /// Who.
        member: Member,
        /// What happened to it, as a predicate: "exited without goodbye", "left the job".
        how: String,
        /// Number of the call in which it was missed; 0 outside of calls, and in sub-communicators, whose ranks may be
        /// in different ones.
        sequence: u32,
        /// Who noticed.
        seen_by: String,
    },
    /// A call did not end within its deadline.
    #[error("op #{sequence} timed out after {:.1} s on rank {rank}: {}", waited.as_secs_f64(), missing(waiting_for))]
    Timeout {
        /// The rank whose deadline passed first.
        rank: u32,
        /// Number of the call.
        sequence: u32,
        /// How long it waited.
        waited: Duration,
        /// The ranks that have not entered the call, with what each last did; of a point-to-point call, those that it
        /// waits for.
        waiting_for: Vec<CallOf>,
    },
    /// A rank gave up on purpose.
    #[error("{member} aborted the communicator: {why}")]
    Aborted {
        /// Who.
        member: Member,
        /// The reason it gave.
        why: String,
    },
    /// A link between two ranks broke although both processes live.
    #[error("the {transport} link between rank {rank} and rank {peer} failed{}: {cause}", during(*sequence))]
    LinkLost {
        /// One end, which noticed.
        rank: u32,
        /// The other end.
        peer: u32,
        /// "shm", "tcp".
        transport: String,
        /// Number of the call, 0 outside of calls.
        sequence: u32,
        /// What the link reported.
        cause: String,
    },
}

/// Messages have no number of their own.
fn at_or_after(calls: &[CallOf]) -> &'static str {
    let is_message = |of: &CallOf| {
        of.call.is_some_and(|call| matches!(call.collective, Collective::Send | Collective::Recv))
    };
    if calls.iter().any(is_message) { "after" } else { "at" }
}
fn list(calls: &[CallOf]) -> String {
    calls.iter().map(CallOf::to_string).collect::<Vec<_>>().join("; ")
}
fn missing(calls: &[CallOf]) -> String {
    if calls.is_empty() { "all ranks have entered it".into() } else { format!("missing: {}", list(calls)) }
}
fn during(sequence: u32) -> String {
    if sequence == 0 { String::new() } else { format!(" during op #{sequence}") }
}

/// Everything that can go wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument that can never be right; nothing was sent and the communicator is as good as before.
    #[error("{call}: {what}; {hint}")]
    InvalidArgument {
        /// The function.
        call: &'static str,
        /// What was given, and what is allowed.
        what: String,
        /// What to do.
        hint: String,
    },
    /// A setting's value cannot be used.
    #[error("{name}={value}: expected {expected}")]
    InvalidSetting {
        /// The setting, as the user wrote it.
        name: String,
        /// Its value.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// The job could not be joined.
    #[error("joining as rank {rank} of {size} at {meeting}: {cause}; {hint}")]
    Join {
        /// This process's rank.
        rank: u32,
        /// The size of the job.
        size: u32,
        /// Where the ranks meet: address, file, launcher.
        meeting: String,
        /// What was seen: who is missing, who is there twice, what the root answered.
        cause: String,
        /// What to do.
        hint: String,
    },
    /// A call on a communicator that this rank has left by [`finish`](crate::Communicator::finish) through another handle.
    #[error(
        "{communicator}: used after finish on rank {rank}; call finish after the last call of all handles and threads"
    )]
    Finished {
        /// Label of the communicator.
        communicator: String,
        /// This process's rank in it.
        rank: u32,
    },
    /// The communicator is broken; every rank reports the same failure.
    #[error("{communicator}: {failure} [reported by {reporter}]")]
    Failed {
        /// Label of the communicator.
        communicator: String,
        /// This process.
        reporter: Member,
        /// The first cause.
        failure: Arc<Failure>,
    },
    /// The operating system refused something that is not bound to a peer.
    #[error("{during}: {source}; {hint}")]
    System {
        /// What was being done.
        during: String,
        /// The system's answer.
        source: Arc<std::io::Error>,
        /// What to do.
        hint: String,
    },
    /// The communicator came out of a `fork`: its sockets and memory belong to the parent.
    #[error(
        "this communicator belongs to process {parent}, and this is its child {child}: create a communicator after fork"
    )]
    Forked {
        /// Process that created it.
        parent: u32,
        /// This process.
        child: u32,
    },
}

/// What to do about the system's answer, where that is the same whatever was being done.
pub(crate) fn remedy(error: &std::io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::EMFILE => Some("raise this process's limit of open files (`ulimit -n`)"),
        libc::ENFILE => Some("raise the system's limit of open files (`sysctl fs.file-max`)"),
        _ => None,
    }
}

/// What the system answered, and what to do about it where that is known.
pub(crate) fn with_remedy(error: &std::io::Error) -> String {
    remedy(error).map_or_else(|| error.to_string(), |remedy| format!("{error}; {remedy}"))
}

impl Error {
    /// A stable code, for programs and for `rccl explain`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::InvalidArgument { .. } => "RCCL-1001",
            Error::InvalidSetting { .. } => "RCCL-1002",
            Error::Join { .. } => "RCCL-1003",
            Error::System { .. } => "RCCL-1004",
            Error::Forked { .. } => "RCCL-1005",
            Error::Finished { .. } => "RCCL-1006",
            Error::Failed { failure, .. } => match **failure {
                Failure::Mismatch { .. } => "RCCL-2001",
                Failure::PeerLost { .. } => "RCCL-2002",
                Failure::Timeout { .. } => "RCCL-2003",
                Failure::Aborted { .. } => "RCCL-2004",
                Failure::LinkLost { .. } => "RCCL-2005",
            },
        }
    }
    /// The failure that broke the communicator, if that is what this is.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Error::Failed { failure, .. } => Some(failure),
            _ => None,
        }
    }
}
