//! 64-byte registers of x86-64 with AVX-512 F, BW, DQ and VL (every server CPU since 2017, Zen 4 and later). Masked loads
//! and stores take what does not fill a register.

use std::arch::x86_64::*;

use super::codec::{NAN_F32, NAN_F64};
use super::portable::Block;
use super::register::{Arithmetic, Bitwise, Lanes, Register, with_instructions};

/// The lowest `lanes` bits, 1 to 64.
#[inline(always)]
fn mask(lanes: usize) -> u64 {
    u64::MAX >> (64 - lanes)
}

/// 16 lanes of 32 bits.
#[derive(Clone, Copy)]
pub(super) struct Words16(__m512i);

impl Lanes for Words16 {
    const LANES: usize = 16;
    type Packed16 = __m256i;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn load8(from: *const u8, lanes: usize) -> Self {
        // SAFETY: only the bytes that the caller promises are read; masked lanes are not touched.
        Words16(_mm512_cvtepu8_epi32(unsafe { _mm_maskz_loadu_epi8(mask(lanes) as __mmask16, from.cast()) }))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn load16(from: *const u8, lanes: usize) -> __m256i {
        // SAFETY: only the values that the caller promises are read; masked lanes are not touched.
        unsafe { _mm256_maskz_loadu_epi16(mask(lanes) as __mmask16, from.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn load32(from: *const u8, lanes: usize) -> Self {
        // SAFETY: only the values that the caller promises are read; masked lanes are not touched.
        Words16(unsafe { _mm512_maskz_loadu_epi32(mask(lanes) as __mmask16, from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn store8(self, to: *mut u8, lanes: usize) {
        let packed = _mm512_cvtepi32_epi8(self.0);
        // SAFETY: only the bytes that the caller promises are written.
        unsafe { _mm_mask_storeu_epi8(to.cast(), mask(lanes) as __mmask16, packed) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn store16(packed: __m256i, to: *mut u8, lanes: usize) {
        // SAFETY: only the values that the caller promises are written.
        unsafe { _mm256_mask_storeu_epi16(to.cast(), mask(lanes) as __mmask16, packed) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn store32(self, to: *mut u8, lanes: usize) {
        // SAFETY: only the values that the caller promises are written.
        unsafe { _mm512_mask_storeu_epi32(to.cast(), mask(lanes) as __mmask16, self.0) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn unpack16(packed: __m256i) -> Self {
        Words16(_mm512_cvtepu16_epi32(packed))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn widen_f16(packed: __m256i) -> Self {
        floats(_mm512_cvtph_ps(packed))
    }

    with_instructions! { "avx512f,avx512bw,avx512dq,avx512vl", Words16:
        fn pack16(this) -> __m256i { _mm512_cvtepi32_epi16(this.0) }
        fn narrow_f16(this) -> __m256i {
            _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(this.floats())
        }

        fn splat(_this, bits: u32) -> Words16 { Words16(_mm512_set1_epi32(bits as i32)) }
        fn and(this, other: Words16) -> Words16 { Words16(_mm512_and_si512(this.0, other.0)) }
        fn or(this, other: Words16) -> Words16 { Words16(_mm512_or_si512(this.0, other.0)) }
        fn wrapping_add(this, other: Words16) -> Words16 { Words16(_mm512_add_epi32(this.0, other.0)) }
        fn wrapping_sub(this, other: Words16) -> Words16 { Words16(_mm512_sub_epi32(this.0, other.0)) }
        fn shl(this, by: u32) -> Words16 { Words16(_mm512_sllv_epi32(this.0, _mm512_set1_epi32(by as i32))) }
        fn shr(this, by: u32) -> Words16 { Words16(_mm512_srlv_epi32(this.0, _mm512_set1_epi32(by as i32))) }
        fn min_signed(this, other: Words16) -> Words16 { Words16(_mm512_min_epi32(this.0, other.0)) }
        fn select_below(this, limit: Words16, then: Words16, otherwise: Words16) -> Words16 {
            Words16(_mm512_mask_mov_epi32(otherwise.0, _mm512_cmplt_epi32_mask(this.0, limit.0), then.0))
        }

        fn add(this, other: Words16) -> Words16 { floats(_mm512_add_ps(this.floats(), other.floats())) }
        fn sub(this, other: Words16) -> Words16 { floats(_mm512_sub_ps(this.floats(), other.floats())) }
        fn mul(this, other: Words16) -> Words16 { floats(_mm512_mul_ps(this.floats(), other.floats())) }
        fn div(this, other: Words16) -> Words16 { floats(_mm512_div_ps(this.floats(), other.floats())) }
        fn max(this, other: Words16) -> Words16 {
            // The instruction returns its second operand if both are zeros: the two orders differ only there.
            let (a, b) = (this.floats(), other.floats());
            let greater = _mm512_and_ps(_mm512_max_ps(a, b), _mm512_max_ps(b, a));
            canonical(greater, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b))
        }
        fn min(this, other: Words16) -> Words16 {
            let (a, b) = (this.floats(), other.floats());
            let less = _mm512_or_ps(_mm512_min_ps(a, b), _mm512_min_ps(b, a));
            canonical(less, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b))
        }
        fn canonical(this) -> Words16 {
            canonical(this.floats(), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(this.floats(), this.floats()))
        }
    }
}

impl Words16 {
    with_instructions! { "avx512f", Words16:
        fn floats(this) -> __m512 { _mm512_castsi512_ps(this.0) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn floats(value: __m512) -> Words16 {
    Words16(_mm512_castps_si512(value))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn canonical(value: __m512, nan: __mmask16) -> Words16 {
    Words16(_mm512_mask_mov_epi32(_mm512_castps_si512(value), nan, _mm512_set1_epi32(NAN_F32 as i32)))
}

/// A register of elements that are reduced as they are: its name, element, count, machine type, its masked load and
/// store with the mask's type, then the arithmetic.
macro_rules! native {
    ($name:ident, $element:ty, $lanes:literal, $machine:ty, $mask:ty, $load:ident, $store:ident, $($methods:tt)*) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name($machine);

        impl Register for $name {
            const LANES: usize = $lanes;
            const SIZE: usize = size_of::<$element>();

            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn load(from: *const u8, lanes: usize) -> Self {
                // SAFETY: only the elements that the caller promises are read; masked lanes are not touched.
                $name(unsafe { $load(mask(lanes) as $mask, from.cast()) })
            }

            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn store(self, to: *mut u8, lanes: usize) {
                // SAFETY: only the elements that the caller promises are written.
                unsafe { $store(to.cast(), mask(lanes) as $mask, self.0) }
            }
        }

        impl Arithmetic for $name {
            with_instructions! { "avx512f,avx512bw,avx512dq,avx512vl", $name: $($methods)* }
        }
    };
}

native! { F64x8, f64, 8, __m512d, __mmask8, _mm512_maskz_loadu_pd, _mm512_mask_storeu_pd,
    fn add(this, other: F64x8) -> F64x8 { F64x8(_mm512_add_pd(this.0, other.0)) }
    fn mul(this, other: F64x8) -> F64x8 { F64x8(_mm512_mul_pd(this.0, other.0)) }
    fn max(this, other: F64x8) -> F64x8 {
        let greater = _mm512_and_pd(_mm512_max_pd(this.0, other.0), _mm512_max_pd(other.0, this.0));
        canonical_f64(greater, _mm512_cmp_pd_mask::<_CMP_UNORD_Q>(this.0, other.0))
    }
    fn min(this, other: F64x8) -> F64x8 {
        let less = _mm512_or_pd(_mm512_min_pd(this.0, other.0), _mm512_min_pd(other.0, this.0));
        canonical_f64(less, _mm512_cmp_pd_mask::<_CMP_UNORD_Q>(this.0, other.0))
    }
    fn divide(this, n: u32) -> F64x8 { F64x8(_mm512_div_pd(this.0, _mm512_set1_pd(f64::from(n)))) }
    fn canonical(this) -> F64x8 { canonical_f64(this.0, _mm512_cmp_pd_mask::<_CMP_UNORD_Q>(this.0, this.0)) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn canonical_f64(value: __m512d, nan: __mmask8) -> F64x8 {
    let nans = _mm512_set1_epi64(NAN_F64 as i64);
    F64x8(_mm512_castsi512_pd(_mm512_mask_mov_epi64(_mm512_castpd_si512(value), nan, nans)))
}

macro_rules! integers {
    ($name:ident, $element:ty, $lanes:literal, $mask:ty, $load:ident, $store:ident,
     $add:ident, $mul:ident, $max:ident, $min:ident) => {
        native! { $name, $element, $lanes, __m512i, $mask, $load, $store,
            fn add(this, other: $name) -> $name { $name($add(this.0, other.0)) }
            fn mul(this, other: $name) -> $name { $name($mul(this.0, other.0)) }
            fn max(this, other: $name) -> $name { $name($max(this.0, other.0)) }
            fn min(this, other: $name) -> $name { $name($min(this.0, other.0)) }
            fn divide(this, n: u32) -> $name {
                // SAFETY: both are 64 bytes of plain integers.
                let block: Block<$element, $lanes> = unsafe { std::mem::transmute(this.0) };
                // SAFETY: as above.
                $name(unsafe { std::mem::transmute::<Block<$element, $lanes>, __m512i>(block.divide(n)) })
            }
            fn canonical(this) -> $name { this }
        }
    };
}

integers!(
    I8x64,
    i8,
    64,
    __mmask64,
    _mm512_maskz_loadu_epi8,
    _mm512_mask_storeu_epi8,
    _mm512_add_epi8,
    mul_epi8,
    _mm512_max_epi8,
    _mm512_min_epi8
);
integers!(
    U8x64,
    u8,
    64,
    __mmask64,
    _mm512_maskz_loadu_epi8,
    _mm512_mask_storeu_epi8,
    _mm512_add_epi8,
    mul_epi8,
    _mm512_max_epu8,
    _mm512_min_epu8
);
integers!(
    I32x16,
    i32,
    16,
    __mmask16,
    _mm512_maskz_loadu_epi32,
    _mm512_mask_storeu_epi32,
    _mm512_add_epi32,
    _mm512_mullo_epi32,
    _mm512_max_epi32,
    _mm512_min_epi32
);
integers!(
    U32x16,
    u32,
    16,
    __mmask16,
    _mm512_maskz_loadu_epi32,
    _mm512_mask_storeu_epi32,
    _mm512_add_epi32,
    _mm512_mullo_epi32,
    _mm512_max_epu32,
    _mm512_min_epu32
);
integers!(
    I64x8,
    i64,
    8,
    __mmask8,
    _mm512_maskz_loadu_epi64,
    _mm512_mask_storeu_epi64,
    _mm512_add_epi64,
    _mm512_mullo_epi64,
    _mm512_max_epi64,
    _mm512_min_epi64
);
integers!(
    U64x8,
    u64,
    8,
    __mmask8,
    _mm512_maskz_loadu_epi64,
    _mm512_mask_storeu_epi64,
    _mm512_add_epi64,
    _mm512_mullo_epi64,
    _mm512_max_epu64,
    _mm512_min_epu64
);

impl Bitwise for U8x64 {
    with_instructions! { "avx512f,avx512bw,avx512dq,avx512vl", U8x64:
        fn and(this, other: U8x64) -> U8x64 { U8x64(_mm512_and_si512(this.0, other.0)) }
        fn or(this, other: U8x64) -> U8x64 { U8x64(_mm512_or_si512(this.0, other.0)) }
        fn xor(this, other: U8x64) -> U8x64 { U8x64(_mm512_xor_si512(this.0, other.0)) }
    }
}

/// Bytewise product, by 16-bit products of the even and of the odd bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn mul_epi8(a: __m512i, b: __m512i) -> __m512i {
    let even = _mm512_mullo_epi16(a, b);
    let odd = _mm512_mullo_epi16(_mm512_srli_epi16::<8>(a), _mm512_srli_epi16::<8>(b));
    _mm512_mask_mov_epi8(_mm512_slli_epi16::<8>(odd), 0x5555_5555_5555_5555, even)
}
