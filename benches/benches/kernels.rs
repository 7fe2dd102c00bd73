//! The reduction kernels alone, on one core: two inputs into two outputs in place, as a two-rank all_reduce does, on every
//! instruction set of this CPU; then many inputs in one pass. Throughput counts the bytes of one input.

#![expect(missing_docs, reason = "criterion_group! makes a public function without documentation")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rccl::{DataType, ReduceOp};
use rccl_kernels::{InstructionSet, Kernel};

/// A zeroed buffer of `bytes` bytes. Its size is made odd in pages, so that several do not share their place in the cache.
fn buffer(bytes: usize) -> Vec<u64> {
    vec![0; bytes / 8 + 1 + 577]
}

fn two_in_two_out(c: &mut Criterion) {
    let types =
        [DataType::F32, DataType::F64, DataType::F16, DataType::BF16, DataType::F8E4M3, DataType::I32];
    for dtype in types {
        let mut group = c.benchmark_group(format!("sum_2_into_2/{dtype}"));
        for bytes in [8usize, 64, 4 << 10, 16 << 10, 256 << 10, 16 << 20] {
            group.throughput(Throughput::Bytes(bytes as u64));
            let (mut a, mut b) = (buffer(bytes), buffer(bytes));
            let to: [*mut u8; 2] = [a.as_mut_ptr().cast(), b.as_mut_ptr().cast()];
            let from = to.map(|pointer| pointer.cast_const());
            for &set in InstructionSet::ALL {
                let Some(kernel) = Kernel::select_for(set, dtype, ReduceOp::Sum) else { continue };
                group.bench_function(BenchmarkId::new(format!("{set:?}"), bytes), |bench| {
                    let count = black_box(bytes / dtype.size());
                    // SAFETY: both buffers hold `bytes` bytes, and each output is an input.
                    bench.iter(|| unsafe { kernel.run(black_box(&from), black_box(&to), count, None) });
                });
            }
        }
        group.finish();
    }
}

fn many_in_one_out(c: &mut Criterion) {
    const BYTES: usize = 256 << 10;
    let mut group = c.benchmark_group("sum_many_into_1/f32");
    for inputs in [2usize, 3, 4, 8, 16] {
        group.throughput(Throughput::Bytes((inputs * BYTES) as u64));
        let buffers: Vec<Vec<u64>> = (0..inputs).map(|_| buffer(BYTES)).collect();
        let from: Vec<*const u8> = buffers.iter().map(|buffer| buffer.as_ptr().cast()).collect();
        let mut result = buffer(BYTES);
        let to: [*mut u8; 1] = [result.as_mut_ptr().cast()];
        let kernel = Kernel::select(DataType::F32, ReduceOp::Sum);
        group.bench_function(BenchmarkId::from_parameter(inputs), |bench| {
            // SAFETY: every buffer holds BYTES bytes, and the output is a buffer of its own.
            bench.iter(|| unsafe { kernel.run(black_box(&from), black_box(&to), BYTES / 4, None) });
        });
    }
    group.finish();
}

criterion_group!(benches, two_in_two_out, many_in_one_out);
criterion_main!(benches);
