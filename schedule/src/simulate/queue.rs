//! What happens next: a radix heap (Ahuja, Mehlhorn, Orlin, Tarjan, "Faster algorithms for the shortest path problem",
//! 1990), which needs that nothing is put in for a time before the present, and is several times as fast as a binary heap
//! at the millions of events here.
//!
//! Bucket `k` holds the times that differ from the present in bit `k-1` and in none above it, and bucket 0 the present.
//! Equal times are always in one bucket, and buckets are filled and dealt out in order, so that of two events at one time
//! the one that was put in first comes first. That is what makes runs repeat exactly.

use super::cluster::Time;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A chunk of an edge comes to the link with this number on its route.
    Hop { hop: u8 },
    /// A chunk has left the sender's processor, and goes to the first link.
    Leave,
    /// A chunk of an edge is all there.
    Arrive,
    /// An operation has made a chunk of its value.
    Made,
    /// The sender of a message learns that a chunk of it has been taken.
    Released,
    /// The sender at an edge has a grant, and looks whether it can go on.
    Granted,
}

/// An event: when, what, of which edge, operation or message, and with how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub time: Time,
    pub of: u32,
    pub bytes: u32,
    pub what: What,
}

/// Events in order of time.
pub(super) struct Queue {
    buckets: [Vec<Event>; 65],
    /// Which buckets, but for the first, hold anything: bit `k-1` for bucket `k`.
    filled: u64,
    now: Time,
    /// How many of the first bucket are gone.
    gone: usize,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue { buckets: [const { Vec::new() }; 65], filled: 0, now: 0, gone: 0 }
    }
}

impl Queue {
    /// `time` is not before that of the event that came last.
    #[inline]
    pub(super) fn put(&mut self, time: Time, what: What, of: u32, bytes: u32) {
        debug_assert!(time >= self.now, "{time} is before {}", self.now);
        self.sort_in(Event { time, of, bytes, what });
    }

    #[inline]
    fn sort_in(&mut self, event: Event) {
        let bucket = 64 - (event.time ^ self.now).leading_zeros();
        self.buckets[bucket as usize].push(event);
        if bucket > 0 {
            self.filled |= 1 << (bucket - 1);
        }
    }

    #[inline]
    pub(super) fn next(&mut self) -> Option<Event> {
        if self.gone == self.buckets[0].len() {
            self.buckets[0].clear();
            self.gone = 0;
            if self.filled == 0 {
                return None;
            }
            self.advance();
        }
        self.gone += 1;
        Some(self.buckets[0][self.gone - 1])
    }

    /// Makes the earliest time the present, and deals out the bucket that it was in.
    fn advance(&mut self) {
        let bucket = self.filled.trailing_zeros() as usize + 1;
        self.filled &= self.filled - 1;
        let mut events = std::mem::take(&mut self.buckets[bucket]);
        self.now = events.iter().map(|event| event.time).min().unwrap_or(self.now);
        for event in events.drain(..) {
            self.sort_in(event);
        }
        self.buckets[bucket] = events;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn events_come_in_order_of_time_and_then_as_they_were_put() {
        let mut random = StdRng::seed_from_u64(7);
        let (mut queue, mut reference) = (Queue::default(), std::collections::BTreeMap::new());
        let (mut now, mut number) = (0, 0);
        for _ in 0..20_000 {
            for _ in 0..random.random_range(0..4) {
                let time = now + (random.random_range(0..8_u64) << random.random_range(0..40));
                queue.put(time, What::Leave, number, 0);
                reference.insert((time, number), ());
                number += 1;
            }
            let expected = reference.pop_first().map(|(key, ())| key);
            assert_eq!(queue.next().map(|event| (event.time, event.of)), expected);
            now = expected.map_or(now, |(time, _)| time);
        }
    }
}
