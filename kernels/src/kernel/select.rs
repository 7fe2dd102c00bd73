//! From (instruction set, data type, operator) to the function that does it.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::avx2::{self, Words8};
#[cfg(target_arch = "x86_64")]
use super::avx512::{self, Words16};
use super::codec::{Binary16, Brain16, E4M3, E5M2, Single};
use super::pass::{self, And, Max, Mean, Min, Operator, Or, Prod, Sum, Xor};
use super::portable::{Block, Words};
use super::register::{Floats, Register};
use super::{Entry, Kernel};
use crate::element::{DataType, ReduceOp};

/// A family of instructions that kernels are built for, from least to best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum InstructionSet {
    /// What every CPU of this architecture has (SSE2, NEON), by the compiler's vectoriser.
    Portable,
    /// AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl InstructionSet {
    /// Every set that kernels are built for on this architecture, from least to best.
    pub const ALL: &[InstructionSet] = &[
        InstructionSet::Portable,
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2,
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512,
    ];

    /// The best set that this CPU has; the CPU is asked once per process.
    pub fn best() -> InstructionSet {
        static BEST: OnceLock<InstructionSet> = OnceLock::new();
        *BEST.get_or_init(|| {
            let mut available = InstructionSet::ALL.iter().copied().filter(|set| set.is_available());
            available.next_back().unwrap_or(InstructionSet::Portable)
        })
    }

    /// Whether this CPU has it.
    pub fn is_available(self) -> bool {
        match self {
            InstructionSet::Portable => true,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c"),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
        }
    }
}

/// # Safety
/// As for [`pass::run`].
unsafe fn portable<R: Register, O: Operator<R>>(i: &[*const u8], o: &[*mut u8], count: usize, ranks: u32) {
    // SAFETY: the caller's promise, passed on.
    unsafe { pass::run::<R, O>(i, o, count, ranks) }
}

/// # Safety
/// As for [`pass::run`]; the CPU has [`InstructionSet::Avx2`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
unsafe fn avx2<R: Register, O: Operator<R>>(i: &[*const u8], o: &[*mut u8], count: usize, ranks: u32) {
    // SAFETY: the caller's promise, passed on.
    unsafe { pass::run::<R, O>(i, o, count, ranks) }
}

/// # Safety
/// As for [`pass::run`]; the CPU has [`InstructionSet::Avx512`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn avx512<R: Register, O: Operator<R>>(i: &[*const u8], o: &[*mut u8], count: usize, ranks: u32) {
    // SAFETY: the caller's promise, passed on.
    unsafe { pass::run::<R, O>(i, o, count, ranks) }
}

/// The kernel of operator `$op`, with `$entry` as the entry and, for each data type, the register that it works on.
macro_rules! kernel {
    ($entry:ident, $dtype:expr, $op:expr, $registers:tt) => {{
        let plain = match $op {
            ReduceOp::Sum | ReduceOp::Avg | ReduceOp::PreMulSum => {
                of_numbers!($entry, Sum, $dtype, $registers)
            }
            ReduceOp::Prod => of_numbers!($entry, Prod, $dtype, $registers),
            ReduceOp::Max => of_numbers!($entry, Max, $dtype, $registers),
            ReduceOp::Min => of_numbers!($entry, Min, $dtype, $registers),
            ReduceOp::BitAnd => of_bits!($entry, And, $dtype, $registers),
            ReduceOp::BitOr => of_bits!($entry, Or, $dtype, $registers),
            ReduceOp::BitXor => of_bits!($entry, Xor, $dtype, $registers),
        };
        let finishing =
            if $op == ReduceOp::Avg { of_numbers!($entry, Mean, $dtype, $registers) } else { plain };
        Kernel { plain, finishing, size: $dtype.size() }
    }};
}

/// The entry of an arithmetic operator: one for each data type.
macro_rules! of_numbers {
    ($entry:ident, $operator:ty, $dtype:expr, { $($data_type:ident: $register:ty,)* }) => {{
        let entry: Entry = match $dtype {$( DataType::$data_type => $entry::<$register, $operator>, )*};
        entry
    }};
}

/// The entry of a bitwise operator: that of U8 for all integers, told of as many times more elements as theirs are
/// longer.
macro_rules! of_bits {
    ($entry:ident, $operator:ty, $dtype:expr, { $i8:ident: $_i8:ty, U8: $bytes:ty, $($rest:tt)* }) => {{
        /// # Safety
        /// As for [`pass::run`] with elements of `SIZE` bytes; the CPU has the instruction set.
        unsafe fn bits<const SIZE: usize>(i: &[*const u8], o: &[*mut u8], count: usize, ranks: u32) {
            // SAFETY: the caller's promise, in bytes.
            unsafe { $entry::<$bytes, $operator>(i, o, count * SIZE, ranks) }
        }
        let entry: Entry = match $dtype.size() {
            1 => bits::<1>,
            4 => bits::<4>,
            _ => bits::<8>,
        };
        entry
    }};
}

impl Kernel {
    /// The kernel of one instruction set, which the CPU must have to run it; `None` if `op` does not suit `dtype`.
    pub(super) fn for_set(set: InstructionSet, dtype: DataType, op: ReduceOp) -> Option<Kernel> {
        if !op.suits(dtype) {
            return None;
        }
        Some(match set {
            InstructionSet::Portable => kernel!(portable, dtype, op, {
                I8: Block<i8, 16>,
                U8: Block<u8, 16>,
                I32: Block<i32, 4>,
                U32: Block<u32, 4>,
                I64: Block<i64, 2>,
                U64: Block<u64, 2>,
                F16: Floats<Binary16, Words<4>>,
                F32: Floats<Single, Words<4>>,
                F64: Block<f64, 2>,
                BF16: Floats<Brain16, Words<4>>,
                F8E4M3: Floats<E4M3, Words<4>>,
                F8E5M2: Floats<E5M2, Words<4>>,
            }),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => kernel!(avx2, dtype, op, {
                I8: avx2::I8x32,
                U8: avx2::U8x32,
                I32: avx2::I32x8,
                U32: avx2::U32x8,
                I64: avx2::I64x4,
                U64: avx2::U64x4,
                F16: Floats<Binary16, Words8>,
                F32: Floats<Single, Words8>,
                F64: avx2::F64x4,
                BF16: Floats<Brain16, Words8>,
                F8E4M3: Floats<E4M3, Words8>,
                F8E5M2: Floats<E5M2, Words8>,
            }),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => kernel!(avx512, dtype, op, {
                I8: avx512::I8x64,
                U8: avx512::U8x64,
                I32: avx512::I32x16,
                U32: avx512::U32x16,
                I64: avx512::I64x8,
                U64: avx512::U64x8,
                F16: Floats<Binary16, Words16>,
                F32: Floats<Single, Words16>,
                F64: avx512::F64x8,
                BF16: Floats<Brain16, Words16>,
                F8E4M3: Floats<E4M3, Words16>,
                F8E5M2: Floats<E5M2, Words16>,
            }),
        })
    }
}
