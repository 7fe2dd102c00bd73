//! The engine: runs programs over links, on the caller's thread.
//!
//! A call binds the cached program of its shape to its count, opens every message as early as the program's
//! dependencies allow, and then polls: [`run`] moves chunks, [`wait`] decides how to wait. Nothing is allocated once
//! the shape of a call is known.

mod choose;
mod plan;
mod pool;
mod produce;
mod pump;
mod round;
mod run;
#[cfg(test)]
mod tests;
mod wait;

use crate::call::{Call, Collective};
use crate::config::Config;
use crate::control::Control;
use crate::element::{DataType, ReduceOp};
use crate::error::{Error, Failure, Member, Result};
use choose::Situation;
use plan::Plan;
use pool::Pool;
use rccl_kernels::Kernel;
use rccl_schedule::{Algorithm, Layout, Rank};
use rccl_transport::memory::{Region, RegionTable};
use rccl_transport::{Kind, Link, LinkError, Place, Tag};
use round::Round;
use run::{Area, CHUNK, Run, State, Stop};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wait::{Next, Patience, STALL, Sleeper};

/// Calls of this many bytes write their results past the caches, which they would only sweep clean.
const STREAMED: u64 = 2 << 20;

/// How one rank reaches another, for reports.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    pub peer: Rank,
    pub kind: Kind,
    pub reason: String,
}

pub(crate) struct Engine {
    control: Control,
    regions: Arc<RegionTable>,
    label: String,
    rank: Rank,
    layout: Layout,
    situation: Situation,
    /// The algorithms that the user allows, by collective.
    allowed: [(Collective, Vec<Algorithm>); 2],
    chunk: u64,
    timeout: Duration,
    yields: bool,
    links: Vec<Option<Box<dyn Link>>>,
    /// Longest message by peer that is always eager.
    eager: Vec<u64>,
    /// Longest message by peer that may be sent eagerly: what a program of snapshots uses.
    unasked: Vec<u64>,
    /// Calls of at most this many bytes have only eager messages.
    always_eager: u64,
    reached: Vec<Reached>,
    /// How many links are over sockets.
    sockets: usize,
    plans: Vec<Ready>,
    /// The signature of the last call and its plan.
    last: Option<([u64; 2], usize)>,
    kernel: Option<(DataType, ReduceOp, Kernel)>,
    scratch: Vec<Region>,
    state: State,
    pool: Pool,
    sleeper: Sleeper,
    sequence: u32,
    broken: Option<Error>,
}

/// What a cached plan is found by.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    algorithm: Algorithm,
    root: Rank,
}

struct Ready {
    shape: Shape,
    plan: Plan,
    /// The links to its peers are there.
    linked: bool,
}

impl Engine {
    /// # Errors
    /// [`Error::InvalidSetting`] when `RCCL_ALGO` leaves no algorithm for a collective.
    pub fn new(
        control: Control,
        regions: Arc<RegionTable>,
        label: String,
        config: &Config,
        rank: Rank,
    ) -> Result<Engine> {
        let layout = Layout { host: control.hosts() };
        let processors = wait::usable_processors(config);
        let local = layout.on_host(layout.host[rank as usize]).count();
        let links = control.link_settings();
        let (shm, slot) = (links.shm.is_ok(), links.shm_options.slot as u64);
        let (always_eager, unasked) = links.eager();
        let ranks = layout.ranks() as usize;
        Ok(Engine {
            situation: Situation::new(&layout, shm, unasked as u64),
            allowed: [
                (Collective::AllReduce, choose::allowed(config, Collective::AllReduce)?),
                (Collective::Broadcast, choose::allowed(config, Collective::Broadcast)?),
            ],
            chunk: CHUNK.min(slot),
            timeout: config.timeout,
            yields: local > processors,
            links: (0..ranks).map(|_| None).collect(),
            eager: vec![0; ranks],
            unasked: vec![0; ranks],
            always_eager: always_eager as u64,
            reached: Vec::new(),
            sockets: 0,
            plans: Vec::new(),
            last: None,
            kernel: None,
            scratch: Vec::new(),
            state: State::default(),
            pool: Pool::default(),
            sleeper: Sleeper::default(),
            sequence: 0,
            broken: None,
            control,
            regions,
            label,
            rank,
            layout,
        })
    }

