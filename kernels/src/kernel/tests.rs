//! Every kernel against a plain reference, and every instruction set against every other to the bit.

mod order;
mod scale;

use proptest::prelude::*;

use super::codec::{self, Binary16, E4M3, E5M2};
use super::*;

/// One element's bits, zero-extended.
type Bits = u64;

fn to_bytes(dtype: DataType, elements: &[Bits]) -> Vec<u8> {
    elements.iter().flat_map(|bits| bits.to_le_bytes()[..dtype.size()].to_vec()).collect()
}

fn from_bytes(dtype: DataType, bytes: &[u8]) -> Vec<Bits> {
    bytes
        .chunks(dtype.size())
        .map(|chunk| {
            let mut bits = [0; 8];
            bits[..chunk.len()].copy_from_slice(chunk);
            Bits::from_le_bytes(bits)
        })
        .collect()
}

/// The operator on f64 or f32, in words: no trick of the kernels is used here.
macro_rules! reference_float {
    ($name:ident, $float:ty, $nan:expr) => {
        fn $name(op: ReduceOp, values: &[$float], finish: Option<u32>) -> $float {
            if values.len() == 1 && (op != ReduceOp::Avg || finish.is_none()) {
                return values[0];
            }
            let key = |x: $float| if x == 0.0 && x.is_sign_negative() { (x, 0) } else { (x, 1) };
            let mut result = values[0];
            for &next in &values[1..] {
                result = match op {
                    ReduceOp::Sum | ReduceOp::Avg | ReduceOp::PreMulSum => result + next,
                    ReduceOp::Prod => result * next,
                    ReduceOp::Max | ReduceOp::Min if result.is_nan() || next.is_nan() => <$float>::NAN,
                    ReduceOp::Max => {
                        if key(next) > key(result) {
                            next
                        } else {
                            result
                        }
                    }
                    ReduceOp::Min => {
                        if key(next) < key(result) {
                            next
                        } else {
                            result
                        }
                    }
                    ReduceOp::BitAnd | ReduceOp::BitOr | ReduceOp::BitXor => {
                        unreachable!("for integers only")
                    }
                };
            }
            if let (ReduceOp::Avg, Some(ranks)) = (op, finish) {
                result /= ranks as $float;
            }
            if result.is_nan() { <$float>::from_bits($nan) } else { result }
        }
    };
}

reference_float!(reference_f32, f32, 0x7FC0_0000);
reference_float!(reference_f64, f64, 0x7FF8_0000_0000_0000);

/// The operator on integers of `bits` bits, in i128.
fn reference_integer(op: ReduceOp, bits: u32, signed: bool, values: &[Bits], finish: Option<u32>) -> Bits {
    let read = |value: Bits| {
        let value = i128::from(value) & ((1 << bits) - 1);
        if signed && value >> (bits - 1) == 1 { value - (1 << bits) } else { value }
    };
    let result = values.iter().copied().map(read).reduce(|a, b| match op {
        ReduceOp::Sum | ReduceOp::Avg | ReduceOp::PreMulSum => read(a.wrapping_add(b) as Bits),
        ReduceOp::Prod => read(a.wrapping_mul(b) as Bits),
        ReduceOp::Max => a.max(b),
        ReduceOp::Min => a.min(b),
        ReduceOp::BitAnd => a & b,
        ReduceOp::BitOr => a | b,
        ReduceOp::BitXor => a ^ b,
    });
    let mut result = result.expect("at least one value");
    if let (ReduceOp::Avg, Some(ranks)) = (op, finish) {
        result /= i128::from(ranks);
    }
    result as Bits & (Bits::MAX >> (64 - bits))
}

fn widen(dtype: DataType, bits: Bits) -> f32 {
    match dtype {
        DataType::F32 => f32::from_bits(bits as u32),
        DataType::BF16 => half::bf16::from_bits(bits as u16).to_f32(),
        DataType::F16 => half::f16::from_bits(bits as u16).to_f32(),
        DataType::F8E4M3 => codec::widen_one::<E4M3>(bits as u32),
        DataType::F8E5M2 => codec::widen_one::<E5M2>(bits as u32),
        _ => unreachable!("reduced as it is"),
    }
}

