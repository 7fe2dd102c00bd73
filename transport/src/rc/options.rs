//! Settings of a link over verbs.

use std::time::Duration;

use super::frame::{HEADER, RING};
use super::{MOST_PAIRS, MOST_RAILS};
use crate::link::WINDOW;

/// Settings of an [`RcLink`](super::RcLink). `eager`, `slots`, `slot` and `queue_pairs` must be the same at both ends;
/// [`Pending::connect`](super::Pending::connect) compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Queue pairs on each rail, from 1. Each has a flow label of its own, so that routers which spread by UDP ports
    /// send them different ways. 16 at most on all rails together.
    pub queue_pairs: usize,
    /// Longest eager message in bytes. Twice 32 of them take up the larger part of a link's memory. (all_reduce of 32 KiB
    /// between two emulated guests: 15.2 ms with 8 KiB, 9.2 with 16, 9.7 with 32; medians of three runs.)
    pub eager: usize,
    /// Slots of each direction, for bytes whose source or target is not registered. 0 leaves them out: a message that
    /// would need one fails.
    pub slots: usize,
    /// Bytes of a slot, a power of two: what a card writes into slots from registered memory is cut there, and receivers
    /// take bytes in chunks that must not be cut.
    pub slot: usize,
    /// Longest write in bytes; a longer message is cut, and dealt to the queue pairs. What the ports take may be less.
    pub piece: usize,
    /// How long to wait for an acknowledgement before sending again: 4.096 us doubled so often, 1 to 31. Devices may
    /// wait up to four times as long.
    pub timeout: u8,
    /// How often to send again, 0 to 7.
    pub retries: u8,
    /// How often to send again when the peer has no receive posted, 0 to 7, 7 without end. Credits see to it that this
    /// does not happen.
    pub receiver_not_ready_retries: u8,
    /// InfiniBand service level, on Ethernet the VLAN's priority; 0 to 15.
    pub service_level: u8,
    /// Traffic class of the IP header (DSCP and ECN). `None` takes the system's default for RoCE connections
    /// (`/sys/kernel/config/rdma_cm/DEVICE/ports/PORT/default_roce_tos`), else 0. Set on every queue pair alike.
    pub traffic_class: Option<u8>,
    /// How often a rail may fail within a minute before the link leaves it: so often it gets fresh queue pairs.
    pub rail_failures: u32,
    /// For tests: at every so manieth flush a queue pair is put into the error state, or, each third time, a frame is sent
    /// twice. 0: never.
    pub fault_every: u32,
    /// Index of the partition key in the port's table; 0 is the default partition.
    pub partition_key_index: u16,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            queue_pairs: 1,
            eager: 16 << 10,
            slots: 16,
            slot: 32 << 10,
            piece: 512 << 10,
            timeout: 18,
            retries: 7,
            receiver_not_ready_retries: 7,
            service_level: 0,
            traffic_class: None,
            rail_failures: 3,
            fault_every: 0,
            partition_key_index: 0,
        }
    }
}

impl Options {
    /// Bytes of registered memory that each end of a link takes.
    pub fn block_bytes(&self) -> usize {
        super::block::Layout::new(self).whole
    }

    /// How long a device may go on trying to send before it has to say that it failed, and a little more, so that its own
    /// word comes first.
    pub(super) fn patience(&self, software: bool) -> Duration {
        // Hardware may wait up to four times as long.
        let quarters = if software { 5 } else { 17 };
        Duration::from_nanos(4096 << self.timeout.min(31)) * (1 + u32::from(self.retries)) * quarters / 4
    }

    /// What cannot be, in words.
    pub(super) fn check(&self, rails: usize) -> Result<(), String> {
        let within = |what: &str, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(format!("{what} is {value}, and may be {least} to {most}"))
        };
        within("the number of rails of a link", rails, 1, MOST_RAILS)?;
        within("the number of queue pairs on a rail", self.queue_pairs, 1, MOST_PAIRS / rails)?;
        within("the eager limit in bytes", self.eager, 0, 1 << 20)?;
        within("the number of slots", self.slots, 0, 1 << 10)?;
        within("the bytes of a slot", self.slot, 64, 1 << 20)?;
        within("the bytes of a piece", self.piece, 4 << 10, 16 << 20)?;
        if !self.slot.is_power_of_two() {
            return Err(format!("the bytes of a slot are {}, and must be a power of two", self.slot));
        }
        within("the exponent of the time-out", self.timeout.into(), 1, 31)?;
        within("the number of retries", self.retries.into(), 0, 7)?;
        let retries = self.receiver_not_ready_retries;
        within("the number of receiver-not-ready retries", retries.into(), 0, 7)?;
        within("the service level", self.service_level.into(), 0, 15)
    }

    /// Bytes from one eager message's home to the next.
    pub(super) fn home(&self) -> usize {
        (HEADER + self.eager).next_multiple_of(64)
    }
}

/// Every frame uses up a receive of the first queue pair, so the ring never overflows before those do.
const _: () = assert!(RING >= 2 * WINDOW);
