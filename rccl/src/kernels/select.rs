//! From (instruction set, data type, operator) to the function that does it.

use super::codec::{Binary16, Brain16, E4M3, E5M2, Single};
use super::pass::{self, Max, Mean, Min, Operator, Prod, Sum};
use super::portable::{Block, Words};
use super::register::{Floats, Register};
use super::{Entry, Kernel};
use crate::element::{DataType, ReduceOp};

/// A family of instructions that kernels are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum InstructionSet {
    /// What every CPU of this architecture has (SSE2, NEON), by the compiler's vectoriser.
    Portable,
}

impl InstructionSet {
    /// Every set that kernels are built for on this architecture, from least to best.
    pub const ALL: &[InstructionSet] = &[InstructionSet::Portable];

    /// Whether this CPU has it.
    pub fn is_available(self) -> bool {
        self <= InstructionSet::best()
    }

    /// The best set that this CPU has.
    pub fn best() -> InstructionSet {
        InstructionSet::Portable
    }
}

/// # Safety
/// As for [`pass::run`].
unsafe fn portable<R: Register, O: Operator>(i: &[*const u8], o: &[*mut u8], count: usize, ranks: u32) {
    // SAFETY: the caller's promise, passed on.
    unsafe { pass::run::<R, O>(i, o, count, ranks) }
}

/// The kernel of an operator for one register type, whose entry is a generic function.
macro_rules! for_register {
    ($entry:ident, $register:ty, $op:expr) => {{
        let plain: Entry = match $op {
            ReduceOp::Sum | ReduceOp::Avg => $entry::<$register, Sum>,
            ReduceOp::Prod => $entry::<$register, Prod>,
            ReduceOp::Max => $entry::<$register, Max>,
            ReduceOp::Min => $entry::<$register, Min>,
        };
        let finishing: Entry = if $op == ReduceOp::Avg { $entry::<$register, Mean> } else { plain };
        Kernel { plain, finishing }
    }};
}

impl Kernel {
    pub(super) fn for_set(set: InstructionSet, dtype: DataType, op: ReduceOp) -> Kernel {
        match set {
            InstructionSet::Portable => match dtype {
                DataType::I8 => for_register!(portable, Block<i8, 16>, op),
                DataType::U8 => for_register!(portable, Block<u8, 16>, op),
                DataType::I32 => for_register!(portable, Block<i32, 4>, op),
                DataType::U32 => for_register!(portable, Block<u32, 4>, op),
                DataType::I64 => for_register!(portable, Block<i64, 2>, op),
                DataType::U64 => for_register!(portable, Block<u64, 2>, op),
                DataType::F16 => for_register!(portable, Floats<Binary16, Words<4>>, op),
                DataType::F32 => for_register!(portable, Floats<Single, Words<4>>, op),
                DataType::F64 => for_register!(portable, Block<f64, 2>, op),
                DataType::BF16 => for_register!(portable, Floats<Brain16, Words<4>>, op),
                DataType::F8E4M3 => for_register!(portable, Floats<E4M3, Words<4>>, op),
                DataType::F8E5M2 => for_register!(portable, Floats<E5M2, Words<4>>, op),
            },
        }
    }
}
