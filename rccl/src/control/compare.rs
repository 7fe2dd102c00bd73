//! Finds the first call in which ranks differ, from what each remembers.

use super::progress::before;
use crate::bootstrap::message::State;
use crate::call::Call;
use crate::error::{CallOf, Failure};
use std::collections::HashMap;

/// At most this many odd ranks are listed: a failure must fit in a message and on a screen.
const NAMED: usize = 8;

/// The earliest call that two ranks made differently, or `None`.
///
/// `states` holds what each rank last said; a rank that did not answer is left out. If most ranks agree, one of them
/// stands for all, followed by those that differ.
pub(crate) fn mismatch(states: &[(u32, &State)]) -> Option<Failure> {
    let mut calls: HashMap<u32, Vec<(u32, [u64; 2])>> = HashMap::new();
    for (rank, state) in states {
        for &(sequence, words) in &state.calls {
            calls.entry(sequence).or_default().push((*rank, words));
        }
    }
    let differing = calls
        .iter()
        .filter(|(_, made)| made.iter().any(|(_, words)| *words != made[0].1))
        .map(|(&sequence, _)| sequence)
        .reduce(|a, b| if before(b, a) { b } else { a })?;
    let made = &calls[&differing];

    let mut groups: HashMap<[u64; 2], Vec<u32>> = HashMap::new();
    for &(rank, words) in made {
        groups.entry(words).or_default().push(rank);
    }
    let largest = groups.values().map(Vec::len).max()?;
    // The largest group is represented by its first rank; in a tie that is the group of the lowest rank.
    let mut usual = made
        .iter()
        .filter(|(_, words)| groups[words].len() == largest)
        .min_by_key(|(rank, _)| *rank)
        .map(|&(rank, words)| (rank, words))?;
    usual.0 = *groups[&usual.1].iter().min()?;
    let mut named: Vec<(u32, [u64; 2])> =
        made.iter().copied().filter(|(_, words)| *words != usual.1).collect();
    named.sort_unstable();
    named.truncate(NAMED);
    named.push(usual);
    named.sort_unstable();
    let calls = named
        .into_iter()
        .map(|(rank, words)| CallOf { rank, sequence: differing, call: Call::unpack(words) })
        .collect();
    Some(Failure::Mismatch { sequence: differing, calls })
}

/// The ranks that have not entered call number `sequence`, with the last call that each completed.
pub(crate) fn missing<'a>(states: impl Iterator<Item = (u32, &'a State)>, sequence: u32) -> Vec<CallOf> {
    whereabouts(states.filter(|(_, state)| before(state.entered, sequence)))
}

/// The last call that each of these ranks completed, and the one that it is in.
pub(crate) fn whereabouts<'a>(states: impl Iterator<Item = (u32, &'a State)>) -> Vec<CallOf> {
    const LISTED: usize = 64;
    states
        .take(LISTED)
        .map(|(rank, state)| CallOf {
            rank,
            sequence: state.completed,
            // Still inside of an earlier call: that is what it is doing.
            call: if state.entered == state.completed { None } else { state.call(state.entered) },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Collective;
    use crate::element::{DataType, ReduceOp};

    fn call(count: u64) -> Call {
        Call {
            collective: Collective::AllReduce,
            dtype: DataType::F32,
            op: Some(ReduceOp::Sum),
            root: None,
            count,
        }
    }

    fn state(entered: u32, completed: u32, counts: &[(u32, u64)]) -> State {
        let calls = counts.iter().map(|&(sequence, count)| (sequence, call(count).pack())).collect();
        State { entered, completed, calls }
    }

    fn named(states: &[State]) -> Option<(u32, Vec<(u32, u64)>)> {
        let states: Vec<_> = states.iter().enumerate().map(|(rank, state)| (rank as u32, state)).collect();
        match mismatch(&states)? {
            Failure::Mismatch { sequence, calls } => {
                Some((sequence, calls.iter().map(|of| (of.rank, of.call.unwrap().count)).collect()))
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn two_ranks_are_both_named() {
        let states = [state(2, 1, &[(1, 5), (2, 10)]), state(2, 1, &[(1, 5), (2, 11)])];
        assert_eq!(named(&states), Some((2, vec![(0, 10), (1, 11)])));
    }

    #[test]
    fn the_odd_one_and_a_representative_are_named() {
        let usual = state(7, 6, &[(7, 10)]);
        let states = [usual.clone(), usual.clone(), usual.clone(), state(7, 6, &[(7, 9)]), usual];
        assert_eq!(named(&states), Some((7, vec![(0, 10), (3, 9)])));
    }

    #[test]
    fn a_rank_that_has_returned_is_compared_too_and_the_first_difference_counts() {
        let states = [state(9, 9, &[(7, 1), (8, 2), (9, 3)]), state(8, 7, &[(7, 1), (8, 5)])];
        assert_eq!(named(&states), Some((8, vec![(0, 2), (1, 5)])));
    }

    #[test]
    fn slow_ranks_are_no_mismatch() {
        let states = [state(9, 8, &[(8, 2), (9, 3)]), state(8, 7, &[(8, 2)]), state(7, 7, &[])];
        assert_eq!(named(&states), None);
        let missing = missing(states.iter().enumerate().map(|(rank, state)| (rank as u32, state)), 9);
        assert_eq!(missing.iter().map(|of| (of.rank, of.sequence)).collect::<Vec<_>>(), [(1, 7), (2, 7)]);
        assert_eq!(missing[0].call, Some(call(2)));
        assert_eq!(missing[1].call, None);
    }
}
