//! A program made ready to run: who is met on which edge, in which order.

use super::round;
use rccl_schedule::{Buffer, Dep, Program, Rank};
use rccl_transport::WINDOW;
use std::ops::Range;

/// A program with its edges spelled out. Depends on the shape of a call only, never on its count, so it is made once
/// and kept.
pub(crate) struct Plan {
    pub program: Program,
    /// One per operation of the program.
    pub steps: Vec<Step>,
    /// Every end of a message that this rank holds; a step's receiving ends come before its sending ends.
    pub ends: Vec<End>,
    /// The ends grouped by peer and direction, each group in program order: the order in which its messages open.
    pub edges: Vec<Vec<u32>>,
    /// The ranks that the program meets, ascending.
    pub peers: Vec<Rank>,
    /// One past the last step that meets nobody; such steps run whenever their dependencies allow it.
    pub local_until: usize,
    /// See [`round`].
    pub one_round: bool,
    /// No edge has more messages than a link keeps room for.
    pub fits_links: bool,
}

pub(crate) struct Step {
    /// Indices into [`Plan::ends`].
    pub recvs: Range<usize>,
    /// Indices into [`Plan::ends`].
    pub sends: Range<usize>,
    /// The local operand.
    pub own: Option<Buffer>,
    /// Where the local operand stands among the operands, which ascend by rank.
    pub own_at: usize,
    /// Where the value is stored here.
    pub store: Option<Buffer>,
    pub finish: bool,
    /// Indices into [`Plan::steps`].
    pub after: Vec<Dep>,
}

pub(crate) struct End {
    pub step: u32,
    pub peer: Rank,
    pub outgoing: bool,
}

impl Plan {
    pub fn new(program: Program) -> Plan {
        let mut steps = Vec::with_capacity(program.ops.len());
        let mut ends: Vec<End> = Vec::new();
        let mut local_until = 0;
        for (i, op) in program.ops.iter().enumerate() {
            let end = |peer: &Rank, outgoing| End { step: i as u32, peer: *peer, outgoing };
            let first = ends.len();
            ends.extend(op.recv.iter().map(|peer| end(peer, false)));
            let middle = ends.len();
            ends.extend(op.send.iter().map(|peer| end(peer, true)));
            if ends.len() == first {
                local_until = i + 1;
            }
            steps.push(Step {
                recvs: first..middle,
                sends: middle..ends.len(),
                own: op.reduce_with,
                own_at: op.recv.iter().filter(|&&peer| peer < program.rank).count(),
                store: op.copy_to,
                finish: op.finish,
                after: op.after.as_slice().to_vec(),
            });
        }
        let mut peers: Vec<Rank> = ends.iter().map(|end| end.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        let mut edges: Vec<Vec<u32>> = vec![Vec::new(); peers.len() * 2];
        for (i, end) in ends.iter().enumerate() {
            let peer = peers.partition_point(|&p| p < end.peer);
            edges[peer * 2 + usize::from(end.outgoing)].push(i as u32);
        }
        edges.retain(|edge| !edge.is_empty());
        // Sends first: what others wait for leaves before this rank prepares to receive.
        edges.sort_by_key(|edge| !ends[edge[0] as usize].outgoing);
        let one_round = round::is_round(&program);
        let fits_links = edges.iter().all(|edge| edge.len() <= WINDOW);
        Plan { program, steps, ends, edges, peers, local_until, one_round, fits_links }
    }
}
