//! What a rank asked for: the identity of a call that both ends of every edge compare.

use crate::element::{DataType, ReduceOp};
use rccl_schedule::Collective as Schedule;
use std::fmt;

/// The collective operations, and point-to-point messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Collective {
    /// Every rank gets the reduction of all ranks' elements.
    AllReduce = 1,
    /// Every rank gets the root's elements.
    Broadcast = 2,
    /// Nobody returns before everybody has called.
    Barrier = 3,
    /// The root gets the reduction of all ranks' elements.
    Reduce = 4,
    /// Rank r gets block r of the reduction of all ranks' elements.
    ReduceScatter = 5,
    /// Every rank gets all ranks' elements, in order of rank.
    AllGather = 6,
    /// The root gets all ranks' elements, in order of rank.
    Gather = 7,
    /// Rank r gets block r of the root's elements.
    Scatter = 8,
    /// Rank r gets block r of every rank's elements, in order of rank.
    AllToAll = 9,
    /// [`Collective::ReduceScatter`] with blocks of different lengths.
    ReduceScatterV = 10,
    /// [`Collective::AllGather`] with blocks of different lengths.
    AllGatherV = 11,
    /// [`Collective::Gather`] with blocks of different lengths.
    GatherV = 12,
    /// [`Collective::Scatter`] with blocks of different lengths.
    ScatterV = 13,
    /// [`Collective::AllToAll`] with blocks of different lengths.
    AllToAllV = 14,
    /// One rank's elements to another. Its root is the receiver.
    Send = 15,
    /// The other end of [`Collective::Send`]. Its root is the sender.
    Recv = 16,
    /// Small calls of a group that run as one.
    Fused = 17,
}

impl Collective {
    /// Every one, in the order of their numbers.
    pub const ALL: [Collective; 17] = [
        Collective::AllReduce,
        Collective::Broadcast,
        Collective::Barrier,
        Collective::Reduce,
        Collective::ReduceScatter,
        Collective::AllGather,
        Collective::Gather,
        Collective::Scatter,
        Collective::AllToAll,
        Collective::ReduceScatterV,
        Collective::AllGatherV,
        Collective::GatherV,
        Collective::ScatterV,
        Collective::AllToAllV,
        Collective::Send,
        Collective::Recv,
        Collective::Fused,
    ];

    /// The name of the method.
    pub fn name(self) -> &'static str {
        match self {
            Collective::AllReduce => "all_reduce",
            Collective::Broadcast => "broadcast",
            Collective::Barrier => "barrier",
            Collective::Reduce => "reduce",
            Collective::ReduceScatter => "reduce_scatter",
            Collective::AllGather => "all_gather",
            Collective::Gather => "gather",
            Collective::Scatter => "scatter",
            Collective::AllToAll => "all_to_all",
            Collective::ReduceScatterV => "reduce_scatter_v",
            Collective::AllGatherV => "all_gather_v",
            Collective::GatherV => "gather_v",
            Collective::ScatterV => "scatter_v",
            Collective::AllToAllV => "all_to_all_v",
            Collective::Send => "send",
            Collective::Recv => "recv",
            Collective::Fused => "group",
        }
    }

    /// What its schedules compute; `None` for messages and groups, which are no collectives of their own.
    #[inline]
    pub(crate) fn schedule(self, root: u32) -> Option<Schedule> {
        Some(match self {
            Collective::AllReduce | Collective::Barrier => Schedule::AllReduce,
            Collective::Broadcast => Schedule::Broadcast { root },
            Collective::Reduce => Schedule::Reduce { root },
            Collective::ReduceScatter | Collective::ReduceScatterV => Schedule::ReduceScatter,
            Collective::AllGather | Collective::AllGatherV => Schedule::AllGather,
            Collective::Gather | Collective::GatherV => Schedule::Gather { root },
            Collective::Scatter | Collective::ScatterV => Schedule::Scatter { root },
            Collective::AllToAll | Collective::AllToAllV => Schedule::AllToAll,
            Collective::Send | Collective::Recv | Collective::Fused => return None,
        })
    }

    /// Whether ranks only know the lengths of their own messages, so that each message carries its own.
    pub(crate) fn varies(self) -> bool {
        matches!(
            self,
            Collective::GatherV
                | Collective::ScatterV
                | Collective::AllToAllV
                | Collective::Send
                | Collective::Recv
        )
    }

    /// Whether its blocks have lengths of their own.
    pub(crate) fn has_counts(self) -> bool {
        matches!(
            self,
            Collective::ReduceScatterV
                | Collective::AllGatherV
                | Collective::GatherV
                | Collective::ScatterV
                | Collective::AllToAllV
        )
    }

    fn from_code(code: u8) -> Option<Collective> {
        Collective::ALL.into_iter().find(|&collective| collective as u8 == code)
    }
}

