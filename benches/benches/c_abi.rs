//! What the C interface adds to a call: handles, numbers and panics are looked after. One rank, for which nothing else
//! happens but the check of the arguments and a copy of 8 bytes. Prints medians, and the quartiles of the differences.
//!
//! C's functions are those of the shared library that `ROCECCL_LIBRARY` names (`cargo xtask install` makes one), as C programs
//! call them; without it, those that are linked into this program.

use rccl::{Communicator, DataType, ReduceOp};
use roceccl::Answer;
use std::ffi::{OsStr, c_void};
use std::hint::black_box;
use std::ptr::null_mut;
use std::time::Instant;

/// Calls that are timed together, some 100 us, and how often: first those of Rust and then those of C, so that what the
/// machine does otherwise falls on both.
const CALLS: u32 = 500;
const ROUNDS: usize = 10_000;

const F32: i32 = DataType::F32 as i32;
const SUM: i32 = ReduceOp::Sum as i32;

/// A communicator, or a stream.
type Handle = *mut c_void;

/// The functions that are measured.
struct Library {
    init_env: unsafe extern "C" fn(*mut Handle, *const roceccl::Config) -> Answer,
    all_reduce: unsafe extern "C" fn(*const c_void, *mut c_void, usize, i32, i32, Handle, Handle) -> Answer,
    broadcast: unsafe extern "C" fn(*const c_void, *mut c_void, usize, i32, i32, Handle, Handle) -> Answer,
    all_gather_v:
        unsafe extern "C" fn(*const c_void, *mut c_void, *const usize, i32, Handle, Handle) -> Answer,
    barrier: unsafe extern "C" fn(Handle, Handle) -> Answer,
    group_start: unsafe extern "C" fn() -> Answer,
    group_end: unsafe extern "C" fn() -> Answer,
    destroy: unsafe extern "C" fn(Handle) -> Answer,
}

macro_rules! library {
    ($($field:ident: $function:ident,)*) => {
        impl Library {
            fn linked() -> Library {
                Library { $($field: roceccl::$function,)* }
            }

            fn shared(path: &OsStr) -> Library {
                // SAFETY: loading it runs nothing but the start of its own runtime, and its functions have these types.
                unsafe {
                    let library = libloading::Library::new(path).expect("ROCECCL_LIBRARY is a shared library");
                    let library = Box::leak(Box::new(library));
                    Library { $($field: *library.get(stringify!($function).as_bytes()).expect("one of its functions"),)* }
                }
            }
        }
    };
}
library! {
    init_env: rcclCommInitEnv,
    all_reduce: rcclAllReduce,
    broadcast: rcclBroadcast,
    all_gather_v: rcclAllGatherV,
    barrier: rcclBarrier,
    group_start: rcclGroupStart,
    group_end: rcclGroupEnd,
    destroy: rcclCommDestroy,
}

fn main() {
    let c = std::env::var_os("ROCECCL_LIBRARY").map_or_else(Library::linked, |path| Library::shared(&path));
    let comm = Communicator::from_env().expect("one rank");
    let mut handle = null_mut();
    // SAFETY: there is room for a handle, and NULL is no config.
    let joined = unsafe { (c.init_env)(&mut handle, std::ptr::null()) };
    assert_eq!(joined, Answer::Success);

    let all_reduce = |x: &[f32; 2], y: &mut [f32; 2]| {
        let (send, recv) = pointers(x, y);
        // SAFETY: both have two elements, and the call has ended when it returns, or the group that it is in.
        unsafe { (c.all_reduce)(send, recv, 2, F32, SUM, handle, null_mut()) }
    };
    compare(
        "all_reduce",
        |x, y| comm.all_reduce_into(x, y, ReduceOp::Sum).expect("a sum"),
        |x, y| all_reduce(x, y),
    );
    compare(
        "all_reduce in place",
        |_, y| comm.all_reduce(y, ReduceOp::Sum).expect("a sum"),
        |_, y| {
            let y = y.as_mut_ptr().cast();
            // SAFETY: as above.
            unsafe { (c.all_reduce)(y, y, 2, F32, SUM, handle, null_mut()) }
        },
    );
    compare(
        "broadcast",
        |x, y| comm.broadcast_into(x, y, 0).expect("a copy"),
        |x, y| {
            let (send, recv) = pointers(x, y);
            // SAFETY: as above.
            unsafe { (c.broadcast)(send, recv, 2, F32, 0, handle, null_mut()) }
        },
    );
    compare(
        "all_gather_v",
        |x, y| comm.all_gather_v_into(x, y, black_box(&[2])).expect("a copy"),
        |x, y| {
            let (send, recv) = pointers(x, y);
            // SAFETY: as above; there is one rank, and a number for it.
            unsafe { (c.all_gather_v)(send, recv, black_box(&2), F32, handle, null_mut()) }
        },
    );
    compare(
        "barrier",
        |_, _| comm.barrier().expect("nobody else"),
        // SAFETY: any values are safe.
        |_, _| unsafe { (c.barrier)(handle, null_mut()) },
    );
    // Of which C makes three calls.
    compare(
        "a group of one all_reduce",
        |x, y| rccl::group(|calls| calls.all_reduce_into(&comm, x, y, ReduceOp::Sum)).expect("a sum"),
        |x, y| {
            // SAFETY: always.
            let opened = unsafe { (c.group_start)() };
            let made = all_reduce(x, y);
            assert_eq!((opened, made), (Answer::Success, Answer::Success));
            // SAFETY: the memory is as the call wants it.
            unsafe { (c.group_end)() }
        },
    );
    // SAFETY: made above.
    assert_eq!(unsafe { (c.destroy)(handle) }, Answer::Success);
}

fn compare(
    call: &str,
    mut rust: impl FnMut(&[f32; 2], &mut [f32; 2]),
    mut c: impl FnMut(&[f32; 2], &mut [f32; 2]) -> Answer,
) {
    let (x, mut y) = ([1.0_f32, 2.0], [1.0_f32, 2.0]);
    let (mut rusts, mut cs, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let by_rust = nanoseconds(|| rust(black_box(&x), black_box(&mut y)));
        let by_c = nanoseconds(|| assert_eq!(c(black_box(&x), black_box(&mut y)), Answer::Success));
        rusts.push(by_rust);
        cs.push(by_c);
        more.push(by_c - by_rust);
    }
    assert_eq!(y, x);
    let [(_, rust, _), (_, c, _), (low, middle, high)] = [rusts, cs, more].map(quartiles);
    println!("{call:<26} Rust {rust:6.1} ns  C {c:6.1} ns  C adds {middle:6.1} ns ({low:.1} to {high:.1})");
}

/// Of one call.
fn nanoseconds(mut call: impl FnMut()) -> f64 {
    let began = Instant::now();
    (0..CALLS).for_each(|_| call());
    began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

/// The lower quartile, the median and the upper quartile.
fn quartiles(mut times: Vec<f64>) -> (f64, f64, f64) {
    times.sort_unstable_by(f64::total_cmp);
    let at = |quarter: usize| times[(times.len() - 1) * quarter / 4];
    (at(1), at(2), at(3))
}

fn pointers(x: &[f32; 2], y: &mut [f32; 2]) -> (*const c_void, *mut c_void) {
    (x.as_ptr().cast(), y.as_mut_ptr().cast())
}
