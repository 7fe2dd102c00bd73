//! The small traits between the one pass over memory ([`super::pass`]) and the instruction sets.
//!
//! ```text
//!   pass    load, combine, finish, store     generic over   Register x Operator
//!   Register   i8 .. f64 natively            one type per element type and instruction set; with it go
//!              Arithmetic                    what all of them can
//!              Bitwise                       what the u8 of each set can, on behalf of all integers
//!   Floats<F, L>   f32, f16, bf16, fp8       Format F (how it is stored) x Lanes L (32-bit lanes of a register)
//! ```
//!
//! A value of a [`Register`] or [`Lanes`] type is the proof that its instruction set is there: the only way to the first
//! one is `load`, whose caller promises it. So arithmetic on values is safe to call.

use std::marker::PhantomData;

/// Some elements of one type in one machine register.
pub(super) trait Register: Copy {
    /// How many elements it holds.
    const LANES: usize;
    /// The size of one element in memory, in bytes.
    const SIZE: usize;

    /// Reads `lanes` elements (1..=LANES), at any alignment; the other lanes hold zero.
    ///
    /// # Safety
    /// The CPU has the instruction set of this type, and `lanes * SIZE` bytes at `from` are readable.
    unsafe fn load(from: *const u8, lanes: usize) -> Self;

    /// Writes the first `lanes` elements (1..=LANES), at any alignment. Lanes that hold NaN must hold the canonical one.
    ///
    /// # Safety
    /// `lanes * SIZE` bytes at `to` are writable.
    unsafe fn store(self, to: *mut u8, lanes: usize);
}

/// A register whose elements are numbers.
pub(super) trait Arithmetic: Register {
    /// Sum; integers wrap.
    fn add(self, other: Self) -> Self;
    /// Product; integers wrap.
    fn mul(self, other: Self) -> Self;
    /// The greater; canonical NaN if either is NaN; -0 < +0.
    fn max(self, other: Self) -> Self;
    /// The less; canonical NaN if either is NaN; -0 < +0.
    fn min(self, other: Self) -> Self;
    /// Divides by `n`, which is not 0; integers truncate toward zero.
    fn divide(self, n: u32) -> Self;
    /// Replaces every NaN by the positive quiet NaN without payload; nothing to do for integers.
    fn canonical(self) -> Self;
}

/// A register of bits, whatever its elements are.
pub(super) trait Bitwise: Register {
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
}

/// A register of 32-bit lanes, read as integers (for conversions) or as f32.
pub(super) trait Lanes: Copy {
    const LANES: usize;
    /// As many 16-bit values, packed.
    type Packed16: Copy;

    /// Reads `lanes` bytes, each into the low end of a lane.
    ///
    /// # Safety
    /// As for [`Register::load`], with `lanes` readable bytes.
    unsafe fn load8(from: *const u8, lanes: usize) -> Self;
    /// Reads `lanes` packed 16-bit values.
    ///
    /// # Safety
    /// As for [`Register::load`], with `2 * lanes` readable bytes.
    unsafe fn load16(from: *const u8, lanes: usize) -> Self::Packed16;
    /// Reads `lanes` 32-bit values.
    ///
    /// # Safety
    /// As for [`Register::load`], with `4 * lanes` readable bytes.
    unsafe fn load32(from: *const u8, lanes: usize) -> Self;
    /// Writes the low byte of each of the first `lanes` lanes.
    ///
    /// # Safety
    /// `lanes` bytes at `to` are writable.
    unsafe fn store8(self, to: *mut u8, lanes: usize);
    /// Writes the first `lanes` of packed 16-bit values.
    ///
    /// # Safety
    /// `2 * lanes` bytes at `to` are writable, and the CPU has the instruction set of this type.
    unsafe fn store16(packed: Self::Packed16, to: *mut u8, lanes: usize);
    /// Writes the first `lanes` lanes.
    ///
    /// # Safety
    /// `4 * lanes` bytes at `to` are writable.
    unsafe fn store32(self, to: *mut u8, lanes: usize);

