//! A warm call allocates nothing: neither memory of the process nor, on the registered path, staging.

mod common;

use common::{config, on_ranks};
use rccl::{Communicator, ReduceOp};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts the allocations of each thread, so that the control plane's own do not disturb.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn calls(comm: &Communicator, plain: &mut [f32], registered: &mut [f32]) {
    for count in [1, 100, 10_000, 200_000] {
        comm.all_reduce(&mut plain[..count], ReduceOp::Sum).unwrap();
        comm.all_reduce(&mut registered[..count], ReduceOp::Sum).unwrap();
        comm.broadcast(&mut registered[..count], 1).unwrap();
        comm.barrier().unwrap();
    }
}

fn warm_calls_allocate_nothing(transport: &str, n: u32) {
    on_ranks(n, &config(transport, ""), |comm| {
        let mut plain = vec![0.0_f32; 200_000];
        let mut registered = comm.alloc::<f32>(200_000).unwrap();
        for _ in 0..3 {
            calls(&comm, &mut plain, &mut registered);
        }
        let before = ALLOCATIONS.get();
        for _ in 0..20 {
            calls(&comm, &mut plain, &mut registered);
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "rank {} allocated", comm.rank());
    });
}

#[test]
fn in_shared_memory() {
    warm_calls_allocate_nothing("shm", 2);
    warm_calls_allocate_nothing("shm", 4);
}

#[test]
fn over_tcp() {
    warm_calls_allocate_nothing("tcp", 2);
    warm_calls_allocate_nothing("tcp", 3);
}
