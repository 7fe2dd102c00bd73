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
    #[error("{} timed out after {:.1} s on rank {rank}: {}", number(*sequence), waited.as_secs_f64(), missing(waiting_for))]
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

impl Failure {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Failure::Mismatch { .. } => {
                "all ranks make the same calls in the same order: look for a branch, a length or \
                 an order of threads that differs between these"
                    .into()
            }
            Failure::PeerLost { member, .. } => format!(
                "see what {} printed last and, if that says nothing, whether {} ran out of memory (`dmesg`)",
                process(member),
                member.host
            ),
            Failure::Timeout { waiting_for, .. } if waiting_for.is_empty() => {
                "see that the network between the ranks \
                 holds (`rccl doctor`); if it is only slow, allow more time (RCCL_TIMEOUT, or the call's own)"
                    .into()
            }
            Failure::Timeout { .. } => {
                "see what keeps the missing ranks; if they are only slow, allow more time \
                 (RCCL_TIMEOUT, or the call's own)"
                    .into()
            }
            Failure::Aborted { member, .. } => {
                format!("see what {} printed, if that does not say enough", process(member))
            }
            Failure::LinkLost { transport, .. } if transport == "shm" => {
                "RCCL_SHM_DISABLE=1 does without shared memory".into()
            }
            Failure::LinkLost { .. } => {
                "see that the network between their hosts holds (`rccl doctor`), or choose \
                 another way (RCCL_TRANSPORT, RCCL_SOCKET_IFNAME)"
                    .into()
            }
        }
    }
}

/// A process without its place.
fn process(member: &Member) -> String {
    if member.rank == u32::MAX { "the root process".into() } else { format!("rank {}", member.rank) }
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
/// Waits for signals have no number.
fn number(sequence: u32) -> String {
    if sequence == 0 { "a call".into() } else { format!("op #{sequence}") }
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
    #[error("{name}={value}: {}", wanted(expected))]
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
    #[error("{communicator}: used after finish on rank {rank}; {}", FINISH_LAST)]
    Finished {
        /// Label of the communicator.
        communicator: String,
        /// This process's rank in it.
        rank: u32,
    },
    /// The communicator is broken; every rank reports the same failure.
    #[error("{communicator}: {failure} [reported by {reporter}]; {}", failure.hint())]
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
    #[error("this communicator belongs to process {parent}, and this is its child {child}; {}", FORK_FIRST)]
    Forked {
        /// Process that created it.
        parent: u32,
        /// This process.
        child: u32,
    },
}

const FINISH_LAST: &str = "call finish after the last call of all handles and threads";
const FORK_FIRST: &str = "create a communicator after fork";

/// What a setting wants.
fn wanted(expected: &str) -> String {
    format!("expected {expected}")
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
    /// What to do, which is the end of what is displayed.
    pub fn hint(&self) -> String {
        match self {
            Error::InvalidArgument { hint, .. } | Error::Join { hint, .. } | Error::System { hint, .. } => {
                hint.clone()
            }
            Error::InvalidSetting { expected, .. } => wanted(expected),
            Error::Finished { .. } => FINISH_LAST.into(),
            Error::Forked { .. } => FORK_FIRST.into(),
            Error::Failed { failure, .. } => failure.hint(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_ends_with_what_to_do() {
        let member = |rank| Member { rank, host: "there".into(), pid: 7 };
        let missed = CallOf { rank: 1, sequence: 4, call: None };
        let lost = |transport: &str| Failure::LinkLost {
            rank: 0,
            peer: 1,
            transport: transport.into(),
            sequence: 5,
            cause: "reset".into(),
        };
        let timeout =
            |waiting_for| Failure::Timeout { rank: 0, sequence: 5, waited: Duration::ZERO, waiting_for };
        let gone = |rank| Failure::PeerLost {
            member: member(rank),
            how: "left".into(),
            sequence: 5,
            seen_by: "rank 0".into(),
        };
        let failures = [
            (Failure::Mismatch { sequence: 5, calls: vec![missed.clone()] }, "all ranks make the same calls"),
            (
                gone(1),
                "see what rank 1 printed last and, if that says nothing, whether there ran out of memory",
            ),
            (gone(u32::MAX), "see what the root process printed last"),
            (timeout(vec![missed]), "see what keeps the missing ranks"),
            (timeout(vec![]), "see that the network between the ranks holds"),
            (Failure::Aborted { member: member(1), why: "enough".into() }, "see what rank 1 printed"),
            (lost("tcp"), "see that the network between their hosts holds"),
            (lost("shm"), "RCCL_SHM_DISABLE=1"),
        ];
        let communicator = || "world".to_owned();
        let mut errors: Vec<(Error, &str)> = failures
            .into_iter()
            .map(|(failure, hint)| {
                assert_eq!(failure.to_string().find(&failure.hint()), None, "the cause alone has no advice");
                let failure = Arc::new(failure);
                (Error::Failed { communicator: communicator(), reporter: member(0), failure }, hint)
            })
            .collect();
        let (what, hint) = ("a".to_owned(), "pass b".to_owned());
        errors.push((Error::InvalidArgument { call: "send", what, hint: hint.clone() }, "pass b"));
        let (name, value, expected) = ("RCCL_X".into(), "1".into(), "a word".into());
        errors.push((Error::InvalidSetting { name, value, expected }, "expected a word"));
        let (meeting, cause) = ("here".into(), "nobody".into());
        errors.push((Error::Join { rank: 0, size: 2, meeting, cause, hint: hint.clone() }, "pass b"));
        errors.push((Error::Finished { communicator: communicator(), rank: 0 }, "call finish after"));
        errors.push((Error::Forked { parent: 1, child: 2 }, "create a communicator after fork"));
        let source = Arc::new(std::io::Error::from_raw_os_error(libc::EMFILE));
        errors.push((Error::System { during: "a".into(), source, hint }, "pass b"));
        for (error, begin) in errors {
            let hint = error.hint();
            assert!(hint.starts_with(begin) && !hint.contains("  "), "{hint}");
            let text = error.to_string();
            assert!(text.strip_suffix(&hint).is_some_and(|rest| rest.ends_with([' ', ';'])), "{text}");
        }
    }
}
