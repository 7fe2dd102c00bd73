//! What the C interface adds to a call: handles, numbers and panics are looked after. One rank, for which nothing else
//! happens but the check of the arguments and a copy of 8 bytes.

#![expect(missing_docs, reason = "criterion_group! makes a public function without documentation")]

use criterion::{Criterion, criterion_group, criterion_main};
use rccl::{Communicator, DataType, ReduceOp};
use roceccl::Answer;
use std::hint::black_box;
use std::ptr::null_mut;
use std::time::Duration;

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).without_plots();
    targets = one_call
}
criterion_main!(benches);

fn one_call(criterion: &mut Criterion) {
    let comm = Communicator::from_env().expect("one rank");
    let mut handle = null_mut();
    // SAFETY: there is room for a handle, and NULL is no config.
    let joined = unsafe { roceccl::rcclCommInitEnv(&mut handle, std::ptr::null()) };
    assert_eq!(joined, Answer::Success);
    let (x, mut y) = ([1.0_f32, 2.0], [0.0_f32; 2]);
    let mut group = criterion.benchmark_group("all_reduce of 8 bytes, 1 rank");
    // Twice, since what comes second may find a faster or slower machine.
    for turn in 1..=2 {
        group.bench_function(format!("Rust, turn {turn}"), |bench| {
            bench.iter(|| {
                comm.all_reduce_into(black_box(&x), black_box(&mut y), ReduceOp::Sum).expect("a sum")
            });
        });
        group.bench_function(format!("C, turn {turn}"), |bench| {
            bench.iter(|| {
                // SAFETY: both have two elements, and the call has ended when it returns.
                let answer = unsafe {
                    roceccl::rcclAllReduce(
                        black_box(&x).as_ptr().cast(),
                        black_box(&mut y).as_mut_ptr().cast(),
                        2,
                        DataType::F32 as i32,
                        0,
                        handle,
                        null_mut(),
                    )
                };
                assert_eq!(answer, Answer::Success);
            });
        });
    }
    group.finish();
    assert_eq!(y, x);
    // SAFETY: made above.
    assert_eq!(unsafe { roceccl::rcclCommDestroy(handle) }, Answer::Success);
}
