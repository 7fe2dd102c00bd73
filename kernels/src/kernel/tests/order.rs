//! The order of operands and the one rounding at the end, which make a reduction over all ranks the same bits everywhere.

use super::*;

/// One operand in four is a large number of either sign, the others are so small that a partial sum in f32 (f64) that is
/// large loses some of their bits. The large ones often cancel, and then it shows in which order they came.
fn operands(dtype: DataType, inputs: usize, count: usize) -> Vec<Vec<Bits>> {
    let (large, small) = match dtype {
        DataType::F8E4M3 => (8.0, 0.125),
        DataType::F8E5M2 | DataType::F16 => (1024.0, 1.0 / 4096.0),
        DataType::F64 => (2f64.powi(50), 0.01),
        _ => (2f64.powi(20), 0.01),
    };
    let mut next = noise(inputs as u64);
    let mut element = |_| {
        let value = match next() % 8 {
            0 => large,
            1 => -large,
            _ => small * ((next() % 4001) as f64 / 2000.0 - 1.0),
        };
        if dtype == DataType::F64 { value.to_bits() } else { narrow(dtype, value as f32) }
    };
    (0..inputs).map(|_| (0..count).map(&mut element).collect()).collect()
}

/// How an array is handed to a kernel.
#[derive(Clone, Copy, Debug)]
struct Way {
    streaming: bool,
    /// Elements of each call; the last one gets what is left.
    cut: usize,
    /// Input k starts off a cache line by k times so many bytes.
    skew: usize,
    /// The output is the input in the middle.
    in_place: bool,
}

const WAYS: [Way; 5] = [
    Way { streaming: false, cut: usize::MAX, skew: 0, in_place: false },
    Way { streaming: false, cut: 41, skew: 5, in_place: true },
    Way { streaming: false, cut: 7, skew: 1, in_place: false },
    Way { streaming: true, cut: usize::MAX, skew: 3, in_place: false },
    Way { streaming: true, cut: 100, skew: 8, in_place: true },
];

fn run(kernel: Kernel, dtype: DataType, way: Way, operands: &[Vec<Bits>], finish: Option<u32>) -> Vec<Bits> {
    let (count, size) = (operands[0].len(), dtype.size());
    let mut buffers: Vec<(Vec<u8>, usize)> = Vec::new();
    for (k, values) in operands.iter().chain([&operands[0]]).enumerate() {
        let mut buffer = vec![GUARD; count * size + 128];
        let start = buffer.as_ptr().align_offset(64) + k * way.skew % 64;
        buffer[start..][..count * size].copy_from_slice(&to_bytes(dtype, values));
        buffers.push((buffer, start));
    }
    let target = if way.in_place { operands.len() / 2 } else { operands.len() };
    let pointers: Vec<*mut u8> =
        buffers.iter_mut().map(|(buffer, start)| buffer[*start..].as_mut_ptr()).collect();
    let mut done = 0;
    while done < count {
        let part = way.cut.min(count - done);
        let at = |pointer: &*mut u8| pointer.wrapping_add(done * size);
        let from: Vec<*const u8> = pointers[..operands.len()].iter().map(|p| at(p).cast_const()).collect();
        let to = [at(&pointers[target])];
        if way.streaming {
            // SAFETY: every buffer has `part` elements left; the output is an input or a buffer of its own.
            unsafe { kernel.run_streaming(&from, &to, part, finish) };
        } else {
            // SAFETY: as above.
            unsafe { kernel.run(&from, &to, part, finish) };
        }
        done += part;
    }
    let (buffer, start) = &buffers[target];
    from_bytes(dtype, &buffer[*start..][..count * size])
}

/// Every float type, sums and averages of 2 to 70 inputs, of 129 and of 512, against the plain sum from left to right in
/// f32 (f64 for itself): every instruction set, whole and cut, aligned and not, in place and not, streamed and not.
#[test]
fn any_number_of_inputs_is_reduced_in_order_and_rounded_once() {
    const COUNT: usize = 150;
    let types = DataType::ALL.into_iter().filter(|dtype| !dtype.is_integer());
    for dtype in types {
        // How many sums would be others if taken from right to left, or if rounded behind each operand.
        let (mut by_order, mut by_rounding) = (0, 0);
        for inputs in (2..=70).chain([129, 512]) {
            let operands = operands(dtype, inputs, COUNT);
            let column = |i: usize| operands.iter().map(|input| input[i]).collect::<Vec<Bits>>();
            for (op, finish) in [(ReduceOp::Sum, None), (ReduceOp::Avg, Some(inputs as u32))] {
                let expected: Vec<Bits> =
                    (0..COUNT).map(|i| reference(dtype, op, &column(i), finish)).collect();
                for &set in InstructionSet::ALL {
                    let Some(kernel) = Kernel::select_for(set, dtype, op) else { continue };
                    for way in WAYS {
                        let result = run(kernel, dtype, way, &operands, finish);
                        assert!(result == expected, "{set:?}: {op} of {inputs} inputs of {dtype}, {way:?}");
                    }
                }
            }
            for i in 0..COUNT {
                let mut values = column(i);
                let expected = reference(dtype, ReduceOp::Sum, &values, None);
                let hop = |a, b| reference(dtype, ReduceOp::Sum, &[a, b], None);
                by_rounding += usize::from(values.iter().copied().reduce(hop) != Some(expected));
                values.reverse();
                by_order += usize::from(reference(dtype, ReduceOp::Sum, &values, None) != expected);
            }
        }
        // Sums of E4M3 are exact in f32: its values are multiples of 2^-9 below 2^9.
        let (exact, narrow) = (dtype == DataType::F8E4M3, dtype.size() < 4);
        assert!(by_order > 200 || exact, "{dtype}: the order shows in {by_order} sums only");
        assert!(by_rounding > 200 || !narrow, "{dtype}: the rounding shows in {by_rounding} sums only");
    }
}