/// A call's signature: what must agree on all ranks.
///
/// Its packed form travels with every message:
///
/// ```text
/// word 0:  63..32 root (MAX: none) | 31..24 0 | 23..16 operator (255: none) | 15..8 type | 7..0 collective
/// word 1:  count in elements
/// ```
///
/// Where every rank knows the lengths of all blocks (all_gather_v, reduce_scatter_v), the place of the root has a digest
/// of them. Where a rank knows those of its own messages only, a message's word 1 is its own length, and that of the
/// call as a whole [`Call::VARYING`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "[u64; 2]", try_from = "[u64; 2]")]
pub struct Call {
    /// Which collective.
    pub collective: Collective,
    /// Type of the elements.
    pub dtype: DataType,
    /// Reduction operator, where there is one.
    pub op: Option<ReduceOp>,
    /// Root rank, where there is one.
    pub root: Option<u32>,
    /// Elements: of a block where the collective has blocks, of all of them if their lengths differ.
    pub count: u64,
}

impl Call {
    /// The count of a call whose ranks know the lengths of their own messages only.
    pub const VARYING: u64 = u64::MAX;

    /// The two words that messages carry.
    #[inline]
    pub fn pack(&self) -> [u64; 2] {
        let op = self.op.map_or(255, |op| op as u8);
        let root = self.root.unwrap_or(u32::MAX);
        [
            u64::from(root) << 32
                | u64::from(op) << 16
                | u64::from(self.dtype as u8) << 8
                | u64::from(self.collective as u8),
            self.count,
        ]
    }

    /// The call that was packed, or `None` for words that no version of this protocol writes.
    pub fn unpack(words: [u64; 2]) -> Option<Call> {
        let [word, count] = words;
        let op = (word >> 16) as u8;
        let root = (word >> 32) as u32;
        Some(Call {
            collective: Collective::from_code(word as u8)?,
            dtype: DataType::try_from((word >> 8) as u8).ok()?,
            op: if op == 255 { None } else { Some(ReduceOp::try_from(op).ok()?) },
            root: (root != u32::MAX).then_some(root),
            count,
        })
    }

    /// A message as the call of one of its ends: the one that sends it or not, with this rank at the other end.
    pub(crate) fn seen(self, sends: bool, other: u32) -> Call {
        match self.collective {
            Collective::Send | Collective::Recv => {
                let collective = if sends { Collective::Send } else { Collective::Recv };
                Call { collective, root: Some(other), ..self }
            }
            _ => self,
        }
    }

    /// Bytes of [`Call::count`] elements.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.count * self.dtype.size() as u64
    }
}

impl From<Call> for [u64; 2] {
    fn from(call: Call) -> [u64; 2] {
        call.pack()
    }
}

impl TryFrom<[u64; 2]> for Call {
    type Error = &'static str;

    fn try_from(words: [u64; 2]) -> Result<Call, &'static str> {
        Call::unpack(words).ok_or("words that no call is packed to")
    }
}

/// `all_reduce f32 x1000 sum`, `broadcast i32 x7 root 2`, `barrier`.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.collective.name())?;
        if self.collective == Collective::Barrier {
            return Ok(());
        }
        if self.collective == Collective::Fused {
            return write!(f, " of {} calls", self.root.unwrap_or(0));
        }
        write!(f, " {}", self.dtype.short_name())?;
        if self.count != Call::VARYING {
            write!(f, " x{}", self.count)?;
        }
        if let Some(op) = self.op {
            write!(f, " {}", op.name())?;
        }
        match (self.collective, self.root) {
            (_, None) => Ok(()),
            (Collective::AllGatherV | Collective::ReduceScatterV, Some(digest)) => {
                write!(f, " in blocks [{digest:08x}]")
            }
            (Collective::Send, Some(to)) => write!(f, " to rank {to}"),
            (Collective::Recv, Some(from)) => write!(f, " from rank {from}"),
            (_, Some(root)) => write!(f, " root {root}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_survives_packing() {
        let calls = [
            Call {
                collective: Collective::AllReduce,
                dtype: DataType::BF16,
                op: Some(ReduceOp::Avg),
                root: None,
                count: 1 << 40,
            },
            Call {
                collective: Collective::Broadcast,
                dtype: DataType::U64,
                op: None,
                root: Some(7),
                count: 0,
            },
        ];
        for call in calls {
            assert_eq!(Call::unpack(call.pack()), Some(call));
        }
        assert_eq!(Call::unpack([0, 0]), None);
    }
}
