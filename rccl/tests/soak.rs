//! Random calls on random communicators, each result compared with what plain arithmetic gives.
//!
//! `TEST_SOAK_SECONDS` says for how long (5). A failure names the seed of its round, and `TEST_SOAK_SEED` begins with
//! that round: the same calls on the same memory, though not the same timing.

mod common;

use common::{DEADLINE, Stream, config};
use half::{bf16, f16};
use rccl::{Communicator, Config, Element, F8E4M3, F8E5M2, ReduceOp, UniqueId};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const OPS: [ReduceOp; 5] = [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min, ReduceOp::Avg];
const CALLS: u32 = 40;
const MOST: f64 = 200_000.0;

/// A type with the arithmetic that the results are compared with. All values are small whole numbers, which every type
/// holds exactly.
trait Sample: Element {
    const SIGNED: bool;
    fn whole(value: i64) -> Self;
    fn ratio(sum: i64, ranks: i64) -> Self;
}

macro_rules! samples {
    ($($type:ty: $signed:literal, $whole:expr, $ratio:expr;)*) => {$(
        impl Sample for $type {
            const SIGNED: bool = $signed;
            fn whole(value: i64) -> $type { ($whole)(value) }
            fn ratio(sum: i64, ranks: i64) -> $type { ($ratio)(sum, ranks) }
        }
    )*};
}

samples! {
    i8: true, |v| v as i8, |s, n| (s / n) as i8;
    u8: false, |v| v as u8, |s, n| (s / n) as u8;
    i32: true, |v| v as i32, |s, n| (s / n) as i32;
    u32: false, |v| v as u32, |s, n| (s / n) as u32;
    i64: true, |v| v, |s, n| s / n;
    u64: false, |v| v as u64, |s, n| (s / n) as u64;
    f16: true, |v| f16::from_f32(v as f32), |s, n| f16::from_f32(s as f32 / n as f32);
    bf16: true, |v| bf16::from_f32(v as f32), |s, n| bf16::from_f32(s as f32 / n as f32);
    f32: true, |v| v as f32, |s, n| s as f32 / n as f32;
    f64: true, |v| v as f64, |s, n| s as f64 / n as f64;
    F8E4M3: true, |v| F8E4M3::from_f32(v as f32), |s, n| F8E4M3::from_f32(s as f32 / n as f32);
    F8E5M2: true, |v| F8E5M2::from_f32(v as f32), |s, n| F8E5M2::from_f32(s as f32 / n as f32);
}

fn below(stream: &mut Stream, limit: u64) -> u64 {
    stream.bits() % limit
}

/// From 0 to 200,000, every order of magnitude as likely as the next.
fn count(stream: &mut Stream) -> usize {
    let logarithm = (stream.bits() >> 11) as f64 / (1_u64 << 53) as f64;
    (MOST + 1.0).powf(logarithm) as usize - 1
}

/// Element `i` of `rank` in a call: so small that neither the sum nor the product of 5 ranks leaves what 8-bit floats
/// hold exactly.
fn value<T: Sample>(op: Option<ReduceOp>, call: u64, rank: u32, i: usize) -> i64 {
    let bits = Stream(call ^ (u64::from(rank) << 56) ^ i as u64).bits() >> 7;
    let sign = if T::SIGNED && bits & 1 == 1 { -1 } else { 1 };
    let magnitude = match op {
        Some(ReduceOp::Sum | ReduceOp::Avg) => (bits >> 1) % 2,
        Some(ReduceOp::Prod) => (bits >> 1) % 2 + 1,
        _ => (bits >> 1) % 8,
    };
    // There is one whole zero only; minus zero is another test's matter.
    sign * magnitude as i64
}

fn expected<T: Sample>(op: ReduceOp, call: u64, ranks: u32, i: usize) -> T {
    let values = (0..ranks).map(|rank| value::<T>(Some(op), call, rank, i));
    match op {
        ReduceOp::Sum => T::whole(values.sum()),
        ReduceOp::Prod => T::whole(values.product()),
        ReduceOp::Max => T::whole(values.max().unwrap_or(0)),
        ReduceOp::Min => T::whole(values.min().unwrap_or(0)),
        _ => T::ratio(values.sum(), i64::from(ranks)),
    }
}

/// Registered or plain memory, of which a part that may begin anywhere is used.
enum Memory<T: Element> {
    Plain(Vec<T>),
    Registered(rccl::Buffer<T>),
}

impl<T: Sample> Memory<T> {
    fn new(comm: &Communicator, count: usize, own: &mut Stream) -> (Memory<T>, std::ops::Range<usize>) {
        let before = below(own, 2) as usize * below(own, 70) as usize;
        let len = before + count + 3;
        let memory = if below(own, 2) == 0 {
            Memory::Plain(vec![T::whole(1); len])
        } else {
            Memory::Registered(comm.alloc(len).expect("memory"))
        };
        (memory, before..before + count)
    }
    fn all(&mut self) -> &mut [T] {
        match self {
            Memory::Plain(memory) => memory,
            Memory::Registered(memory) => memory,
        }
    }
    /// What lies before `low` and from `high` on.
    fn outside(&mut self, low: usize, high: usize) -> Vec<T> {
        let all = self.all();
        [&all[..low], &all[high..]].concat()
    }
}

