//! Runs one line of the table: times the calls, and checks what they leave behind.

use super::check::{Data, Sample, count_wrong, fill, spoil};
use super::options::{Memory, Options};
use rccl::{Buffer, Call, Collective, Communicator, DataType, ReduceOp, Result};
use std::time::Instant;

/// What is called: one line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The call as the library names it.
    pub call: Call,
    /// One buffer for input and output.
    pub in_place: bool,
}

/// What was found out about a case; the same on every rank.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Microseconds of one call, the average of calls back to back.
    pub average_us: f64,
    /// Microseconds of single calls, the slowest rank's of each, in ascending order. Empty if nobody asked for them.
    pub calls_us: Vec<f64>,
    /// Wrong elements over all ranks, if they were counted.
    pub wrong: Option<u64>,
}

/// Runs cases with one pair of buffers, which all sizes and types share.
pub struct Bench<'a> {
    communicator: &'a Communicator,
    options: &'a Options,
    input: Room,
    output: Room,
}

impl<'a> Bench<'a> {
    /// With room for `bytes` bytes of data.
    ///
    /// # Errors
    /// [`rccl::Error::System`] when there is no memory for it.
    pub fn new(communicator: &'a Communicator, options: &'a Options, bytes: u64) -> Result<Bench<'a>> {
        let room = || Room::new(communicator, options.memory, bytes);
        Ok(Bench { communicator, options, input: room()?, output: room()? })
    }

    /// Times and checks a case. Every rank calls it with the same case.
    ///
    /// # Errors
    /// What the case's calls return.
    pub fn run(&mut self, case: &Case) -> Result<Measured> {
        match case.call.dtype {
            DataType::I8 => self.run_typed::<i8>(case),
            DataType::U8 => self.run_typed::<u8>(case),
            DataType::I32 => self.run_typed::<i32>(case),
            DataType::U32 => self.run_typed::<u32>(case),
            DataType::I64 => self.run_typed::<i64>(case),
            DataType::U64 => self.run_typed::<u64>(case),
            DataType::F16 => self.run_typed::<half::f16>(case),
            DataType::F64 => self.run_typed::<f64>(case),
            DataType::BF16 => self.run_typed::<half::bf16>(case),
            DataType::F8E4M3 => self.run_typed::<rccl::F8E4M3>(case),
            DataType::F8E5M2 => self.run_typed::<rccl::F8E5M2>(case),
            _ => self.run_typed::<f32>(case),
        }
    }

    fn run_typed<T: Sample>(&mut self, case: &Case) -> Result<Measured> {
        let count = case.call.count as usize;
        let mut pair = Pair::<T> {
            communicator: self.communicator,
            case,
            input: self.input.elements(count),
            output: self.output.elements(count),
        };
        // Zeros stay zeros under every operator: a call in place, repeated, does not drift into denormals.
        pair.input.fill(T::zeroed());
        pair.output.fill(T::zeroed());
        let average_us = back_to_back(self.options, &mut pair)?;
        let calls_us =
            if self.options.json.is_some() { one_by_one(self.options, &mut pair)? } else { Vec::new() };
        let checks = if case.call.collective == Collective::Barrier { 0 } else { self.options.check };
        let mut wrong = [0];
        for round in 0..checks {
            wrong[0] += pair.check(u64::from(round))?;
        }
        self.communicator.all_reduce(&mut wrong, ReduceOp::Sum)?;
        Ok(Measured { average_us, calls_us, wrong: (checks > 0).then_some(wrong[0]) })
    }
}

/// The table's way: the time of many calls, one straight after the other, over their number.
fn back_to_back<T: Sample>(options: &Options, pair: &mut Pair<'_, T>) -> Result<f64> {
    for _ in 0..options.warm_up {
        pair.call()?;
    }
    pair.communicator.barrier()?;
    let calls = u64::from(options.table_iterations()) * u64::from(options.calls);
    let start = Instant::now();
    for _ in 0..calls {
        pair.call()?;
    }
    let time = start.elapsed().as_secs_f64() * 1e6 / calls as f64;
    let communicator = pair.communicator;
    let (mine, op) = match options.average {
        0 => (if communicator.rank() == 0 { time } else { 0.0 }, ReduceOp::Sum),
        2 => (time, ReduceOp::Min),
        3 => (time, ReduceOp::Max),
        _ => (time, ReduceOp::Avg),
    };
    let mut times = [mine];
    communicator.all_reduce(&mut times, op)?;
    Ok(times[0])
}

