//! [`Scale`] against a plain product.

use super::*;
use crate::{Element, F8E4M3};

/// `x[i] * scalar` by `scale`, at a place that is `skew` bytes off a cache line, in place or not.
fn scaled(scale: Scale, x: &[Bits], skew: usize, in_place: bool) -> Vec<Bits> {
    let dtype = scale.dtype();
    let content = to_bytes(dtype, x);
    let mut buffers = [vec![GUARD; content.len() + 256], vec![GUARD; content.len() + 256]];
    let starts = buffers.each_ref().map(|buffer| buffer.as_ptr().align_offset(64) + skew);
    buffers[0][starts[0]..][..content.len()].copy_from_slice(&content);
    let target = usize::from(!in_place);
    let input = buffers[0][starts[0]..].as_ptr();
    let output = buffers[target][starts[target]..].as_mut_ptr();
    // SAFETY: both hold that many elements; they are equal or lie in two buffers.
    unsafe { scale.run(if in_place { output } else { input }, output, x.len()) };
    let result = &buffers[target][starts[target]..][..content.len()];
    let beside = buffers[target].iter().filter(|&&byte| byte == GUARD).count();
    let inside = result.iter().filter(|&&byte| byte == GUARD).count();
    assert_eq!(beside - inside, 256, "{dtype}: wrote beside the output");
    from_bytes(dtype, result)
}

/// Every special value times every other and some noise, of every type, in every instruction set: as the plain product.
#[test]
fn every_type_is_multiplied_as_by_the_plain_product() {
    for dtype in DataType::ALL {
        let special = special(dtype);
        let mut next = noise(7);
        let noise = (0..600).map(|_| next() & (Bits::MAX >> (64 - dtype.size() * 8)));
        let x: Vec<Bits> = special.iter().copied().chain(noise).collect();
        for (k, &scalar) in special.iter().chain(&x[special.len()..][..20]).enumerate() {
            let bytes = to_bytes(dtype, &[scalar]);
            let expected: Vec<Bits> =
                x.iter().map(|&x| reference(dtype, ReduceOp::Prod, &[x, scalar], None)).collect();
            let best = Scale::from_bytes(dtype, &bytes).expect("one element");
            assert_eq!(scaled(best, &x, k % 64, true), expected, "{dtype} times {scalar:#x}");
            for &set in InstructionSet::ALL {
                let Some(kernel) = Kernel::select_for(set, dtype, ReduceOp::Prod) else { continue };
                let scale = Scale::with_kernel(kernel, dtype, &bytes);
                assert_eq!(scaled(scale, &x, k % 64, false), expected, "{set:?}: {dtype} times {scalar:#x}");
            }
        }
    }
}

/// Lengths around the block of copies, and none at all.
#[test]
fn any_length_is_multiplied() {
    for dtype in [DataType::I64, DataType::F32, DataType::BF16, DataType::U8] {
        let two = if dtype.is_integer() { 2 } else { narrow(dtype, 2.0) };
        let scale = Scale::from_bytes(dtype, &to_bytes(dtype, &[two])).expect("one element");
        let block = 1024 / dtype.size();
        for count in (0..=40).chain([block - 1, block, block + 1, 3 * block + 17]) {
            let mut next = noise(count as u64);
            let x: Vec<Bits> = (0..count).map(|_| next() & (Bits::MAX >> (64 - dtype.size() * 8))).collect();
            let expected: Vec<Bits> =
                x.iter().map(|&x| reference(dtype, ReduceOp::Prod, &[x, two], None)).collect();
            for in_place in [false, true] {
                assert_eq!(scaled(scale, &x, count % 7, in_place), expected, "{count} of {dtype}");
            }
        }
    }
}

#[test]
fn a_scalar_is_one_element() {
    assert!(Scale::from_bytes(DataType::F32, &[0; 8]).is_none());
    assert!(Scale::from_bytes(DataType::F64, &[0; 4]).is_none());
    assert!(Scale::from_bytes(DataType::U8, &[]).is_none());

    fn times<T: Element>(x: T, scalar: T) -> T {
        let mut result = x;
        let at = (&raw mut result).cast::<u8>();
        // SAFETY: one element, in place.
        unsafe { Scale::by(scalar).run(at, at, 1) };
        result
    }
    assert_eq!(times(100_i8, 3), 44);
    assert_eq!(times(-7_i64, i64::MAX), 7_i64.wrapping_neg().wrapping_mul(i64::MAX));
    assert_eq!(times(1.5_f32, -0.1), 1.5_f32 * -0.1);
    assert_eq!(times(0.1_f64, 3.0), 0.1 * 3.0);
    assert_eq!(times(half::f16::from_f32(3.0), half::f16::from_f32(0.5)).to_f32(), 1.5);
    assert_eq!(times(F8E4M3::from_f32(300.0), F8E4M3::from_f32(2.0)), F8E4M3::MAX);
    assert_eq!(Scale::by(1_u32).dtype(), DataType::U32);
}
