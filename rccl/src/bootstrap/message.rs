//! What the ranks and the root say to each other over the control connections.

use super::group::{Group, Span};
use super::processors::Processors;
use crate::call::Call;
use crate::error::{CallOf, Failure, Member};
use crate::rdma::NoRdma;
use crate::tuner::{Profile, Tuning};
use rccl_topology::Advert;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// From a rank to the root.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ToRoot {
    /// The first message of a rank.
    Join(Box<Joining>),
    /// Asks for the details of a peer.
    Ask { rank: u32 },
    /// The rank's call has made no progress for a while; it waits for these ranks, or, if none is named, for all.
    /// `arrived`: what these have sent so far is here.
    Stalled { communicator: Named, sequence: u32, awaited: Vec<u32>, arrived: bool },
    /// Answer to [`FromRoot::Query`].
    State { communicator: u64, round: u32, standing: Standing },
    /// Something failed.
    Report { communicator: Named, report: Report },
    /// The rank has left the world, after this; if it is also the last that it says, all other communicators too, each
    /// after entering the call with this number (as far as it remembers).
    Goodbye { state: State, last: Option<Vec<(u64, u32)>> },
    /// Answer to [`FromRoot::Ping`].
    Pong,
}

/// From the root to a rank.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FromRoot {
    /// The rank cannot join, or the job does not come together.
    Refused { cause: String, hint: String },
    /// Everybody is there.
    Welcome {
        root: Member,
        runs: Vec<super::layout::Run>,
        /// How many the ranks of each host may use together, by host; the last stands for all that follow.
        processors: Vec<u32>,
        /// As [`Joining::ring`] of rank 0.
        ring: Vec<u32>,
        /// What all go by who choose algorithms.
        tuning: Tuning,
    },
    /// A peer's details.
    Details { rank: u32, details: Box<Details> },
    /// Where are you in this communicator? Answered with [`ToRoot::State`].
    Query { communicator: u64, round: u32 },
    /// Who has not entered the call that the rank is stalled in.
    Waiting { communicator: u64, sequence: u32, missing: Vec<(Member, CallOf)> },
    /// The first failure of the communicator.
    Failed { communicator: u64, failure: Failure },
    /// A rank of the job was lost: with it fail all communicators that it is in. The world's failure is said apart.
    Lost { member: Member, how: String },
    /// Are you alive? Answered with [`ToRoot::Pong`].
    Ping,
    /// The root's process has left all communicators, and answers a goodbye; when it closes the connection, nothing is wrong.
    Leaving {
        /// The last call of the world that its rank entered.
        entered: u32,
        /// That of the other communicators that it has left, by their ids.
        others: Vec<(u64, u32)>,
    },
}

/// A rank as it introduces itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Joining {
    pub rank: u32,
    pub size: u32,
    /// How long it is willing to wait.
    pub patience: Duration,
    /// Settings that must be the same on all ranks, as one text.
    pub agreement: String,
    /// Rank 0's holds for the job.
    pub silence: Silence,
    /// In which order the ranks of a host come, by their indices on it; empty: by rank. Rank 0's holds for the job.
    pub ring: Vec<u32>,
    /// Rank 0's holds for the job.
    pub profile: Profile,
    pub details: Details,
}

/// When a process that says nothing is reported, and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Silence {
    pub warn: Duration,
    pub fatal: Duration,
}

impl Silence {
    /// How often a sign of life is asked for.
    pub(crate) fn pulse(&self) -> Duration {
        (self.warn.min(self.fatal) / 4).max(Duration::from_millis(10))
    }
}

/// What peers need to know to connect to a rank, and errors to name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Details {
    pub host: super::host::Identity,
    pub pid: u32,
    pub processors: Processors,
    /// Path of the socket for links within the host, if shared memory is allowed.
    pub path: Option<String>,
    /// Where its TCP listener is reachable, best first; empty when TCP is not allowed.
    pub addresses: Vec<IpAddr>,
    pub port: u16,
    /// Its RDMA ports, or why it has none.
    pub rdma: Result<Vec<Advert>, NoRdma>,
}

impl Details {
    pub(crate) fn member(&self, rank: u32) -> Member {
        Member { rank, host: self.host.name.clone(), pid: self.pid }
    }
}

/// Where a rank is in its program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Number of the last call that it entered; 0: none.
    pub entered: u32,
    /// Number of the last call that it completed; 0: none.
    pub completed: u32,
    /// The last calls that it entered: number and packed signature.
    pub calls: Vec<(u32, [u64; 2])>,
}

impl State {
    /// The call with this number, as far as it is remembered.
    pub(crate) fn call(&self, sequence: u32) -> Option<Call> {
        let (_, words) = self.calls.iter().find(|(number, _)| *number == sequence)?;
        Call::unpack(*words)
    }
}

/// A communicator, to a root that may never have heard of it. Ranks in messages about a communicator are its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Named {
    pub id: u64,
    /// Its ranks in the job, as [`Group::spans`] codes them.
    pub members: Vec<Span>,
}

impl Named {
    pub(crate) fn new(id: u64, group: &Group) -> Named {
        Named { id, members: group.spans() }
    }
}

/// What a rank has to do with a communicator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// Nothing, as far as it remembers: it has not made it yet, or left it long ago.
    Absent,
    /// It is in it.
    In(State),
    /// It was in it, and left after this.
    Left(State),
}

/// A failure as the rank sees it that meets it; the root decides what the first cause is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Mismatch {
        sequence: u32,
        calls: Vec<CallOf>,
    },
    Timeout {
        sequence: u32,
        waited: Duration,
        awaited: Vec<u32>,
    },
    LinkLost {
        peer: u32,
        transport: String,
        sequence: u32,
        cause: String,
        /// No collective call needed it, whose number would say whether the peer had done its part: it was never made,
        /// or messages did. If the peer has left, that is why.
        arrived: bool,
    },
    /// A rank that this one needs has left the communicator, after completing call number `last`.
    Left {
        peer: u32,
        last: u32,
        sequence: u32,
    },
    Aborted {
        why: String,
    },
}
