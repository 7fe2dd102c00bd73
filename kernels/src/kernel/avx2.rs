//! 32-byte registers of x86-64 with AVX2 and F16C (every x86-64 CPU since 2013). What does not fill a register goes
//! through a padded copy.

use std::arch::x86_64::*;

use super::codec::{NAN_F32, NAN_F64};
use super::portable::Block;
use super::register::{Arithmetic, Bitwise, Lanes, Register, with_instructions};

/// Reads a whole register, or as many bytes as asked for with zeros after them.
///
/// # Safety
/// The CPU has AVX2, and `bytes <= 32` bytes at `from` are readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn read(from: *const u8, bytes: usize) -> __m256i {
    if bytes == 32 {
        // SAFETY: the caller promises 32 bytes.
        return unsafe { _mm256_loadu_si256(from.cast()) };
    }
    let mut pad = [0u8; 32];
    // SAFETY: the caller promises the source, and that the pad is long enough.
    unsafe { pad.as_mut_ptr().copy_from_nonoverlapping(from, bytes) };
    // SAFETY: the pad has 32 bytes.
    unsafe { _mm256_loadu_si256(pad.as_ptr().cast()) }
}

/// Writes a whole register, or its first bytes.
///
/// # Safety
/// The CPU has AVX2, and `bytes <= 32` bytes at `to` are writable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn write(value: __m256i, to: *mut u8, bytes: usize) {
    if bytes == 32 {
        // SAFETY: the caller promises 32 bytes.
        return unsafe { _mm256_storeu_si256(to.cast(), value) };
    }
    let mut pad = [0u8; 32];
    // SAFETY: the pad has 32 bytes.
    unsafe { _mm256_storeu_si256(pad.as_mut_ptr().cast(), value) };
    // SAFETY: the caller promises the target, and that the pad is long enough.
    unsafe { to.copy_from_nonoverlapping(pad.as_ptr(), bytes) };
}

/// 8 lanes of 32 bits.
#[derive(Clone, Copy)]
pub(super) struct Words8(__m256i);

