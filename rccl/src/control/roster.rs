//! The ranks of the job as the root knows them: who they are, whether they are there, and how to speak to them.

use crate::bootstrap::frame::{self, Frame};
use crate::bootstrap::message::FromRoot;
use crate::bootstrap::rendezvous::Seat;
use crate::error::Member;
use std::collections::HashMap;
use tokio::time::Instant;

/// By rank in the job.
pub(super) struct Roster(pub Vec<Entry>);

pub(super) struct Entry {
    pub seat: Seat,
    pub heard: Instant,
    pub warned: bool,
    /// It has left all communicators.
    pub left: bool,
    /// By communicator that it had left when it left the job: the number of the last call that it entered.
    pub entered: HashMap<u64, u32>,
    /// It was given up, or its connection has ended without a goodbye.
    pub lost: bool,
    /// Its connection has ended.
    pub gone: bool,
}

impl Roster {
    pub(super) fn new(seats: Vec<Seat>) -> Roster {
        let heard = Instant::now();
        let entry = |seat| Entry {
            seat,
            heard,
            warned: false,
            left: false,
            entered: HashMap::new(),
            lost: false,
            gone: false,
        };
        Roster(seats.into_iter().map(entry).collect())
    }

    pub(super) fn size(&self) -> u32 {
        self.0.len() as u32
    }
    pub(super) fn member(&self, rank: u32) -> Member {
        self.member_as(rank, rank)
    }
    /// A rank of the job under the number that it has in a communicator.
    pub(super) fn member_as(&self, rank: u32, number: u32) -> Member {
        self.0[rank as usize].seat.details.member(number)
    }
    /// Whether it has left the job in peace.
    pub(super) fn left(&self, rank: u32) -> bool {
        self.0[rank as usize].left
    }
    /// Whether it can be asked.
    pub(super) fn here(&self, rank: u32) -> bool {
        let entry = &self.0[rank as usize];
        !entry.left && !entry.gone
    }

    pub(super) fn tell(&self, rank: u32, message: &FromRoot) {
        self.tell_all([rank], message);
    }
    pub(super) fn tell_all(&self, ranks: impl IntoIterator<Item = u32>, message: &FromRoot) {
        match frame::encode(message) {
            Ok(frame) => ranks.into_iter().for_each(|rank| self.send(rank, &frame)),
            Err(error) => tracing::warn!(%error, "a message of the root was not sent"),
        }
    }
    pub(super) fn broadcast(&self, frame: &Frame) {
        (0..self.size()).for_each(|rank| self.send(rank, frame));
    }
    fn send(&self, rank: u32, frame: &Frame) {
        if let Some(outbox) = &self.0[rank as usize].seat.outbox {
            let _ = outbox.send(frame.clone());
        }
    }
}
