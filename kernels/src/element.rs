//! What a collective moves and how it combines it: data types, operators, and the Rust types that stand for them.
//!
//! Numbers and names are NCCL's, so that a value can be handed across the C interface unchanged and a table printed by
//! `rccl perf` reads like one printed by nccl-tests. Operators that NCCL has no number for have numbers of our own above.

mod fp8;

use std::fmt;
use std::str::FromStr;

pub use fp8::{F8E4M3, F8E5M2};

/// The type of one element of a buffer, with NCCL's numbers (`ncclDataType_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum DataType {
    /// Signed 8-bit integer.
    I8 = 0,
    /// Unsigned 8-bit integer.
    U8 = 1,
    /// Signed 32-bit integer.
    I32 = 2,
    /// Unsigned 32-bit integer.
    U32 = 3,
    /// Signed 64-bit integer.
    I64 = 4,
    /// Unsigned 64-bit integer.
    U64 = 5,
    /// IEEE 754 binary16; reduced in f32, rounded once per hop.
    F16 = 6,
    /// IEEE 754 binary32.
    F32 = 7,
    /// IEEE 754 binary64.
    F64 = 8,
    /// bfloat16, the upper half of an f32; reduced in f32, rounded once per hop.
    BF16 = 9,
    /// OCP 8-bit float with 4 exponent bits, see [`F8E4M3`]; reduced in f32, rounded once per hop.
    F8E4M3 = 10,
    /// OCP 8-bit float with 5 exponent bits, see [`F8E5M2`]; reduced in f32, rounded once per hop.
    F8E5M2 = 11,
}

impl DataType {
    /// Every type, in the order of NCCL's numbers.
    pub const ALL: [DataType; 12] = [
        DataType::I8,
        DataType::U8,
        DataType::I32,
        DataType::U32,
        DataType::I64,
        DataType::U64,
        DataType::F16,
        DataType::F32,
        DataType::F64,
        DataType::BF16,
        DataType::F8E4M3,
        DataType::F8E5M2,
    ];

    /// The size of one element in bytes: 1, 2, 4 or 8.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            DataType::I8 | DataType::U8 | DataType::F8E4M3 | DataType::F8E5M2 => 1,
            DataType::F16 | DataType::BF16 => 2,
            DataType::I32 | DataType::U32 | DataType::F32 => 4,
            DataType::I64 | DataType::U64 | DataType::F64 => 8,
        }
    }

    /// The name that nccl-tests prints and accepts: `float`, `half`, `bfloat16`, `int8` …
    pub const fn name(self) -> &'static str {
        match self {
            DataType::I8 => "int8",
            DataType::U8 => "uint8",
            DataType::I32 => "int32",
            DataType::U32 => "uint32",
            DataType::I64 => "int64",
            DataType::U64 => "uint64",
            DataType::F16 => "half",
            DataType::F32 => "float",
            DataType::F64 => "double",
            DataType::BF16 => "bfloat16",
            DataType::F8E4M3 => "f8e4m3",
            DataType::F8E5M2 => "f8e5m2",
        }
    }

    /// Whether it is one of the integers, and not a float.
    #[inline]
    pub const fn is_integer(self) -> bool {
        matches!(
            self,
            DataType::I8 | DataType::U8 | DataType::I32 | DataType::U32 | DataType::I64 | DataType::U64
        )
    }

    /// The short name in the manner of Rust, used in errors: `f32`, `bf16`, `i8` …
    pub const fn short_name(self) -> &'static str {
        match self {
            DataType::I8 => "i8",
            DataType::U8 => "u8",
            DataType::I32 => "i32",
            DataType::U32 => "u32",
            DataType::I64 => "i64",
            DataType::U64 => "u64",
            DataType::F16 => "f16",
            DataType::F32 => "f32",
            DataType::F64 => "f64",
            DataType::BF16 => "bf16",
            DataType::F8E4M3 => "f8e4m3",
            DataType::F8E5M2 => "f8e5m2",
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.short_name())
    }
}

impl TryFrom<u8> for DataType {
    type Error = UnknownNumber;

    #[inline]
    fn try_from(number: u8) -> Result<Self, UnknownNumber> {
        DataType::ALL.get(usize::from(number)).copied().ok_or(UnknownNumber {
            what: "data type",
            number,
            known: DataType::ALL.len() as u8,
        })
    }
}

impl FromStr for DataType {
    type Err = UnknownName;

    /// Reads nccl-tests' name or the short name, in any case.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        DataType::ALL
            .into_iter()
            .find(|t| text.eq_ignore_ascii_case(t.name()) || text.eq_ignore_ascii_case(t.short_name()))
            .ok_or_else(|| UnknownName {
                what: "data type",
                text: text.to_owned(),
                known: DataType::ALL.map(DataType::name).join(", "),
            })
    }
}

/// How two elements are combined. Numbers up to 4 are NCCL's (`ncclRedOp_t`); those above are ours, and mean nothing to
/// NCCL, which gives them to operators that a program creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum ReduceOp {
    /// The sum; integers wrap.
    Sum = 0,
    /// The product; integers wrap.
    Prod = 1,
    /// The greatest; NaN if any operand is NaN, and +0 is greater than -0.
    Max = 2,
    /// The least; NaN if any operand is NaN, and -0 is less than +0.
    Min = 3,
    /// The sum, divided once by the number of ranks; integers truncate toward zero.
    Avg = 4,
    /// Bitwise and; integers only.
    BitAnd = 5,
    /// Bitwise or; integers only.
    BitOr = 6,
    /// Bitwise exclusive or; integers only.
    BitXor = 7,
    /// The sum of operands that each rank multiplies by a scalar of its own first (see [`Scale`](crate::Scale)). To a
    /// kernel, which gets the products, it is [`ReduceOp::Sum`].
    PreMulSum = 8,
}