/// The JSON's way: each call on its own behind a barrier, and of each the time of the slowest rank.
fn one_by_one<T: Sample>(options: &Options, pair: &mut Pair<'_, T>) -> Result<Vec<f64>> {
    // The fastest of a few calls tells how many the budget has time for; the ranks agree on the slowest rank's.
    let mut fastest = [f64::INFINITY];
    for _ in 0..4 {
        fastest[0] = pair.timed_call()?.min(fastest[0]);
    }
    pair.communicator.all_reduce(&mut fastest, ReduceOp::Max)?;
    let calls = match options.iterations {
        Some(calls) => calls as usize,
        None => calls_within(options.budget * 1e6, fastest[0], pair.case.call.bytes()),
    };
    for _ in 0..calls / 10 {
        pair.timed_call()?;
    }
    let mut times = (0..calls).map(|_| pair.timed_call()).collect::<Result<Vec<f64>>>()?;
    pair.communicator.all_reduce(&mut times, ReduceOp::Max)?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// How many calls of `call_us` to time for a size, within a budget: enough for a 99th percentile where calls are short.
fn calls_within(budget_us: f64, call_us: f64, bytes: u64) -> usize {
    const K: u64 = 1 << 10;
    let usual = match bytes {
        0..=65_536 => 2000,
        _ if bytes <= K * K => 300,
        _ if bytes <= 16 * K * K => 40,
        _ => 15,
    };
    // As many as the budget has time for, a tenth of them for warming up; but never so few that a median means nothing.
    let affordable = budget_us / (1.1 * call_us.max(0.01));
    usual.min((affordable as usize).max(5))
}

/// The two buffers as the elements that a case is about.
struct Pair<'a, T: Sample> {
    communicator: &'a Communicator,
    case: &'a Case,
    input: &'a mut [T],
    output: &'a mut [T],
}

impl<T: Sample> Pair<'_, T> {
    #[inline]
    fn call(&mut self) -> Result<()> {
        let communicator = self.communicator;
        let op = self.case.call.op.unwrap_or(ReduceOp::Sum);
        let root = self.case.call.root.unwrap_or(0);
        match (self.case.call.collective, self.case.in_place) {
            (Collective::AllReduce, false) => communicator.all_reduce_into(self.input, self.output, op),
            (Collective::AllReduce, true) => communicator.all_reduce(self.output, op),
            (Collective::Broadcast, false) => communicator.broadcast_into(self.input, self.output, root),
            (Collective::Broadcast, true) => communicator.broadcast(self.output, root),
            _ => communicator.barrier(),
        }
    }

    /// Microseconds of one call that all ranks begin together.
    fn timed_call(&mut self) -> Result<f64> {
        self.communicator.barrier()?;
        let start = Instant::now();
        self.call()?;
        Ok(start.elapsed().as_nanos() as f64 / 1e3)
    }

    /// Calls on data whose result is known; how many of this rank's elements are wrong.
    fn check(&mut self, seed: u64) -> Result<u64> {
        let (rank, call) = (self.communicator.rank(), self.case.call);
        let data = Data { seed, ranks: self.communicator.size(), op: call.op };
        let root = call.root.unwrap_or(rank);
        let expected = data.expected::<T>(root, self.output.len());
        let given = data.input::<T>(rank, self.output.len());
        let source = if self.case.in_place { &mut *self.output } else { &mut *self.input };
        if rank == root {
            fill(source, &given);
        } else {
            // What the root alone gives must not be there yet.
            spoil(source, &expected);
        }
        if !self.case.in_place {
            spoil(self.output, &expected);
        }
        self.call()?;
        let mut wrong = count_wrong(self.output, &expected);
        if !self.case.in_place && rank == root {
            wrong += count_wrong(self.input, &given); // an input is only read
        }
        Ok(wrong)
    }
}

/// Memory for elements of any type: words, as they are aligned for all, from a page's start.
enum Room {
    Registered(Buffer<u64>),
    Plain { words: Vec<u64>, start: usize },
}

impl Room {
    const PAGE: usize = 4096;

    fn new(communicator: &Communicator, memory: Memory, bytes: u64) -> Result<Room> {
        let count = bytes.div_ceil(8) as usize;
        if memory == Memory::Registered {
            return communicator.alloc(count).map(Room::Registered);
        }
        let mut words = Vec::new();
        words.try_reserve_exact(count + Room::PAGE / 8).map_err(|error| rccl::Error::System {
            during: format!("allocating {bytes} bytes"),
            source: std::sync::Arc::new(std::io::Error::new(std::io::ErrorKind::OutOfMemory, error)),
            hint: "give a smaller -e, or free memory".into(),
        })?;
        words.resize(count + Room::PAGE / 8, 0);
        let start = words.as_ptr().align_offset(Room::PAGE);
        Ok(Room::Plain { start: start.min(Room::PAGE / 8), words })
    }

    fn elements<T: Sample>(&mut self, count: usize) -> &mut [T] {
        let words = match self {
            Room::Registered(buffer) => &mut buffer[..],
            Room::Plain { words, start } => &mut words[*start..],
        };
        &mut bytemuck::cast_slice_mut(words)[..count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_calls_are_fewer() {
        assert_eq!(calls_within(2e6, 0.4, 8), 2000);
        assert_eq!(calls_within(2e6, 50.0, 1 << 20), 300);
        assert_eq!(calls_within(2e6, 5000.0, 16 << 20), 40);
        assert_eq!(calls_within(2e6, 5000.0, 64 << 20), 15);
        assert_eq!(calls_within(2e6, 10_000.0, 8), 181);
        assert_eq!(calls_within(2e6, 1e7, 1 << 30), 5);
    }
}