    /// Runs one call to its end.
    ///
    /// # Safety
    /// `input` is valid for reads and `output` for writes of the call's bytes until this returns; they are the same
    /// memory or do not overlap, and nobody else touches them. (A broadcast reads `input` on the root only.)
    pub unsafe fn execute(&mut self, call: &Call, input: *const u8, output: *mut u8) -> Result<()> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        self.sequence += 1;
        let words = call.pack();
        self.control.progress().enter(self.sequence, words);
        let result = self.attempt(call, words, input.cast_mut(), output);
        self.control.progress().leave(self.sequence);
        result.inspect_err(|error| {
            if error.failure().is_none() {
                // The others wait for this rank, and only it knows that they do so in vain.
                self.control.abort(&error.to_string());
            }
            self.broken = Some(error.clone());
        })
    }

    fn attempt(&mut self, call: &Call, words: [u64; 2], input: *mut u8, output: *mut u8) -> Result<()> {
        let number = self.plan(call, words);
        if !self.plans[number].linked {
            self.make_links(number)?;
        }
        let bytes = call.bytes();
        let mut areas = [Area { base: std::ptr::null_mut(), place: None }; 8];
        areas[0] = self.area(input, bytes);
        areas[1] = if input == output { areas[0] } else { self.area(output, bytes) };
        let scratch = self.plans[number].plan.program.scratch as usize;
        if scratch > 0 {
            self.grow_scratch(scratch, bytes)?;
            for (area, region) in areas[2..].iter_mut().zip(&self.scratch) {
                *area = Area { base: region.as_ptr(), place: Some(region.place(0)) };
            }
        }
        let kernel = self.kernel(call);
        let mut run = Run {
            plan: &self.plans[number].plan,
            state: &mut self.state,
            links: &mut self.links,
            pool: &mut self.pool,
            kernel,
            areas: &areas,
            tag: Tag { sequence: self.sequence, call: words },
            element: call.dtype.size() as u64,
            chunk: self.chunk,
            // An all_reduce in place has read what it overwrites.
            streaming: bytes >= STREAMED && (input != output || call.collective == Collective::Broadcast),
            shared_copies: !self.yields,
            first: 0,
            last: 0,
            unopened: 0,
            dear_polls: self.sockets > 1,
            rounds: 0,
        };
        let waiting = Waiting {
            control: &self.control,
            sleeper: &mut self.sleeper,
            patience: Patience::new(self.yields),
            timeout: self.timeout,
        };
        let outcome = if run.plan.one_round && bytes <= self.situation.eager {
            let mut round = Round::default();
            drive(&mut run, waiting, |run| run.step_round(&mut round, bytes as usize))
        } else {
            run.bind(number, call.count, if run.plan.program.snapshot { &self.unasked } else { &self.eager });
            drive(&mut run, waiting, step)
        };
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::Failed => Err(self.failure()),
            Outcome::TimedOut => Err(self.await_failure(None)),
            Outcome::Stopped(stop) => Err(self.explain(call, stop)),
        }
    }

    /// The number of the plan of a call's shape.
    #[inline]
    fn plan(&mut self, call: &Call, words: [u64; 2]) -> usize {
        match self.last {
            Some((known, number)) if known == words => number,
            _ => {
                let number = self.find_plan(call);
                self.last = Some((words, number));
                number
            }
        }
    }

    fn find_plan(&mut self, call: &Call) -> usize {
        let algorithm = self.algorithm(call);
        let shape = Shape { algorithm, root: call.root.unwrap_or(0) };
        if let Some(number) = self.plans.iter().position(|ready| ready.shape == shape) {
            return number;
        }
        let collective = match call.collective {
            Collective::Broadcast => rccl_schedule::Collective::Broadcast { root: shape.root },
            _ => rccl_schedule::Collective::AllReduce,
        };
        let program = rccl_schedule::program(algorithm, &collective, self.rank, &self.layout, 1);
        self.plans.push(Ready { shape, plan: Plan::new(algorithm, program), linked: false });
        self.plans.len() - 1
    }

    /// The algorithm that a call takes.
    pub fn algorithm(&self, call: &Call) -> Algorithm {
        let bytes = call.bytes();
        let usual = self.situation.choose(call.collective, bytes);
        let kind = if call.collective == Collective::Broadcast {
            Collective::Broadcast
        } else {
            Collective::AllReduce
        };
        let allowed = self.allowed.iter().find(|(of, _)| *of == kind).map_or(&[][..], |(_, allowed)| allowed);
        if allowed.contains(&usual) {
            return usual;
        }
        let possible = |algorithm: &&Algorithm| self.situation.allows(**algorithm, bytes);
        allowed.iter().find(possible).copied().unwrap_or(usual)
    }

    #[inline]
    fn area(&self, base: *mut u8, bytes: u64) -> Area {
        if bytes <= self.always_eager {
            // Every message is eager: nobody needs to find this memory.
            return Area { base, place: None };
        }
        let place = self.regions.lookup(base, bytes as usize).unwrap_or_else(|| Place::at_address(base));
        Area { base, place: Some(place) }
    }

    fn grow_scratch(&mut self, buffers: usize, bytes: u64) -> Result<()> {
        let bytes = bytes.max(1) as usize;
        for i in 0..buffers {
            if self.scratch.get(i).is_some_and(|region| region.len() >= bytes) {
                continue;
            }
            let region = self.regions.alloc(bytes.next_power_of_two()).map_err(|error| Error::System {
                during: format!("allocating {bytes} bytes of scratch memory"),
                source: Arc::new(std::io::Error::other(error)),
                hint: "free memory, or choose another algorithm with RCCL_ALGO".into(),
            })?;
            if i < self.scratch.len() {
                self.scratch[i] = region;
            } else {
                self.scratch.push(region);
            }
        }
        Ok(())
    }

    fn kernel(&mut self, call: &Call) -> Kernel {
        let op = call.op.unwrap_or(ReduceOp::Sum);
        match self.kernel {
            Some((dtype, known, kernel)) if dtype == call.dtype && known == op => kernel,
            _ => {
                let kernel = Kernel::select(call.dtype, op);
                self.kernel = Some((call.dtype, op, kernel));
                kernel
            }
        }
    }

    /// Waits until the control plane has made the links that plan `number` needs.
    fn make_links(&mut self, number: usize) -> Result<()> {
        let started = Instant::now();
        let peers = self.plans[number].plan.peers.clone();
        let missing = |links: &[Option<Box<dyn Link>>]| -> Vec<Rank> {
            peers.iter().copied().filter(|&peer| links[peer as usize].is_none()).collect()
        };
        self.control.request_links(&missing(&self.links));
        self.sleeper.reserve(peers.len());
        let mut stalled = STALL;
        loop {
            for made in self.control.take_links() {
                let peer = made.peer as usize;
                self.eager[peer] = made.link.limits().eager as u64;
                self.unasked[peer] = made.link.limits().unasked as u64;
                self.sockets += usize::from(made.kind == Kind::Tcp);
                self.reached.push(Reached { peer: made.peer, kind: made.kind, reason: made.reason });
                self.links[peer] = Some(made.link);
            }
            if missing(&self.links).is_empty() {
                self.plans[number].linked = true;
                return Ok(());
            }
            if self.control.failed() {
                return Err(self.failure());
            }
            if started.elapsed() >= stalled {
                stalled = started.elapsed() * 2;
                self.control.report_stall(self.sequence, &[]);
            }
            if started.elapsed() >= self.timeout {
                self.control.report_timeout(self.sequence, started.elapsed(), &[]);
                return Err(self.await_failure(None));
            }
            self.sleeper.sleep(&mut self.links, &[], self.control.doorbell().as_fd());
            self.control.doorbell().silence();
        }
    }

    /// Turns what stopped a run into the failure that all ranks report.
    fn explain(&mut self, call: &Call, stop: Stop) -> Error {
        match stop {
            Stop::Foreign { peer, theirs } => {
                // What met here may be an echo of an earlier difference: the root compares what all ranks called.
                self.control.report_stall(self.sequence, &[]);
                if !self.failed_within(Duration::from_millis(500)) {
                    self.control.report_mismatch(self.sequence, *call, peer, theirs.sequence, theirs.call);
                }
                self.await_failure(None)
            }
            Stop::Length { peer, expected, given } => {
                let cause = format!("rank {peer} sent {given} bytes where {expected} belong");
                self.control.report_link_lost(peer, self.kind(peer), self.sequence, &cause);
                self.await_failure(None)
            }
            Stop::Link { peer, error } => self.lost(peer, &error),
        }
    }

    /// A link broke: the control plane knows within moments whether the peer died; else the link itself is at fault.
    fn lost(&mut self, peer: Rank, error: &LinkError) -> Error {
        if !self.failed_within(Duration::from_secs(1)) {
            self.control.report_link_lost(peer, self.kind(peer), self.sequence, &error.to_string());
        }
        self.await_failure(Some(error))
    }

    fn kind(&self, peer: Rank) -> Kind {
        self.reached.iter().find(|reached| reached.peer == peer).map_or(Kind::Tcp, |reached| reached.kind)
    }

    /// Waits for the failure that was reported to come back as every rank's first cause.
    fn await_failure(&mut self, link: Option<&LinkError>) -> Error {
        if self.failed_within(Duration::from_secs(5)) {
            return self.failure();
        }
        let cause = link.map_or("the control plane did not answer".into(), LinkError::to_string);
        self.failed(Arc::new(Failure::LinkLost {
            rank: self.rank,
            peer: self.rank,
            transport: "control".into(),
            sequence: self.sequence,
            cause,
        }))
    }

    /// Whether the first cause is known, or becomes known within `patience`.
    fn failed_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.control.failed() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.control.failed()
    }

    fn failure(&self) -> Error {
        match self.control.failure() {
            Some(failure) => self.failed(failure),
            None => self.failed(Arc::new(Failure::Aborted { member: self.member(), why: "unknown".into() })),
        }
    }

    fn failed(&self, failure: Arc<Failure>) -> Error {
        Error::Failed { communicator: self.label.clone(), reporter: self.member(), failure }
    }

    fn member(&self) -> Member {
        self.control.me()
    }

    /// How every peer that was met so far is reached.
    pub fn reached(&self) -> &[Reached] {
        &self.reached
    }

    /// The program that a call runs, for people.
    pub fn explain_program(&mut self, call: &Call) -> String {
        let number = self.find_plan(call);
        let plan = &self.plans[number].plan;
        format!("{call} by {}\n{}", plan.algorithm, plan.program)
    }

    /// The failure that broke the communicator.
    pub fn broken(&self) -> Option<Error> {
        self.broken.clone()
    }
}