fn narrow(dtype: DataType, value: f32) -> Bits {
    match dtype {
        DataType::F32 => Bits::from(value.to_bits()),
        DataType::BF16 => Bits::from(half::bf16::from_f32(value).to_bits()),
        DataType::F16 => Bits::from(half::f16::from_f32(value).to_bits()),
        DataType::F8E4M3 => Bits::from(codec::narrow_one::<E4M3>(value)),
        DataType::F8E5M2 => Bits::from(codec::narrow_one::<E5M2>(value)),
        _ => unreachable!("reduced as it is"),
    }
}

fn reference(dtype: DataType, op: ReduceOp, values: &[Bits], finish: Option<u32>) -> Bits {
    match dtype {
        DataType::I8 | DataType::I32 | DataType::I64 => {
            reference_integer(op, dtype.size() as u32 * 8, true, values, finish)
        }
        DataType::U8 | DataType::U32 | DataType::U64 => {
            reference_integer(op, dtype.size() as u32 * 8, false, values, finish)
        }
        DataType::F64 => {
            let values: Vec<f64> = values.iter().map(|&bits| f64::from_bits(bits)).collect();
            reference_f64(op, &values, finish).to_bits()
        }
        _ if values.len() == 1 && (op != ReduceOp::Avg || finish.is_none()) => values[0],
        _ => {
            let values: Vec<f32> = values.iter().map(|&bits| widen(dtype, bits)).collect();
            narrow(dtype, reference_f32(op, &values, finish))
        }
    }
}

/// Zeros, ones, the ends of the range, subnormals, infinities, NaN of both signs and kinds: as bits of each type.
fn special(dtype: DataType) -> Vec<Bits> {
    let top = dtype.size() as u32 * 8;
    let mut bits = vec![0, 1, 2, 3];
    let (mantissa, one): (u32, Bits) = match dtype {
        DataType::F64 => (52, 1.0f64.to_bits()),
        DataType::F32 => (23, Bits::from(1.0f32.to_bits())),
        DataType::F16 => (10, 0x3C00),
        DataType::BF16 => (7, 0x3F80),
        DataType::F8E4M3 => (3, 0x38),
        DataType::F8E5M2 => (2, 0x3C),
        _ => (top / 2, 100),
    };
    let least_normal = 1 << mantissa;
    let infinity = (Bits::MAX >> (64 - (top - 1))) >> mantissa << mantissa;
    bits.extend([one, one + 1, one - 1, least_normal, least_normal - 1, least_normal + 1]);
    bits.extend([
        infinity,
        infinity - 1,
        infinity + 1,
        infinity | (least_normal >> 1),
        Bits::MAX >> (65 - top),
    ]);
    bits.iter().flat_map(|&positive| [positive, positive | 1 << (top - 1)]).collect()
}

/// A cheap reproducible stream of bits.
fn noise(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 3
    }
}

/// What one call is made of.
#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DataType,
    op: ReduceOp,
    inputs: usize,
    outputs: usize,
    /// Output j is input j, for the first so many.
    in_place: usize,
    count: usize,
    finish: Option<u32>,
    /// Bytes by which the buffers start off a 64-byte line.
    skew: usize,
}

fn operands(case: Case, seed: u64) -> Vec<Vec<Bits>> {
    let special = special(case.dtype);
    let mut next = noise(seed);
    let top = case.dtype.size() as u32 * 8;
    let mut element = || match next() % 3 {
        0 => special[next() as usize % special.len()],
        _ => next() & (Bits::MAX >> (64 - top)),
    };
    (0..case.inputs).map(|_| (0..case.count).map(|_| element()).collect()).collect()
}

const GUARD: u8 = 0xA5;