impl Lanes for Words8 {
    const LANES: usize = 8;
    type Packed16 = __m128i;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load8(from: *const u8, lanes: usize) -> Self {
        if lanes == 8 {
            // SAFETY: the caller promises 8 bytes.
            return Words8(_mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(from.cast()) }));
        }
        // SAFETY: the caller promises that many bytes.
        Words8(_mm256_cvtepu8_epi32(_mm256_castsi256_si128(unsafe { read(from, lanes) })))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load16(from: *const u8, lanes: usize) -> __m128i {
        if lanes == 8 {
            // SAFETY: the caller promises 16 bytes.
            return unsafe { _mm_loadu_si128(from.cast()) };
        }
        // SAFETY: the caller promises that many bytes.
        _mm256_castsi256_si128(unsafe { read(from, 2 * lanes) })
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load32(from: *const u8, lanes: usize) -> Self {
        // SAFETY: the caller's promise is the one asked for.
        Words8(unsafe { read(from, 4 * lanes) })
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store8(self, to: *mut u8, lanes: usize) {
        let packed = _mm_packus_epi16(self.pack16(), self.pack16());
        if lanes == 8 {
            // SAFETY: the caller promises 8 bytes.
            return unsafe { _mm_storel_epi64(to.cast(), packed) };
        }
        let packed = _mm256_castsi128_si256(packed);
        // SAFETY: the caller promises that many bytes.
        unsafe { write(packed, to, lanes) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store16(packed: __m128i, to: *mut u8, lanes: usize) {
        if lanes == 8 {
            // SAFETY: the caller promises 16 bytes.
            return unsafe { _mm_storeu_si128(to.cast(), packed) };
        }
        let packed = _mm256_castsi128_si256(packed);
        // SAFETY: the caller promises that many bytes.
        unsafe { write(packed, to, 2 * lanes) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store32(self, to: *mut u8, lanes: usize) {
        // SAFETY: the caller's promise is the one asked for.
        unsafe { write(self.0, to, 4 * lanes) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack16(packed: __m128i) -> Self {
        Words8(_mm256_cvtepu16_epi32(packed))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn widen_f16(packed: __m128i) -> Self {
        floats(_mm256_cvtph_ps(packed))
    }

    with_instructions! { "avx2,f16c", Words8:
        fn pack16(this) -> __m128i {
            let halves = _mm256_packus_epi32(this.0, this.0);
            _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(halves))
        }
        fn narrow_f16(this) -> __m128i { _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(this.floats()) }

        fn splat(_this, bits: u32) -> Words8 { Words8(_mm256_set1_epi32(bits as i32)) }
        fn and(this, other: Words8) -> Words8 { Words8(_mm256_and_si256(this.0, other.0)) }
        fn or(this, other: Words8) -> Words8 { Words8(_mm256_or_si256(this.0, other.0)) }
        fn wrapping_add(this, other: Words8) -> Words8 { Words8(_mm256_add_epi32(this.0, other.0)) }
        fn wrapping_sub(this, other: Words8) -> Words8 { Words8(_mm256_sub_epi32(this.0, other.0)) }
        fn shl(this, by: u32) -> Words8 { Words8(_mm256_sllv_epi32(this.0, _mm256_set1_epi32(by as i32))) }
        fn shr(this, by: u32) -> Words8 { Words8(_mm256_srlv_epi32(this.0, _mm256_set1_epi32(by as i32))) }
        fn min_signed(this, other: Words8) -> Words8 { Words8(_mm256_min_epi32(this.0, other.0)) }
        fn select_below(this, limit: Words8, then: Words8, otherwise: Words8) -> Words8 {
            Words8(_mm256_blendv_epi8(otherwise.0, then.0, _mm256_cmpgt_epi32(limit.0, this.0)))
        }

        fn add(this, other: Words8) -> Words8 { floats(_mm256_add_ps(this.floats(), other.floats())) }
        fn sub(this, other: Words8) -> Words8 { floats(_mm256_sub_ps(this.floats(), other.floats())) }
        fn mul(this, other: Words8) -> Words8 { floats(_mm256_mul_ps(this.floats(), other.floats())) }
        fn div(this, other: Words8) -> Words8 { floats(_mm256_div_ps(this.floats(), other.floats())) }
        fn max(this, other: Words8) -> Words8 {
            // The instruction returns its second operand if both are zeros: the two orders differ only there.
            let (a, b) = (this.floats(), other.floats());
            let greater = _mm256_and_ps(_mm256_max_ps(a, b), _mm256_max_ps(b, a));
            canonical(greater, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b))
        }
        fn min(this, other: Words8) -> Words8 {
            let (a, b) = (this.floats(), other.floats());
            let less = _mm256_or_ps(_mm256_min_ps(a, b), _mm256_min_ps(b, a));
            canonical(less, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b))
        }
        fn canonical(this) -> Words8 {
            canonical(this.floats(), _mm256_cmp_ps::<_CMP_UNORD_Q>(this.floats(), this.floats()))
        }
    }
}

impl Words8 {
    with_instructions! { "avx2,f16c", Words8:
        fn floats(this) -> __m256 { _mm256_castsi256_ps(this.0) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn floats(value: __m256) -> Words8 {
    Words8(_mm256_castps_si256(value))
}

#[inline]
#[target_feature(enable = "avx2")]
fn canonical(value: __m256, nan: __m256) -> Words8 {
    floats(_mm256_blendv_ps(value, _mm256_set1_ps(f32::from_bits(NAN_F32)), nan))
}

/// A register of elements that are reduced as they are: its name, element and count, then the arithmetic.
macro_rules! native {
    ($name:ident, $element:ty, $lanes:literal, $($methods:tt)*) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name(__m256i);

        impl Register for $name {
            const LANES: usize = $lanes;
            const SIZE: usize = size_of::<$element>();

            #[inline]
            #[target_feature(enable = "avx2,f16c")]
            unsafe fn load(from: *const u8, lanes: usize) -> Self {
                // SAFETY: the caller's promise is the one asked for.
                $name(unsafe { read(from, lanes * size_of::<$element>()) })
            }

            #[inline]
            #[target_feature(enable = "avx2,f16c")]
            unsafe fn store(self, to: *mut u8, lanes: usize) {
                // SAFETY: the caller's promise is the one asked for.
                unsafe { write(self.0, to, lanes * size_of::<$element>()) }
            }
        }

        impl Arithmetic for $name {
            with_instructions! { "avx2,f16c", $name: $($methods)* }
        }
    };
}

native! { F64x4, f64, 4,
    fn add(this, other: F64x4) -> F64x4 { doubles(_mm256_add_pd(this.doubles(), other.doubles())) }
    fn mul(this, other: F64x4) -> F64x4 { doubles(_mm256_mul_pd(this.doubles(), other.doubles())) }
    fn max(this, other: F64x4) -> F64x4 {
        let (a, b) = (this.doubles(), other.doubles());
        let greater = _mm256_and_pd(_mm256_max_pd(a, b), _mm256_max_pd(b, a));
        canonical_f64(greater, _mm256_cmp_pd::<_CMP_UNORD_Q>(a, b))
    }
    fn min(this, other: F64x4) -> F64x4 {
        let (a, b) = (this.doubles(), other.doubles());
        let less = _mm256_or_pd(_mm256_min_pd(a, b), _mm256_min_pd(b, a));
        canonical_f64(less, _mm256_cmp_pd::<_CMP_UNORD_Q>(a, b))
    }
    fn divide(this, n: u32) -> F64x4 { doubles(_mm256_div_pd(this.doubles(), _mm256_set1_pd(f64::from(n)))) }
    fn canonical(this) -> F64x4 {
        canonical_f64(this.doubles(), _mm256_cmp_pd::<_CMP_UNORD_Q>(this.doubles(), this.doubles()))
    }
}

impl F64x4 {
    with_instructions! { "avx2,f16c", F64x4:
        fn doubles(this) -> __m256d { _mm256_castsi256_pd(this.0) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn doubles(value: __m256d) -> F64x4 {
    F64x4(_mm256_castpd_si256(value))
}

#[inline]
#[target_feature(enable = "avx2")]
fn canonical_f64(value: __m256d, nan: __m256d) -> F64x4 {
    doubles(_mm256_blendv_pd(value, _mm256_set1_pd(f64::from_bits(NAN_F64)), nan))
}

macro_rules! integers {
    ($name:ident, $element:ty, $lanes:literal, $add:ident, $mul:ident, $max:ident, $min:ident) => {
        native! { $name, $element, $lanes,
            fn add(this, other: $name) -> $name { $name($add(this.0, other.0)) }
            fn mul(this, other: $name) -> $name { $name($mul(this.0, other.0)) }
            fn max(this, other: $name) -> $name { $name($max(this.0, other.0)) }
            fn min(this, other: $name) -> $name { $name($min(this.0, other.0)) }
            fn divide(this, n: u32) -> $name {
                // SAFETY: both are 32 bytes of plain integers.
                let block: Block<$element, $lanes> = unsafe { std::mem::transmute(this.0) };
                // SAFETY: as above.
                $name(unsafe { std::mem::transmute::<Block<$element, $lanes>, __m256i>(block.divide(n)) })
            }
            fn canonical(this) -> $name { this }
        }
    };
}

integers!(I8x32, i8, 32, _mm256_add_epi8, mul_epi8, _mm256_max_epi8, _mm256_min_epi8);
integers!(U8x32, u8, 32, _mm256_add_epi8, mul_epi8, _mm256_max_epu8, _mm256_min_epu8);
integers!(I32x8, i32, 8, _mm256_add_epi32, _mm256_mullo_epi32, _mm256_max_epi32, _mm256_min_epi32);
integers!(U32x8, u32, 8, _mm256_add_epi32, _mm256_mullo_epi32, _mm256_max_epu32, _mm256_min_epu32);
integers!(I64x4, i64, 4, _mm256_add_epi64, mul_epi64, max_epi64, min_epi64);
integers!(U64x4, u64, 4, _mm256_add_epi64, mul_epi64, max_epu64, min_epu64);

impl Bitwise for U8x32 {
    with_instructions! { "avx2,f16c", U8x32:
        fn and(this, other: U8x32) -> U8x32 { U8x32(_mm256_and_si256(this.0, other.0)) }
        fn or(this, other: U8x32) -> U8x32 { U8x32(_mm256_or_si256(this.0, other.0)) }
        fn xor(this, other: U8x32) -> U8x32 { U8x32(_mm256_xor_si256(this.0, other.0)) }
    }
}

/// Bytewise product, by 16-bit products of the even and of the odd bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn mul_epi8(a: __m256i, b: __m256i) -> __m256i {
    let even = _mm256_and_si256(_mm256_mullo_epi16(a, b), _mm256_set1_epi16(0xFF));
    let odd = _mm256_mullo_epi16(_mm256_srli_epi16::<8>(a), _mm256_srli_epi16::<8>(b));
    _mm256_or_si256(_mm256_slli_epi16::<8>(odd), even)
}

/// The low 64 bits of the products, by 32-bit halves.
#[inline]
#[target_feature(enable = "avx2")]
fn mul_epi64(a: __m256i, b: __m256i) -> __m256i {
    let high_low = _mm256_mul_epu32(_mm256_srli_epi64::<32>(a), b);
    let low_high = _mm256_mul_epu32(a, _mm256_srli_epi64::<32>(b));
    let cross = _mm256_slli_epi64::<32>(_mm256_add_epi64(high_low, low_high));
    _mm256_add_epi64(_mm256_mul_epu32(a, b), cross)
}

#[inline]
#[target_feature(enable = "avx2")]
fn max_epi64(a: __m256i, b: __m256i) -> __m256i {
    _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(a, b))
}

#[inline]
#[target_feature(enable = "avx2")]
fn min_epi64(a: __m256i, b: __m256i) -> __m256i {
    _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b))
}

#[inline]
#[target_feature(enable = "avx2")]
fn greater_epu64(a: __m256i, b: __m256i) -> __m256i {
    let top = _mm256_set1_epi64x(i64::MIN);
    _mm256_cmpgt_epi64(_mm256_xor_si256(a, top), _mm256_xor_si256(b, top))
}

#[inline]
#[target_feature(enable = "avx2")]
fn max_epu64(a: __m256i, b: __m256i) -> __m256i {
    _mm256_blendv_epi8(b, a, greater_epu64(a, b))
}

#[inline]
#[target_feature(enable = "avx2")]
fn min_epu64(a: __m256i, b: __m256i) -> __m256i {
    _mm256_blendv_epi8(a, b, greater_epu64(a, b))
}
