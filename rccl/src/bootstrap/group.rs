//! Which ranks of a job a communicator has, in which order.

use serde::{Deserialize, Serialize};

/// The ranks of a communicator: those of the job that it has, numbered anew.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The rank in the job of each rank here.
    members: Box<[u32]>,
    /// The same by rank in the job: (there, here).
    places: Box<[(u32, u32)]>,
}

/// `count` ranks of the job: `first`, and each of the following `step` after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    first: u32,
    step: i64,
    count: u32,
}

impl Group {
    /// All ranks of a job.
    pub(crate) fn whole(size: u32) -> Group {
        Group { members: (0..size).collect(), places: (0..size).map(|rank| (rank, rank)).collect() }
    }

    /// These ranks of the job in this order; `None` when there is none, or one is there twice.
    pub(crate) fn new(members: Vec<u32>) -> Option<Group> {
        let mut places: Vec<(u32, u32)> = members.iter().copied().zip(0..).collect();
        places.sort_unstable();
        let twice = places.windows(2).any(|pair| pair[0].0 == pair[1].0);
        (!members.is_empty() && !twice).then(|| Group { members: members.into(), places: places.into() })
    }

    pub(crate) fn size(&self) -> u32 {
        self.members.len() as u32
    }
    /// The ranks in the job, by rank here.
    pub(crate) fn members(&self) -> &[u32] {
        &self.members
    }
    /// The rank in the job of `rank` here.
    pub(crate) fn outside(&self, rank: u32) -> Option<u32> {
        self.members.get(rank as usize).copied()
    }
    /// The rank here of rank `outside` of the job.
    pub(crate) fn inside(&self, outside: u32) -> Option<u32> {
        let place = self.places.binary_search_by_key(&outside, |&(outside, _)| outside).ok()?;
        Some(self.places[place].1)
    }

    /// A form whose size does not grow with the ranks where they are chosen regularly.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for &member in &self.members {
            if let Some(span) = spans.last_mut() {
                let last = i64::from(span.first) + span.step * i64::from(span.count - 1);
                let step = i64::from(member) - last;
                if span.count == 1 || step == span.step {
                    *span = Span { step, count: span.count + 1, ..*span };
                    continue;
                }
            }
            spans.push(Span { first: member, step: 0, count: 1 });
        }
        spans
    }

    /// What [`Group::spans`] coded; `None` when that is no group of a job of `size` ranks.
    pub(crate) fn from_spans(spans: &[Span], size: u32) -> Option<Group> {
        let total: u64 = spans.iter().map(|span| u64::from(span.count)).sum();
        if total > u64::from(size) {
            return None;
        }
        let mut members = Vec::with_capacity(total as usize);
        for span in spans {
            for i in 0..i64::from(span.count) {
                let member = i64::from(span.first).checked_add(span.step.checked_mul(i)?)?;
                members.push(u32::try_from(member).ok().filter(|&member| member < size)?);
            }
        }
        Group::new(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_found_in_both_directions() {
        let group = Group::new(vec![7, 2, 5]).unwrap();
        assert_eq!((group.size(), group.outside(1), group.outside(3)), (3, Some(2), None));
        assert_eq!((group.inside(5), group.inside(7), group.inside(3)), (Some(2), Some(0), None));
        assert!(Group::new(vec![1, 2, 1]).is_none() && Group::new(vec![]).is_none());
    }

    #[test]
    fn groups_survive_coding() {
        for members in
            [vec![0], vec![9, 1, 4, 4000], (0..4096).rev().collect(), (3..4096).step_by(7).collect()]
        {
            let group = Group::new(members).unwrap();
            assert_eq!(Group::from_spans(&group.spans(), 4096), Some(group));
        }
        assert_eq!(Group::whole(4096).spans().len(), 1);
        assert_eq!(Group::new((0..4096).step_by(8).collect()).unwrap().spans().len(), 1);
    }

    #[test]
    fn what_is_no_group_is_refused() {
        let span = |first, step, count| Span { first, step, count };
        let wrong: [&[Span]; 6] = [
            &[],
            &[span(0, 1, 5)],
            &[span(3, 1, 2)],
            &[span(1, -1, 3)],
            &[span(2, 0, 2)],
            &[span(u32::MAX, i64::MIN, 4)],
        ];
        for spans in wrong {
            assert_eq!(Group::from_spans(spans, 4), None, "{spans:?}");
        }
    }
}
