//! Communicators of some ranks of another one.
//!
//! They share its control plane: no rank meets anybody anew, and no connection to the root, listener or thread is added.
//! Each has links of its own, made when it first needs them, so that calls on different communicators never wait for
//! each other.

use crate::communicator::Communicator;
use crate::error::{Error, Result};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

impl Communicator {
    /// Parts the ranks into new communicators, one for each `color`; in it ranks are in ascending order of `key`, equal
    /// keys in their order here. With `None` this rank takes part in the call and gets no communicator.
    ///
    /// Every rank calls it; it blocks as an all_gather does. The ranks of the new communicators need not call anything
    /// on them at the same time.
    ///
    /// # Errors
    /// As a collective call; [`Error::System`] when the new communicator's descriptor cannot be had.
    pub fn split(&self, color: Option<u32>, key: i32) -> Result<Option<Communicator>> {
        let label = color.map_or_else(String::new, |color| format!("{}/{color}", self.label()));
        self.part(color, key, label)
    }

    /// A communicator of the same ranks whose calls are apart from those of this one. Every rank calls it.
    ///
    /// # Errors
    /// As [`Communicator::split`].
    pub fn duplicate(&self) -> Result<Communicator> {
        let whole = self.part(Some(0), 0, format!("{}/duplicate", self.label()))?;
        whole.ok_or_else(|| self.no_member("duplicate"))
    }

    /// A communicator of all ranks but those in `excluded`, in their order. Every rank but those calls it with the same
    /// list (in any order), and those that call it several times with one list get one communicator by each call;
    /// nothing is sent, so it works on a communicator that a failure has broken too.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a rank that does not exist, or if this rank is excluded itself;
    /// [`Error::System`] when the new communicator's descriptor cannot be had; [`Error::Forked`] in a forked child.
    pub fn shrink(&self, excluded: &[u32]) -> Result<Communicator> {
        self.shared().born.check()?;
        if let Some(&rank) = excluded.iter().find(|&&rank| rank >= self.size()) {
            return Err(Error::InvalidArgument {
                call: "shrink",
                what: format!("excludes rank {rank} in a communicator of {} ranks", self.size()),
                hint: "ranks count from 0 to size - 1".into(),
            });
        }
        if excluded.contains(&self.rank()) {
            return Err(self.no_member("shrink"));
        }
        let members: Vec<u32> = (0..self.size()).filter(|rank| !excluded.contains(rank)).collect();
        // Ranks that were left out once may stay the next time: only calls with the same members are counted alike by all.
        let times = {
            let mut shrunk = self.shared().shrunk.lock().unwrap_or_else(PoisonError::into_inner);
            let times = shrunk.entry(members.clone()).or_insert(0);
            *times += 1;
            *times
        };
        let words = [self.shared().control.id(), u64::from(times) | 1 << 63];
        let id = digest(words.into_iter().chain(members.iter().map(|&member| member.into())));
        self.child(id, &members, format!("{}/shrunk", self.label()))
    }

    /// A communicator of two ranks of this one, of which this rank is one, for what one of them puts to the other. Each calls it at
    /// most once; nothing is sent. It fails when this one does.
    pub(crate) fn pair(&self, source: u32, target: u32) -> Result<Communicator> {
        let id = digest([self.shared().control.id(), 1 << 62, source.into(), target.into()]);
        let pair = self.child(id, &[source, target], self.label().into())?;
        self.shared().control.lead(&pair.shared().control);
        Ok(pair)
    }

    fn part(&self, color: Option<u32>, key: i32, label: String) -> Result<Option<Communicator>> {
        const WORDS: usize = 3;
        // One of the members names the communicator: ranks need not agree on how often they have split this one.
        let mine = [color.map_or(u64::MAX, u64::from), key as u64, unique()];
        let mut all = vec![0; WORDS * self.size() as usize];
        self.all_gather_into(&mine, &mut all)?;
        let (all, _) = all.as_chunks::<WORDS>();
        let Some(color) = color else { return Ok(None) };
        let mut members: Vec<u32> = (0..)
            .zip(all)
            .filter(|(_, theirs)| theirs[0] == u64::from(color))
            .map(|(rank, _)| rank)
            .collect();
        members.sort_by_key(|&rank| all[rank as usize][1] as i32);
        let named = members.iter().min().map_or(0, |&first| all[first as usize][2]);
        let id = digest([self.shared().control.id(), named, color.into()]);
        self.child(id, &members, label).map(Some)
    }

    fn no_member(&self, call: &'static str) -> Error {
        Error::InvalidArgument {
            call,
            what: format!("rank {} would not be a member of the new communicator", self.rank()),
            hint: "only the ranks that stay call it".into(),
        }
    }
}

/// A number that no other call of any process is likely to get.
fn unique() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    digest([now, std::process::id().into(), CALLS.fetch_add(1, Ordering::Relaxed)])
}

/// Mixes words into one that is not 0, the world's (after splitmix64, Steele, Lea, Flood 2014).
fn digest(words: impl IntoIterator<Item = u64>) -> u64 {
    let mix = |state: u64, word: u64| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    words.into_iter().fold(1, mix).max(1)
}