/// Runs a kernel on copies of the operands, checks that nothing beside the outputs was written, and gives the outputs.
fn run(kernel: Kernel, case: Case, operands: &[Vec<Bits>]) -> Vec<Vec<Bits>> {
    let bytes = case.count * case.dtype.size();
    let place = |content: &[u8]| {
        let mut buffer = vec![GUARD; bytes + 256];
        let start = buffer.as_ptr().align_offset(64) + case.skew;
        buffer[start..start + bytes].copy_from_slice(content);
        (buffer, start)
    };
    let mut inputs: Vec<_> = operands.iter().map(|values| place(&to_bytes(case.dtype, values))).collect();
    let mut outputs: Vec<_> = (case.in_place..case.outputs).map(|_| place(&vec![GUARD; bytes])).collect();
    let at = |(buffer, start): &mut (Vec<u8>, usize)| buffer.as_mut_ptr().wrapping_add(*start);
    let from: Vec<*mut u8> = inputs.iter_mut().map(at).collect();
    let to: Vec<*mut u8> =
        from.iter().copied().take(case.in_place).chain(outputs.iter_mut().map(at)).collect();
    let from: Vec<*const u8> = from.into_iter().map(|pointer| pointer.cast_const()).collect();
    // SAFETY: every buffer has `count` elements from its pointer on; they are apart but for the outputs in place.
    unsafe { kernel.run(&from, &to, case.count, case.finish) };

    for (i, (buffer, start)) in inputs.iter().chain(&outputs).enumerate() {
        let beside = buffer[..*start].iter().chain(&buffer[start + bytes..]);
        assert!(beside.copied().all(|byte| byte == GUARD), "{case:?} wrote beside buffer {i}");
    }
    for (i, (buffer, start)) in inputs.iter().enumerate().skip(case.in_place) {
        assert_eq!(
            from_bytes(case.dtype, &buffer[*start..][..bytes]),
            operands[i],
            "{case:?} changed input {i}"
        );
    }
    let in_place = inputs.into_iter().take(case.in_place);
    in_place
        .chain(outputs)
        .map(|(buffer, start)| from_bytes(case.dtype, &buffer[start..start + bytes]))
        .collect()
}

/// Runs a case on every instruction set of this CPU, and compares each element with the reference, to the bit.
fn check(case: Case, seed: u64) {
    let operands = operands(case, seed);
    let expected: Vec<Bits> = (0..case.count)
        .map(|i| {
            let values: Vec<Bits> = operands.iter().map(|input| input[i]).collect();
            reference(case.dtype, case.op, &values, case.finish)
        })
        .collect();
    for &set in InstructionSet::ALL {
        let Some(kernel) = Kernel::select_for(set, case.dtype, case.op) else { continue };
        for (j, output) in run(kernel, case, &operands).into_iter().enumerate() {
            for i in 0..case.count {
                let of: Vec<Bits> = operands.iter().map(|input| input[i]).collect();
                assert_eq!(
                    output[i], expected[i],
                    "{set:?}: output {j}, element {i}: {:#x} instead of {:#x} from {of:x?} in {case:?}",
                    output[i], expected[i],
                );
            }
        }
    }
}

fn every_kernel() -> impl Iterator<Item = (DataType, ReduceOp, Option<u32>)> {
    DataType::ALL.into_iter().flat_map(|dtype| {
        let ops = ReduceOp::ALL.into_iter().filter(move |op| op.suits(dtype));
        let plain = ops.map(move |op| (dtype, op, None));
        plain.chain([(dtype, ReduceOp::Avg, Some(3))])
    })
}

/// All lengths around every register and step size: an element's result depends neither on its place nor on the count.
#[test]
fn every_kernel_at_every_small_count() {
    for (dtype, op, finish) in every_kernel() {
        for count in (0..=66).chain([127, 128, 129, 200, 255, 256, 257, 300]) {
            let (outputs, in_place) = [(1, 0), (2, 2), (2, 0), (1, 1)][count % 4];
            let case = Case { dtype, op, inputs: 2, outputs, in_place, count, finish, skew: 0 };
            check(case, count as u64);
        }
    }
}