/// How a run ended.
enum Outcome {
    Done,
    /// The communicator failed meanwhile.
    Failed,
    TimedOut,
    Stopped(Stop),
}

/// What a run needs to wait.
struct Waiting<'a> {
    control: &'a Control,
    sleeper: &'a mut Sleeper,
    patience: Patience,
    timeout: Duration,
}

/// Runs to the end; `step` goes one round on.
fn drive<'a>(
    run: &mut Run<'a>,
    mut waiting: Waiting<'_>,
    mut step: impl FnMut(&mut Run<'a>) -> Result<(bool, bool), Stop>,
) -> Outcome {
    // The clock is first read when there is something to wait for.
    let mut started = None;
    let mut stalled = STALL;
    loop {
        match step(run) {
            Ok((_, true)) => return Outcome::Done,
            Ok((true, false)) => {
                waiting.patience.reset();
                continue;
            }
            Ok((false, false)) => {}
            Err(stop) => return Outcome::Stopped(stop),
        }
        let (waited, sleep) = match waiting.patience.idle() {
            Next::Poll => continue,
            Next::Look(waited) => (waited, false),
            Next::Sleep(waited) => (waited, true),
        };
        let Waiting { control, sleeper, timeout, .. } = &mut waiting;
        if control.failed() {
            return Outcome::Failed;
        }
        control.fetch_regions();
        let sequence = run.tag.sequence;
        if waited >= stalled {
            stalled = waited * 2;
            control.report_stall(sequence, &[]);
        }
        let elapsed = started.get_or_insert_with(Instant::now).elapsed();
        if elapsed >= *timeout {
            control.report_timeout(sequence, elapsed, &[]);
            return Outcome::TimedOut;
        }
        if sleep {
            sleeper.sleep(run.links, &run.plan.peers, control.doorbell().as_fd());
        }
    }
}

/// One round: (something moved, all done).
fn step(run: &mut Run<'_>) -> Result<(bool, bool), Stop> {
    let opened = run.open()?;
    run.exchange()?;
    let moved = run.advance()?;
    if run.done() {
        run.flush()?;
        return Ok((opened || moved, run.drained()));
    }
    Ok((opened || moved, false))
}