impl ReduceOp {
    /// Every operator, in the order of their numbers. Not every one suits every type, see [`ReduceOp::suits`].
    pub const ALL: [ReduceOp; 9] = [
        ReduceOp::Sum,
        ReduceOp::Prod,
        ReduceOp::Max,
        ReduceOp::Min,
        ReduceOp::Avg,
        ReduceOp::BitAnd,
        ReduceOp::BitOr,
        ReduceOp::BitXor,
        ReduceOp::PreMulSum,
    ];

    /// Whether elements of `dtype` can be combined by it: the bitwise operators take integers only, all others any type.
    #[inline]
    pub const fn suits(self, dtype: DataType) -> bool {
        !self.is_bitwise() || dtype.is_integer()
    }

    /// Whether it is one of [`ReduceOp::BitAnd`], [`ReduceOp::BitOr`] and [`ReduceOp::BitXor`].
    #[inline]
    pub const fn is_bitwise(self) -> bool {
        matches!(self, ReduceOp::BitAnd | ReduceOp::BitOr | ReduceOp::BitXor)
    }

    /// The name that nccl-tests prints and accepts: `sum`, `prod`, `max`, `min`, `avg`; the others are named after MPI's
    /// and NCCL's: `band`, `bor`, `bxor`, `premulsum`.
    pub const fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Prod => "prod",
            ReduceOp::Max => "max",
            ReduceOp::Min => "min",
            ReduceOp::Avg => "avg",
            ReduceOp::BitAnd => "band",
            ReduceOp::BitOr => "bor",
            ReduceOp::BitXor => "bxor",
            ReduceOp::PreMulSum => "premulsum",
        }
    }
}

impl fmt::Display for ReduceOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl TryFrom<u8> for ReduceOp {
    type Error = UnknownNumber;

    #[inline]
    fn try_from(number: u8) -> Result<Self, UnknownNumber> {
        ReduceOp::ALL.get(usize::from(number)).copied().ok_or(UnknownNumber {
            what: "operator",
            number,
            known: ReduceOp::ALL.len() as u8,
        })
    }
}

impl FromStr for ReduceOp {
    type Err = UnknownName;

    /// Reads the name in any case.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        ReduceOp::ALL.into_iter().find(|op| text.eq_ignore_ascii_case(op.name())).ok_or_else(|| UnknownName {
            what: "operator",
            text: text.to_owned(),
            known: ReduceOp::ALL.map(ReduceOp::name).join(", "),
        })
    }
}

/// A number that stands for no data type or operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} number {number}: numbers 0 to {} are known", known - 1)]
pub struct UnknownNumber {
    what: &'static str,
    number: u8,
    known: u8,
}

/// A word that names no data type or operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} \"{text}\": use one of {known}")]
pub struct UnknownName {
    what: &'static str,
    text: String,
    known: String,
}

/// A Rust type that can be an element of a collective's buffer.
///
/// Sealed: the engine's kernels know exactly these types. All are plain data: any bit pattern is a value, and a slice of
/// them can be sent as bytes.
pub trait Element: bytemuck::Pod + Send + Sync + sealed::Sealed {
    /// The data type that stands for this Rust type.
    const TYPE: DataType;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($rust:ty => $data_type:ident),* $(,)?) => {$(
        impl sealed::Sealed for $rust {}
        impl Element for $rust {
            const TYPE: DataType = DataType::$data_type;
        }
        const _: () = assert!(size_of::<$rust>() == DataType::$data_type.size());
    )*};
}

elements! {
    i8 => I8,
    u8 => U8,
    i32 => I32,
    u32 => U32,
    i64 => I64,
    u64 => U64,
    half::f16 => F16,
    f32 => F32,
    f64 => F64,
    half::bf16 => BF16,
    F8E4M3 => F8E4M3,
    F8E5M2 => F8E5M2,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_round_trip() {
        for (number, t) in DataType::ALL.into_iter().enumerate() {
            assert_eq!(t as usize, number);
            assert_eq!(DataType::try_from(number as u8), Ok(t));
            assert_eq!(t.name().parse(), Ok(t));
            assert_eq!(t.short_name().to_uppercase().parse(), Ok(t));
        }
        for (number, op) in ReduceOp::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, number);
            assert_eq!(ReduceOp::try_from(number as u8), Ok(op));
            assert_eq!(op.name().parse(), Ok(op));
        }
    }

    #[test]
    fn unknown_words_name_the_known_ones() {
        let error = "fp32".parse::<DataType>().unwrap_err().to_string();
        assert!(error.starts_with("unknown data type \"fp32\": use one of int8, "), "{error}");
        let error = DataType::try_from(12).unwrap_err().to_string();
        assert_eq!(error, "unknown data type number 12: numbers 0 to 11 are known");
        let error = "mean".parse::<ReduceOp>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown operator \"mean\": use one of sum, prod, max, min, avg, band, bor, bxor, premulsum"
        );
        assert!(ReduceOp::try_from(9).is_err());
    }

    #[test]
    fn bitwise_operators_suit_integers_only() {
        for dtype in DataType::ALL {
            let float = !matches!(dtype.short_name(), "i8" | "u8" | "i32" | "u32" | "i64" | "u64");
            for op in ReduceOp::ALL {
                let bitwise = matches!(op.name(), "band" | "bor" | "bxor");
                assert_eq!(op.suits(dtype), !(bitwise && float), "{op} on {dtype}");
            }
        }
    }
}
