//! The engine with everything above and below it: whole calls between two ranks.
//!
//! The ranks are two threads of this process, so that the bench needs no launcher. For times between processes, and
//! against other libraries, see `benches/peers`.

#![expect(missing_docs, reason = "criterion_group! makes a public function without documentation")]

use std::hint::black_box;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rccl::{Communicator, Config, ReduceOp, UniqueId};

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2)).without_plots();
    targets = calls
}
criterion_main!(benches);

#[derive(Clone, Copy)]
enum Call {
    AllReduce,
    Broadcast,
    Barrier,
}

/// So many calls, one after the other.
struct Order {
    call: Call,
    count: usize,
    iterations: u64,
}

/// Rank 0 here, and rank 1 on a thread that does whatever calls rank 0 does.
struct Pair {
    comm: Communicator,
    orders: Sender<Order>,
    other: JoinHandle<()>,
}

fn calls(criterion: &mut Criterion) {
    let pair = Pair::join();
    for (name, call) in [("all_reduce f32 sum", Call::AllReduce), ("broadcast f32", Call::Broadcast)] {
        let mut group = criterion.benchmark_group(format!("{name}, 2 ranks"));
        for bytes in [8usize, 4 << 10, 256 << 10, 4 << 20] {
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(BenchmarkId::from_parameter(bytes), |bench| {
                bench.iter_custom(|iterations| pair.time(Order { call, count: bytes / 4, iterations }));
            });
        }
        group.finish();
    }
    criterion.bench_function("barrier, 2 ranks", |bench| {
        bench.iter_custom(|iterations| pair.time(Order { call: Call::Barrier, count: 0, iterations }));
    });
    pair.leave();
}

impl Pair {
    fn join() -> Pair {
        let config = Config::from_env().expect("the settings in the environment are usable");
        let id = UniqueId::create(&config).expect("a listening socket can be had");
        let (orders, taken) = channel::<Order>();
        let id_of_other = id;
        let other = std::thread::spawn(move || {
            let comm = Communicator::new(&id_of_other, 1, 2).expect("rank 1 joins");
            for order in taken {
                order.carry_out(&comm);
            }
            comm.finish().expect("rank 1 leaves");
        });
        let comm = Communicator::new(&id, 0, 2).expect("rank 0 joins");
        Pair { comm, orders, other }
    }

    fn time(&self, order: Order) -> Duration {
        self.orders.send(Order { ..order }).expect("rank 1 is there");
        order.carry_out(&self.comm)
    }

    fn leave(self) {
        drop(self.orders);
        self.comm.finish().expect("rank 0 leaves");
        self.other.join().expect("rank 1 did not panic");
    }
}

impl Order {
    /// The time of all calls together, from a barrier on.
    fn carry_out(&self, comm: &Communicator) -> Duration {
        let mut memory = comm.alloc::<f32>(self.count).expect("memory for the call");
        comm.barrier().expect("both ranks meet");
        let start = Instant::now();
        for _ in 0..self.iterations {
            let done = match self.call {
                Call::AllReduce => comm.all_reduce(&mut memory, ReduceOp::Sum),
                Call::Broadcast => comm.broadcast(&mut memory, 0),
                Call::Barrier => comm.barrier(),
            };
            done.expect("both ranks make the same calls");
        }
        black_box(&memory);
        start.elapsed()
    }
}
