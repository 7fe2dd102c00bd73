//! What the C interface adds to a call: handles, numbers and panics are looked after. One rank, for which nothing else
//! happens but the check of the arguments and a copy of 8 bytes.

#![expect(missing_docs, reason = "criterion_group! makes a public function without documentation")]

use criterion::{Criterion, criterion_group, criterion_main};
use rccl::{Communicator, DataType, ReduceOp};
use roceccl::Answer;
use std::ffi::c_void;
use std::hint::black_box;
use std::ptr::null_mut;
use std::time::Duration;

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .without_plots();
    targets = one_call
}
criterion_main!(benches);

const F32: i32 = DataType::F32 as i32;
const SUM: i32 = ReduceOp::Sum as i32;

fn one_call(criterion: &mut Criterion) {
    let comm = Communicator::from_env().expect("one rank");
    let mut handle = null_mut();
    // SAFETY: there is room for a handle, and NULL is no config.
    let joined = unsafe { roceccl::rcclCommInitEnv(&mut handle, std::ptr::null()) };
    assert_eq!(joined, Answer::Success);

    let all_reduce = |x: &[f32; 2], y: &mut [f32; 2]| {
        let (send, recv) = pointers(x, y);
        // SAFETY: both have two elements, and the call has ended when it returns, or the group that it is in.
        unsafe { roceccl::rcclAllReduce(send, recv, 2, F32, SUM, handle, null_mut()) }
    };
    compare(
        criterion,
        "all_reduce",
        |x, y| comm.all_reduce_into(x, y, ReduceOp::Sum).expect("a sum"),
        |x, y| all_reduce(x, y),
    );
    compare(
        criterion,
        "all_reduce in place",
        |_, y| comm.all_reduce(y, ReduceOp::Sum).expect("a sum"),
        |_, y| {
            let y = y.as_mut_ptr().cast();
            // SAFETY: as above.
            unsafe { roceccl::rcclAllReduce(y, y, 2, F32, SUM, handle, null_mut()) }
        },
    );
    compare(
        criterion,
        "broadcast",
        |x, y| comm.broadcast_into(x, y, 0).expect("a copy"),
        |x, y| {
            let (send, recv) = pointers(x, y);
            // SAFETY: as above.
            unsafe { roceccl::rcclBroadcast(send, recv, 2, F32, 0, handle, null_mut()) }
        },
    );
    compare(
        criterion,
        "all_gather_v",
        |x, y| comm.all_gather_v_into(x, y, black_box(&[2])).expect("a copy"),
        |x, y| {
            let (send, recv) = pointers(x, y);
            // SAFETY: as above; there is one rank, and a number for it.
            unsafe { roceccl::rcclAllGatherV(send, recv, black_box(&2), F32, handle, null_mut()) }
        },
    );
    compare(
        criterion,
        "barrier",
        |_, _| comm.barrier().expect("nobody else"),
        // SAFETY: any values are safe.
        |_, _| unsafe { roceccl::rcclBarrier(handle, null_mut()) },
    );
    // Of which C makes three calls.
    compare(
        criterion,
        "a group of one all_reduce",
        |x, y| rccl::group(|calls| calls.all_reduce_into(&comm, x, y, ReduceOp::Sum)).expect("a sum"),
        |x, y| {
            // SAFETY: always.
            let opened = unsafe { roceccl::rcclGroupStart() };
            let made = all_reduce(x, y);
            assert_eq!((opened, made), (Answer::Success, Answer::Success));
            // SAFETY: the memory is as the call wants it.
            unsafe { roceccl::rcclGroupEnd() }
        },
    );
    // SAFETY: made above.
    assert_eq!(unsafe { roceccl::rcclCommDestroy(handle) }, Answer::Success);
}

fn compare(
    criterion: &mut Criterion,
    call: &str,
    mut rust: impl FnMut(&[f32; 2], &mut [f32; 2]),
    mut c: impl FnMut(&[f32; 2], &mut [f32; 2]) -> Answer,
) {
    let (x, mut y) = ([1.0_f32, 2.0], [1.0_f32, 2.0]);
    let mut group = criterion.benchmark_group(format!("{call} of 8 bytes, 1 rank"));
    // Twice, since what comes second may find a faster or slower machine.
    for turn in 1..=2 {
        group.bench_function(format!("Rust, turn {turn}"), |bench| {
            bench.iter(|| rust(black_box(&x), black_box(&mut y)));
        });
        group.bench_function(format!("C, turn {turn}"), |bench| {
            bench.iter(|| assert_eq!(c(black_box(&x), black_box(&mut y)), Answer::Success));
        });
    }
    group.finish();
    assert_eq!(y, x);
}

fn pointers(x: &[f32; 2], y: &mut [f32; 2]) -> (*const c_void, *mut c_void) {
    (x.as_ptr().cast(), y.as_mut_ptr().cast())
}
