//! From what stopped a call to the error that all ranks report.

use super::Engine;
use super::run::Stop;
use crate::call::{Call, Collective};
use crate::error::{Error, Failure, Member};
use rccl_schedule::Rank;
use rccl_transport::{Kind, LinkError, Tag};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Engine {
    /// Turns what stopped a run into the failure that all ranks report.
    pub(super) fn explain(&mut self, call: &Call, stop: Stop) -> Error {
        match stop {
            Stop::Foreign { peer, outgoing, ours, theirs } => {
                // The same call, and only these two know how long their message should be: nobody else can compare it.
                let length = ours.call[0] == theirs.call[0] && call.collective.varies();
                if !length {
                    // What met here may be an echo of an earlier difference: the root compares what all ranks called.
                    self.control.report_stall(self.sequence);
                }
                if !length && self.failed_within(Duration::from_millis(500)) {
                    return self.await_failure(None);
                }
                if let Some(mine) = self.met_too_late(&theirs) {
                    let number = theirs.sequence;
                    self.control.report_mismatch(number, mine, peer, number, theirs.call);
                } else {
                    let ours = Call::unpack(ours.call).map_or(*call, |call| call.seen(outgoing, peer));
                    let theirs_words = Call::unpack(theirs.call)
                        .map_or(theirs.call, |call| call.seen(!outgoing, self.rank).pack());
                    self.control.report_mismatch(self.sequence, ours, peer, theirs.sequence, theirs_words);
                }
                self.await_failure(None)
            }
            Stop::Length { peer, expected, given } => {
                let cause = format!("rank {peer} sent {given} bytes where {expected} belong");
                self.control.report_link_lost(peer, self.kind(peer).word(), Some(self.sequence), &cause);
                self.await_failure(None)
            }
            Stop::Link { peer, error } => self.lost(call, peer, &error),
        }
    }

    /// What this rank called where the other made the collective call whose message has come: it went by there, and
    /// found the message only where it waits for one from that rank.
    fn met_too_late(&self, theirs: &Tag) -> Option<Call> {
        let message = |call: &Call| matches!(call.collective, Collective::Send | Collective::Recv);
        let collective = Call::unpack(theirs.call).is_some_and(|call| !message(&call));
        let mine = self.control.progress().state().call(theirs.sequence)?;
        (collective && mine.pack() != theirs.call).then_some(mine)
    }

    /// A link broke: the control plane knows within moments whether the peer died; else the link itself is at fault.
    fn lost(&mut self, call: &Call, peer: Rank, error: &LinkError) -> Error {
        if !self.failed_within(Duration::from_secs(1)) {
            // Messages have no numbers that say whether the peer had sent its own.
            let message = matches!(call.collective, Collective::Send | Collective::Recv);
            let sequence = (!message).then_some(self.sequence);
            self.control.report_link_lost(peer, self.kind(peer).word(), sequence, &error.to_string());
        }
        self.await_failure(Some(error))
    }

    fn kind(&self, peer: Rank) -> Kind {
        self.reached.iter().find(|reached| reached.peer == peer).map_or(Kind::Tcp, |reached| reached.kind)
    }

    /// Waits for the failure that was reported to come back as every rank's first cause.
    pub(super) fn await_failure(&mut self, link: Option<&LinkError>) -> Error {
        if self.failed_within(Duration::from_secs(5)) {
            return self.failure();
        }
        let cause = link.map_or("the control plane did not answer".into(), LinkError::to_string);
        self.failed(Arc::new(Failure::LinkLost {
            rank: self.rank,
            peer: self.rank,
            transport: "control".into(),
            sequence: self.sequence,
            cause,
        }))
    }

    /// Whether the first cause is known, or becomes known within `patience`.
    fn failed_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.control.failed() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.control.failed()
    }

    pub(super) fn failure(&self) -> Error {
        match self.control.failure() {
            Some(failure) => self.failed(failure),
            None => self.failed(Arc::new(Failure::Aborted { member: self.member(), why: "unknown".into() })),
        }
    }

    fn failed(&self, failure: Arc<Failure>) -> Error {
        Error::Failed { communicator: self.label.clone(), reporter: self.member(), failure }
    }

    fn member(&self) -> Member {
        self.control.me()
    }
}
