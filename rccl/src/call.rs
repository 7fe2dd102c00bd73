//! What a rank asked for: the identity of a call that both ends of every edge compare.

use crate::element::{DataType, ReduceOp};
use std::fmt;

/// The collective operations.
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
}

impl Collective {
    /// The name of the method.
    pub fn name(self) -> &'static str {
        match self {
            Collective::AllReduce => "all_reduce",
            Collective::Broadcast => "broadcast",
            Collective::Barrier => "barrier",
        }
    }
    fn from_code(code: u8) -> Option<Collective> {
        [Collective::AllReduce, Collective::Broadcast, Collective::Barrier]
            .into_iter()
            .find(|&collective| collective as u8 == code)
    }
}

/// A call's signature: what must agree on all ranks.
///
/// Its packed form travels with every message:
///
/// ```text
/// word 0:  63..32 root (MAX: none) | 31..24 reserved | 23..16 operator (255: none) | 15..8 type | 7..0 collective
/// word 1:  count in elements
/// ```
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
    /// Elements.
    pub count: u64,
}

impl Call {
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

    /// Bytes of the call's elements.
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
        write!(f, " {} x{}", self.dtype.short_name(), self.count)?;
        if let Some(op) = self.op {
            write!(f, " {}", op.name())?;
        }
        if let Some(root) = self.root {
            write!(f, " root {root}")?;
        }
        Ok(())
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
