//! Runs one line of the table: times the calls, and checks what they leave behind.

use super::calls;
use super::check::{Data, Sample};
use super::image::{Change, Patterns};
use super::line::Line;
use super::options::{Memory, Options};
use super::plan::Plan;
use rccl::{Buffer, Collective, Communicator, DataType, ReduceOp, Result};
use std::time::Instant;

/// One way of calling what a line of the table is about.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The line.
    pub line: Line,
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

/// Runs cases with one input and an output for each call of an iteration, which all sizes and types share.
pub struct Bench<'a> {
    communicator: &'a Communicator,
    options: &'a Options,
    input: Room,
    outputs: Room,
    /// Bytes from one output to the next.
    stride: u64,
}

impl<'a> Bench<'a> {
    /// With room for `bytes` bytes of data in every array.
    ///
    /// # Errors
    /// [`rccl::Error::System`] when there is no memory for it.
    pub fn new(communicator: &'a Communicator, options: &'a Options, bytes: u64) -> Result<Bench<'a>> {
        // An array that nobody has memory for is refused when it is allocated, so it may be cut short here.
        let stride = bytes.checked_next_multiple_of(Room::PAGE as u64).unwrap_or(u64::MAX);
        let all = stride.saturating_mul(options.calls.into());
        let room = |bytes| Room::new(communicator, options.memory, bytes);
        Ok(Bench { communicator, options, input: room(stride)?, outputs: room(all)?, stride })
    }

    /// Times and checks a case. Every rank calls it with the same case.
    ///
    /// # Errors
    /// What the case's calls return.
    pub fn run(&mut self, case: &Case) -> Result<Measured> {
        match case.line.dtype {
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

    /// Calls by another communicator of the same ranks, each on its own behind a barrier: microseconds, of each the slowest
    /// rank's. Elements are floats, and results are not checked.
    ///
    /// # Errors
    /// What the calls return.
    pub fn single_calls(&mut self, case: &Case, by: &Communicator, calls: usize) -> Result<Vec<f64>> {
        let meeting = self.communicator;
        let mut arrays = self.arrays::<f32>(case, by);
        let mut times = Vec::with_capacity(calls);
        for _ in 0..calls {
            // The same barrier for all that are compared.
            meeting.barrier()?;
            let start = Instant::now();
            arrays.iterate()?;
            times.push(start.elapsed().as_nanos() as f64 / 1e3);
        }
        meeting.all_reduce(&mut times, ReduceOp::Max)?;
        Ok(times)
    }

    /// The memory of a case, all zeros: they stay zeros under every operator, so a call in place, repeated, does not drift
    /// into denormals.
    fn arrays<'b, T: Sample>(&'b mut self, case: &Case, by: &'b Communicator) -> Arrays<'b, T> {
        let plan = Plan::new(case.line, case.in_place, by.rank());
        let stride = self.stride as usize / size_of::<T>();
        let outputs = self.outputs.elements::<T>().chunks_mut(stride.max(1));
        let mut arrays = Arrays::<T> {
            communicator: by,
            options: self.options,
            input: &mut self.input.elements()[..plan.input],
            outputs: outputs.take(self.options.calls as usize).map(|room| &mut room[..plan.output]).collect(),
            plan,
        };
        // Without elements there is no memory to cut outputs from, but as many calls.
        arrays.outputs.resize_with(self.options.calls as usize, Default::default);
        arrays.input.fill(T::zeroed());
        arrays.outputs.iter_mut().for_each(|output| output.fill(T::zeroed()));
        arrays
    }

    fn run_typed<T: Sample>(&mut self, case: &Case) -> Result<Measured> {
        let communicator = self.communicator;
        let (options, seed) = (self.options, self.options.seed);
        let mut arrays = self.arrays::<T>(case, communicator);
        let average_us = back_to_back(options, &mut arrays)?;
        let calls_us = if options.json.is_some() { one_by_one(options, &mut arrays)? } else { Vec::new() };
        let checks = if case.line.collective == Collective::Barrier { 0 } else { options.check };
        let mut wrong = [0];
        for round in 0..checks {
            wrong[0] += arrays.check(seed.wrapping_add(round.into()))?;
        }
        communicator.all_reduce(&mut wrong, ReduceOp::Sum)?;
        Ok(Measured { average_us, calls_us, wrong: (checks > 0).then_some(wrong[0]) })
    }
}

/// The table's way: the time of many calls, one straight after the other, over their number.
fn back_to_back<T: Sample>(options: &Options, arrays: &mut Arrays<'_, T>) -> Result<f64> {
    for _ in 0..options.warm_up {
        arrays.iterate()?;
    }
    arrays.communicator.barrier()?;
    let iterations = options.table_iterations();
    let start = Instant::now();
    for _ in 0..iterations {
        arrays.iterate()?;
    }
    let calls = u64::from(iterations) * u64::from(options.calls);
    let time = start.elapsed().as_secs_f64() * 1e6 / calls as f64;
    let communicator = arrays.communicator;
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

/// The JSON's way: each iteration on its own behind a barrier, and of each the time of the slowest rank.
fn one_by_one<T: Sample>(options: &Options, arrays: &mut Arrays<'_, T>) -> Result<Vec<f64>> {
    // The fastest of a few tells how many the budget has time for; the ranks agree on the slowest rank's.
    let mut fastest = [f64::INFINITY];
    for _ in 0..4 {
        fastest[0] = arrays.timed()?.min(fastest[0]);
    }
    arrays.communicator.all_reduce(&mut fastest, ReduceOp::Max)?;
    let per_iteration = f64::from(options.calls);
    let iterations = match options.iterations {
        Some(iterations) => iterations as usize,
        None => calls_within(options.budget * 1e6, fastest[0], arrays.plan.line.bytes()),
    };
    for _ in 0..iterations / 10 {
        arrays.timed()?;
    }
    let mut times = (0..iterations).map(|_| arrays.timed()).collect::<Result<Vec<f64>>>()?;
    arrays.communicator.all_reduce(&mut times, ReduceOp::Max)?;
    times.sort_by(f64::total_cmp);
    times.iter_mut().for_each(|time| *time /= per_iteration);
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

/// The buffers as the elements that a case is about.
struct Arrays<'a, T: Sample> {
    communicator: &'a Communicator,
    options: &'a Options,
    plan: Plan,
    input: &'a mut [T],
    /// One for each call of an iteration.
    outputs: Vec<&'a mut [T]>,
}

impl<T: Sample> Arrays<'_, T> {
    #[inline]
    fn iterate(&mut self) -> Result<()> {
        if self.options.asynchronous {
            calls::started(self.communicator, &self.plan, self.input, &mut self.outputs)
        } else {
            calls::blocking(self.communicator, &self.plan, self.input, &mut self.outputs)
        }
    }

    /// Microseconds of one iteration that all ranks begin together.
    fn timed(&mut self) -> Result<f64> {
        self.communicator.barrier()?;
        let start = Instant::now();
        self.iterate()?;
        if self.options.closing_barrier {
            self.communicator.barrier()?;
        }
        Ok(start.elapsed().as_nanos() as f64 / 1e3)
    }

    /// Calls on data whose result is known; how many of this rank's elements are wrong: results, and what no call may
    /// write.
    fn check(&mut self, seed: u64) -> Result<u64> {
        let line = &self.plan.line;
        let data = Data { seed, ranks: line.ranks, op: line.op };
        let (input, output) = (Change::of_input(&self.plan), Change::of_output(&self.plan));
        let images = [&input.before, &output.before, &output.after];
        let patterns = Patterns::new(&data, line.elements as usize, &images);
        input.before.fill(self.input, &patterns);
        for memory in &mut self.outputs {
            output.before.fill(memory, &patterns);
        }
        self.iterate()?;
        let wrong = self.outputs.iter().map(|memory| output.after.count_wrong(memory, &patterns));
        Ok(input.after.count_wrong(self.input, &patterns) + wrong.sum::<u64>())
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

    fn elements<T: Sample>(&mut self) -> &mut [T] {
        let words = match self {
            Room::Registered(buffer) => &mut buffer[..],
            Room::Plain { words, start } => &mut words[*start..],
        };
        bytemuck::cast_slice_mut(words)
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
