//! The communicators of one rank: those that it is in, those that it has left, and what it knows of others.

use super::shared::{Shared, WORLD};
use crate::bootstrap::message::State;
use crate::error::{Failure, Member};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

/// How many communicators that were left are remembered, for peers that are behind.
const REMEMBERED: usize = 256;
/// How many failures of communicators that are not here yet are kept.
const FORETOLD: usize = 64;

#[derive(Default)]
pub(crate) struct Directory {
    here: HashMap<u64, Weak<Shared>>,
    /// The latest last.
    left: VecDeque<(u64, State)>,
    /// Never forgotten, unlike other communicators.
    world_left: Option<State>,
    foretold: VecDeque<(u64, Failure)>,
    /// Ranks of the job that were lost, and how.
    lost: Vec<(Member, String)>,
    root_lost: Option<(Member, String)>,
    /// All were left: the session ends.
    closed: bool,
}

/// What a rank knows of a communicator.
pub(crate) enum Found {
    Here(Arc<Shared>),
    /// It was left after this.
    Left(State),
    /// It has not been made here yet, or was left long ago.
    Absent,
}

/// A communicator was left.
pub(crate) struct Left {
    /// The rank is in no other.
    pub last: bool,
}

impl Directory {
    /// Whether the rank has left the job.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Takes a communicator up; says what has broken it already.
    pub(crate) fn enter(&mut self, shared: &Arc<Shared>) -> Result<Option<Failure>, &'static str> {
        if self.closed {
            return Err("this rank has left the job");
        }
        if self.here.contains_key(&shared.id) {
            return Err("this rank is in a communicator with this id");
        }
        self.here.insert(shared.id, Arc::downgrade(shared));
        self.left.retain(|(id, _)| *id != shared.id);
        if let Some(at) = self.foretold.iter().position(|(id, _)| *id == shared.id) {
            return Ok(self.foretold.remove(at).map(|(_, failure)| failure));
        }
        if let Some((root, how)) = &self.root_lost {
            return Ok(Some(root_lost(root, shared, how.clone(), 0)));
        }
        let lost = self.lost.iter().find_map(|(member, how)| {
            let rank = shared.group.inside(member.rank)?;
            Some(peer_lost(member, rank, how))
        });
        Ok(lost)
    }

    pub(crate) fn leave(&mut self, communicator: u64, state: State) -> Option<Left> {
        self.here.remove(&communicator)?;
        if communicator == WORLD {
            self.world_left = Some(state);
        } else {
            if self.left.len() == REMEMBERED {
                self.left.pop_front();
            }
            self.left.push_back((communicator, state));
        }
        self.closed = self.here.is_empty();
        Some(Left { last: self.closed })
    }

    pub(crate) fn find(&self, communicator: u64) -> Found {
        if let Some(shared) = self.here.get(&communicator).and_then(Weak::upgrade) {
            return Found::Here(shared);
        }
        let left = match communicator {
            WORLD => self.world_left.as_ref(),
            _ => self.left.iter().find(|(id, _)| *id == communicator).map(|(_, state)| state),
        };
        left.map_or(Found::Absent, |state| Found::Left(state.clone()))
    }

    /// The communicators other than the world that were left, as far as they are remembered, and the number of the last
    /// call that the rank entered in each.
    pub(crate) fn calls_left(&self) -> Vec<(u64, u32)> {
        self.left.iter().map(|(id, state)| (*id, state.entered)).collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Shared>> {
        self.here.values().filter_map(Weak::upgrade).collect()
    }

    /// The communicator that is to fail, if it is here; else its failure is kept until it is.
    pub(crate) fn foretell(&mut self, communicator: u64, failure: &Failure) -> Option<Arc<Shared>> {
        match self.find(communicator) {
            Found::Here(shared) => return Some(shared),
            Found::Left(_) => return None,
            Found::Absent => {}
        }
        if !self.foretold.iter().any(|(id, _)| *id == communicator) {
            if self.foretold.len() == FORETOLD {
                self.foretold.pop_front();
            }
            self.foretold.push_back((communicator, failure.clone()));
        }
        None
    }

    pub(crate) fn lost(&mut self, member: Member, how: String) {
        self.lost.push((member, how));
    }
    pub(crate) fn root_lost(&mut self, root: Member, how: String) {
        self.root_lost.get_or_insert((root, how));
    }
}

/// `member` of the job, which is `rank` of a communicator, was lost. The number of the call is left out: ranks may be
/// in different ones, and all are to report the same.
pub(crate) fn peer_lost(member: &Member, rank: u32, how: &str) -> Failure {
    Failure::PeerLost {
        member: Member { rank, ..member.clone() },
        how: how.to_owned(),
        sequence: 0,
        seen_by: "the job's root".into(),
    }
}

/// The root of the job was lost, as `shared` sees it: it need not be one of its ranks.
pub(crate) fn root_lost(root: &Member, shared: &Shared, how: String, sequence: u32) -> Failure {
    let rank = shared.group.inside(root.rank).unwrap_or(u32::MAX);
    Failure::PeerLost { member: Member { rank, ..root.clone() }, how, sequence, seen_by: "every rank".into() }
}