/// One call of a type: `call` is the same on all ranks, `own` is this rank's.
fn call<T: Sample>(comm: &Communicator, call: u64, own: &mut Stream) {
    let mut stream = Stream(call);
    let count = count(&mut stream);
    let op = OPS[below(&mut stream, 5) as usize];
    let root = below(&mut stream, u64::from(comm.size())) as u32;
    let reduce = below(&mut stream, 3) < 2;
    let used = reduce.then_some(op);
    let rank = comm.rank();

    let (mut from, range) = Memory::<T>::new(comm, count, own);
    let mine: Vec<T> = (0..count).map(|i| T::whole(value::<T>(used, call, rank, i))).collect();
    from.all()[range.clone()].copy_from_slice(&mine);
    let (low, high) = (range.start, range.end);
    let guards = from.outside(low, high);

    let (mut into, place) = Memory::<T>::new(comm, count, own);
    let in_place = below(own, 2) == 0;
    let input = &mut from.all()[range];
    let output = &mut into.all()[place];
    let result = match (reduce, in_place) {
        (true, true) => comm.all_reduce(input, op),
        (true, false) => comm.all_reduce_into(input, output, op),
        (false, true) => comm.broadcast(input, root),
        (false, false) => comm.broadcast_into(input, output, root),
    };
    let what = || format!("{:?} {used:?} x{count} from {root}, in place {in_place}, rank {rank}", T::TYPE);
    result.unwrap_or_else(|error| panic!("{}: {error}", what()));

    let right: Vec<T> = (0..count)
        .map(|i| match used {
            Some(op) => expected::<T>(op, call, comm.size(), i),
            None => T::whole(value::<T>(None, call, root, i)),
        })
        .collect();
    let bytes = bytemuck::cast_slice::<T, u8>;
    if bytes(if in_place { input } else { output }) != bytes(&right) {
        let given = if in_place { input } else { output };
        let wrong: Vec<usize> =
            (0..count).filter(|&i| bytes(&given[i..=i]) != bytes(&right[i..=i])).collect();
        let (first, start) = (wrong[0], bytes(given).as_ptr().addr());
        panic!(
            "{}: {} wrong from {first} to {}, where {:02x?} is not {:02x?}; the buffer begins {} bytes after a line",
            what(),
            wrong.len(),
            wrong[wrong.len() - 1],
            bytes(&given[first..=first]),
            bytes(&right[first..=first]),
            start % 64
        );
    }
    assert!(in_place || bytes(input) == bytes(&mine), "{}: the input was written", what());
    let after = from.outside(low, high);
    assert!(bytes(&after) == bytes(&guards), "{}: written outside of the buffer", what());
}

const TYPES: [fn(&Communicator, u64, &mut Stream); 12] = [
    call::<i8>,
    call::<u8>,
    call::<i32>,
    call::<u32>,
    call::<i64>,
    call::<u64>,
    call::<f16>,
    call::<bf16>,
    call::<f32>,
    call::<f64>,
    call::<F8E4M3>,
    call::<F8E5M2>,
];

/// The calls of one rank.
fn calls(comm: Communicator, seed: u64) {
    let mut shared = Stream(seed ^ 1);
    let mut own = Stream(seed ^ (u64::from(comm.rank()) << 48) ^ 2);
    for _ in 0..CALLS {
        let which = below(&mut shared, 13) as usize;
        let seed = shared.bits();
        match TYPES.get(which) {
            Some(call) => call(&comm, seed, &mut own),
            None => comm.barrier().expect("a barrier"),
        }
    }
    comm.finish().expect("leaving");
}

/// Settings of each rank of a round, and what to call them.
fn settings(seed: u64) -> (String, Vec<Config>) {
    let mut stream = Stream(seed);
    let ranks = 2 + below(&mut stream, 4) as u32;
    let way = ["shm", "tcp", "mixed"][below(&mut stream, 3) as usize];
    let algorithms = ["", "", "^direct", "ring,chain", "tree,pipelined_tree", "hierarchical,binomial"];
    let algorithm = algorithms[below(&mut stream, algorithms.len() as u64) as usize];
    let copies = below(&mut stream, 4) > 0;
    let hosts = below(&mut stream, 2);
    let config = |rank: u32| {
        let mut config = config(if way == "mixed" { "" } else { way }, algorithm);
        config.copy_disable = !copies;
        if way == "mixed" {
            // By turns, or one rank alone on its host.
            let host = if hosts == 0 { rank % 2 } else { u32::from(rank == 0) };
            config.host_id = Some(format!("host {host}"));
        }
        config
    };
    (format!("{ranks} ranks, {way}, '{algorithm}', copies {copies}"), (0..ranks).map(config).collect())
}

fn round(seed: u64) {
    let (name, configs) = settings(seed);
    let size = configs.len() as u32;
    let id = UniqueId::create(&configs[0]).expect("creating the unique id");
    let (done, results) = mpsc::channel();
    for (rank, config) in (0..).zip(configs) {
        let done = done.clone();
        let run = move || {
            let builder = Communicator::builder().expect("settings").config(config);
            calls(builder.connect(&id, rank, size).expect("joining"), seed);
            let _ = done.send(());
        };
        std::thread::Builder::new().name(format!("rank {rank}")).spawn(run).expect("a thread");
    }
    drop(done);
    for _ in 0..size {
        let result = results.recv_timeout(DEADLINE);
        assert!(result.is_ok(), "replay it with TEST_SOAK_SEED={seed} ({name}): {result:?}");
    }
}

#[test]
fn random_calls_give_what_arithmetic_says() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seconds = Duration::from_secs(number("TEST_SOAK_SECONDS").unwrap_or(5));
    let first = number("TEST_SOAK_SEED").unwrap_or_else(|| rand::random::<u64>() >> 16);
    println!("TEST_SOAK_SEED={first}");
    let began = Instant::now();
    let mut rounds = 0;
    while rounds == 0 || began.elapsed() < seconds {
        round(first + rounds);
        rounds += 1;
    }
    println!("{rounds} rounds of {CALLS} calls in {:.1} s", began.elapsed().as_secs_f64());
}