    /// Zero-extends packed values, of which the caller holds some and so has the instruction set.
    ///
    /// # Safety
    /// The CPU has the instruction set of this type.
    unsafe fn unpack16(packed: Self::Packed16) -> Self;
    /// Keeps the low half of each lane; the upper half must be zero.
    fn pack16(self) -> Self::Packed16;
    /// Widens packed IEEE binary16 values to f32, exactly.
    ///
    /// # Safety
    /// The CPU has the instruction set of this type.
    unsafe fn widen_f16(packed: Self::Packed16) -> Self;
    /// Rounds f32 lanes, NaN canonical, to packed IEEE binary16 values, to nearest even.
    fn narrow_f16(self) -> Self::Packed16;

    /// The same bits in every lane.
    fn splat(self, bits: u32) -> Self;
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn wrapping_add(self, other: Self) -> Self;
    fn wrapping_sub(self, other: Self) -> Self;
    fn shl(self, by: u32) -> Self;
    /// Logical: zeros come in.
    fn shr(self, by: u32) -> Self;
    /// The lesser as signed integers.
    fn min_signed(self, other: Self) -> Self;
    /// Lane by lane `then` where self < `limit` as signed integers, `otherwise` elsewhere.
    fn select_below(self, limit: Self, then: Self, otherwise: Self) -> Self;

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// As [`Arithmetic::max`].
    fn max(self, other: Self) -> Self;
    /// As [`Arithmetic::min`].
    fn min(self, other: Self) -> Self;
    /// As [`Arithmetic::canonical`].
    fn canonical(self) -> Self;
}

/// How a float type that is reduced in f32 lies in memory.
pub(super) trait Format: Copy {
    /// The size of one element in bytes.
    const SIZE: usize;

    /// Reads and widens.
    ///
    /// # Safety
    /// As for [`Register::load`].
    unsafe fn load<L: Lanes>(from: *const u8, lanes: usize) -> L;

    /// Rounds to nearest even and writes.
    ///
    /// # Safety
    /// As for [`Register::store`].
    unsafe fn store<L: Lanes>(value: L, to: *mut u8, lanes: usize);
}

/// Elements of format `F`, widened to f32 lanes.
#[derive(Clone, Copy)]
pub(super) struct Floats<F, L>(L, PhantomData<F>);

impl<F: Format, L: Lanes> Register for Floats<F, L> {
    const LANES: usize = L::LANES;
    const SIZE: usize = F::SIZE;

    #[inline(always)]
    unsafe fn load(from: *const u8, lanes: usize) -> Self {
        // SAFETY: the caller's promise is the one asked for.
        Floats(unsafe { F::load(from, lanes) }, PhantomData)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8, lanes: usize) {
        // SAFETY: the caller's promise is the one asked for.
        unsafe { F::store(self.0, to, lanes) }
    }
}

impl<F: Format, L: Lanes> Arithmetic for Floats<F, L> {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Floats(self.0.add(other.0), PhantomData)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Floats(self.0.mul(other.0), PhantomData)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Floats(self.0.max(other.0), PhantomData)
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Floats(self.0.min(other.0), PhantomData)
    }

    #[inline(always)]
    fn divide(self, n: u32) -> Self {
        Floats(self.0.div(self.0.splat((n as f32).to_bits())), PhantomData)
    }

    #[inline(always)]
    fn canonical(self) -> Self {
        Floats(self.0.canonical(), PhantomData)
    }
}

/// Methods whose bodies use the instructions of `$features` freely: a value of `$this` is the proof that they are there.
#[cfg(target_arch = "x86_64")]
macro_rules! with_instructions {
    ($features:literal, $this:ty: $(
        $(#[$meta:meta])* fn $name:ident($self_:ident $(, $arg:ident: $ty:ty)*) -> $ret:ty $body:block
    )*) => {$(
        $(#[$meta])*
        #[inline(always)]
        fn $name(self $(, $arg: $ty)*) -> $ret {
            #[inline]
            #[target_feature(enable = $features)]
            fn inside($self_: $this $(, $arg: $ty)*) -> $ret $body
            // SAFETY: the only way to a first value is `load`, whose caller promises the instruction set.
            unsafe { inside(self $(, $arg)*) }
        }
    )*};
}
#[cfg(target_arch = "x86_64")]
pub(super) use with_instructions;