/// Every pair of special values, for every kernel: zeros of both signs, NaN, infinities, subnormals, the ends.
#[test]
fn every_pair_of_special_values() {
    for (dtype, op, finish) in every_kernel() {
        let special = special(dtype);
        let pairs = special.iter().flat_map(|&a| special.iter().map(move |&b| (a, b)));
        let (a, b): (Vec<Bits>, Vec<Bits>) = pairs.unzip();
        let case = Case { dtype, op, inputs: 2, outputs: 1, in_place: 0, count: a.len(), finish, skew: 0 };
        for &set in InstructionSet::ALL {
            let Some(kernel) = Kernel::select_for(set, dtype, op) else { continue };
            let result = run(kernel, case, &[a.clone(), b.clone()]).remove(0);
            for i in 0..a.len() {
                let expected = reference(dtype, op, &[a[i], b[i]], finish);
                assert_eq!(
                    result[i], expected,
                    "{set:?}: {dtype} {op} {finish:?} of {:#x} and {:#x}: {:#x} instead of {expected:#x}",
                    a[i], b[i], result[i]
                );
            }
        }
    }
}

/// Every 8-bit and 16-bit code, widened and narrowed by every instruction set: dividing by one does nothing else.
#[test]
fn every_code_comes_back() {
    for dtype in [DataType::F16, DataType::BF16, DataType::F8E4M3, DataType::F8E5M2] {
        let codes: Vec<Bits> = (0..1 << (dtype.size() * 8)).collect();
        let case = Case {
            dtype,
            op: ReduceOp::Avg,
            inputs: 1,
            outputs: 1,
            in_place: 0,
            count: codes.len(),
            finish: Some(1),
            skew: 0,
        };
        for &set in InstructionSet::ALL {
            let Some(kernel) = Kernel::select_for(set, dtype, ReduceOp::Avg) else { continue };
            let result = run(kernel, case, std::slice::from_ref(&codes)).remove(0);
            for (code, result) in codes.iter().zip(result) {
                let nan = narrow(dtype, f32::from_bits(codec::NAN_F32));
                let expected = if widen(dtype, *code).is_nan() { nan } else { *code };
                assert_eq!(result, expected, "{set:?}: {dtype} {code:#x}");
            }
        }
    }
}

/// The portable f16 codec agrees with the `half` crate around every rounding boundary.
#[test]
fn f16_rounds_as_half_does() {
    for code in 0..0x7C00u16 {
        let value = half::f16::from_bits(code).to_f32();
        let middle = (value + half::f16::from_bits(code + 1).to_f32()) / 2.0;
        for near in [value, value.next_up(), middle.next_down(), middle, middle.next_up()] {
            for value in [near, -near] {
                let expected = half::f16::from_f32(value).to_bits();
                assert_eq!(codec::narrow_one::<Binary16>(value), u32::from(expected), "{value:e}");
            }
        }
    }
}

#[test]
fn min_and_max_of_zeros_and_nan() {
    let nan = f32::NAN.to_bits();
    for (a, b, max, min) in [
        (0.0, -0.0, 0.0f32.to_bits(), (-0.0f32).to_bits()),
        (-0.0, 0.0, 0.0f32.to_bits(), (-0.0f32).to_bits()),
        (-f32::NAN, 1.0, nan, nan),
        (1.0, f32::from_bits(0xFF80_0001), nan, nan),
    ] {
        for (op, expected) in [(ReduceOp::Max, max), (ReduceOp::Min, min)] {
            let (a, mut result) = ([a], [b]);
            let to = result.as_mut_ptr().cast::<u8>();
            // SAFETY: one element each; the output is the second input.
            unsafe { Kernel::select(DataType::F32, op).run(&[a.as_ptr().cast(), to], &[to], 1, None) };
            assert_eq!(result[0].to_bits(), expected, "{op} of {a:?} and {b}");
        }
    }
}

