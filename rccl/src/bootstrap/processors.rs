//! Which processors a process may run on, and how many the ranks of a host have together.
//!
//! Launchers often give each rank a processor of its own (`mpirun` does it by default). A rank that counted only its own
//! would take the host for crowded and give its processor away at every poll.

use serde::{Deserialize, Serialize};

/// What one process may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Processors {
    /// Bit i of word i / 64: processor i is in the affinity mask. Empty when it cannot be told.
    mask: Vec<u64>,
    /// The most processors that it gets, by its mask and its control group's quota.
    most: u32,
}

impl Processors {
    /// This process's; `all`: every processor that is online, whatever the mask says.
    pub(crate) fn here(all: bool) -> Processors {
        // SAFETY: takes and returns integers only.
        let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        let online = u32::try_from(online).unwrap_or(1).max(1);
        if all {
            return Processors { mask: Vec::new(), most: online };
        }
        let most = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        let mut mask = Vec::new();
        if let Ok(set) = rustix::thread::sched_getaffinity(None) {
            for processor in (0..rustix::thread::CpuSet::MAX_CPU).filter(|&processor| set.is_set(processor)) {
                mask.resize(processor / 64 + 1, 0);
                mask[processor / 64] |= 1 << (processor % 64);
            }
        }
        Processors { mask, most }
    }

    fn in_mask(&self) -> u32 {
        self.mask.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether a quota allows fewer than the mask.
    fn quota(&self) -> Option<u32> {
        (self.mask.is_empty() || self.most < self.in_mask()).then_some(self.most)
    }

    /// How many processors these processes of one host have together.
    pub(crate) fn together<'a>(all: impl Iterator<Item = &'a Processors>) -> u32 {
        let mut union = Processors::default();
        let mut quota = u32::MAX;
        for one in all {
            union.mask.resize(union.mask.len().max(one.mask.len()), 0);
            union.mask.iter_mut().zip(&one.mask).for_each(|(all, own)| *all |= own);
            // Processes with a quota are taken to share it: the ranks of a container do.
            quota = quota.min(one.quota().unwrap_or(u32::MAX));
        }
        let masks = if union.mask.is_empty() { u32::MAX } else { union.in_mask() };
        masks.min(quota).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(processors: &[usize]) -> Processors {
        let mut mask = vec![0; 4];
        processors.iter().for_each(|&processor| mask[processor / 64] |= 1 << (processor % 64));
        Processors { mask, most: processors.len() as u32 }
    }

    #[test]
    fn ranks_with_processors_of_their_own_have_all_of_them() {
        assert_eq!(Processors::together([on(&[0]), on(&[1])].iter()), 2);
        assert_eq!(Processors::together([on(&[3, 200]), on(&[3, 200])].iter()), 2);
        assert_eq!(Processors::together([on(&[0, 1]), on(&[1, 2, 130])].iter()), 4);
    }

    #[test]
    fn a_quota_is_shared() {
        let limited = Processors { most: 2, ..on(&[0, 1, 2, 3]) };
        assert_eq!(Processors::together([limited.clone(), limited].iter()), 2);
    }

    #[test]
    fn what_cannot_be_told_is_not_taken_for_much() {
        let unknown = Processors { mask: Vec::new(), most: 5 };
        assert_eq!(Processors::together([unknown].iter()), 5);
        assert_eq!(Processors::together([].iter()), u32::MAX);
        assert!(Processors::together([Processors::here(false)].iter()) >= 1);
        assert!(Processors::here(true).most >= Processors::here(false).most);
    }
}