/// bf16 and f16 keep what a sum in their own precision would lose: the sum is rounded once, not after each input.
#[test]
fn narrow_floats_are_rounded_once() {
    for (dtype, ulp) in [(DataType::BF16, 1.0f32 / 128.0), (DataType::F16, 1.0 / 1024.0)] {
        let one = narrow(dtype, 1.0);
        let half_ulp = narrow(dtype, ulp / 2.0);
        let case = Case {
            dtype,
            op: ReduceOp::Sum,
            inputs: 3,
            outputs: 1,
            in_place: 0,
            count: 1,
            finish: None,
            skew: 0,
        };
        let operands = [vec![one], vec![half_ulp], vec![half_ulp]];
        let result = run(Kernel::select(dtype, ReduceOp::Sum), case, &operands);
        assert_eq!(widen(dtype, result[0][0]), 1.0 + ulp);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_shape_anywhere(
        (dtype, op, _) in prop::sample::select(every_kernel().collect::<Vec<_>>()),
        inputs in 1usize..=9,
        outputs in 1usize..=5,
        in_place in 0usize..=5,
        count in 0usize..=520,
        finish in prop::option::of(prop_oneof![1u32..=16, Just(200), Just(1000), Just(u32::MAX)]),
        skew in 0usize..64,
        seed: u64,
    ) {
        let in_place = in_place.min(inputs).min(outputs);
        check(Case { dtype, op, inputs, outputs, in_place, count, finish, skew }, seed);
    }
}

/// There is a kernel exactly where the operator suits the type.
#[test]
fn bitwise_kernels_are_of_integers() {
    for dtype in DataType::ALL {
        for op in ReduceOp::ALL {
            let kernel = Kernel::select_for(InstructionSet::Portable, dtype, op);
            assert_eq!(kernel.is_some(), op.suits(dtype), "{op} on {dtype}");
        }
    }
    let refusal = std::panic::catch_unwind(|| Kernel::select(DataType::F16, ReduceOp::BitOr))
        .expect_err("bits of a float");
    let refusal = refusal.downcast_ref::<String>().expect("a message");
    assert_eq!(refusal, "no kernel: bor combines integers only, and f16 is none");
}

/// Streaming changes where the bytes go, not which bytes they are.
#[test]
fn streaming_gives_the_same_bits() {
    for (dtype, op) in [
        (DataType::F32, ReduceOp::Avg),
        (DataType::BF16, ReduceOp::Sum),
        (DataType::I8, ReduceOp::Max),
        (DataType::U64, ReduceOp::BitXor),
    ] {
        let kernel = Kernel::select(dtype, op);
        for count in [0, 1, 15, 1000, 5003] {
            for inputs in 1..=3 {
                for skew in [0, 3 * dtype.size()] {
                    let bytes = count * dtype.size();
                    let operands: Vec<Vec<u8>> = (0..inputs)
                        .map(|k| (0..bytes + skew).map(|i| ((i * 31 + k * 77) % 113) as u8).collect())
                        .collect();
                    let pointers: Vec<*const u8> =
                        operands.iter().map(|operand| operand[skew..].as_ptr()).collect();
                    let mut usual = [vec![1_u8; bytes + skew], vec![2_u8; bytes + skew]];
                    let mut streamed = usual.clone();
                    let targets = |outputs: &mut [Vec<u8>; 2]| {
                        outputs.each_mut().map(|output| output[skew..].as_mut_ptr())
                    };
                    // SAFETY: every vector holds `count` elements behind its skew.
                    unsafe { kernel.run(&pointers, &targets(&mut usual), count, Some(3)) };
                    // SAFETY: as above.
                    unsafe { kernel.run_streaming(&pointers, &targets(&mut streamed), count, Some(3)) };
                    assert!(usual == streamed, "{dtype} {op} x{count}, {inputs} inputs, skew {skew}");
                }
            }
        }
    }
}
