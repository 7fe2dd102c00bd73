//! The engine: runs programs over links, on the caller's thread.
//!
//! A call binds the cached program of its shape to its count, opens every message as early as the program's
//! dependencies allow, and then polls: [`run`] moves chunks, [`wait`] decides how to wait, [`drive`](mod@drive) joins the two.
//! Nothing is allocated once the shape of a call is known.
//!
//! [`Engine::execute`] runs a call to its end on the caller's thread. [`Engine::begin`] and [`Engine::poll`] do the same
//! in pieces, for whoever has several engines to look after.

mod again;
mod begin;
mod drive;
mod failing;
mod lengths;
mod plan;
mod pool;
mod produce;
mod pump;
mod round;
mod run;
mod straight;
mod task;
#[cfg(test)]
mod tests;
mod wait;

use crate::call::Call;
use crate::config::Config;
use crate::control::Control;
use crate::element::{DataType, ReduceOp};
use crate::error::{Error, Failure, Result};
use crate::tuner::{Choice, Decision, Tuner};
pub(crate) use again::Again;
use again::Repertoire;
use begin::Scratch;
use drive::{Outcome, Stage, Waiting, Watch, drive, go};
pub(crate) use lengths::{Cross, Lengths};
use plan::Plan;
use pool::Pool;
use rccl_kernels::Kernel;
use rccl_schedule::{Layout, Rank};
use rccl_transport::Kind;
use rccl_transport::memory::{Region, RegionTable};
use run::Space;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
pub(crate) use task::{Message, Piece, Task};
pub(crate) use wait::{Next, Patience, Sleeper};

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
    tuner: Arc<Tuner>,
    timeout: Duration,
    /// How long the task that was begun may take.
    allowed: Duration,
    yields: bool,
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
    repertoire: Repertoire,
    kernel: Option<(DataType, ReduceOp, Kernel)>,
    scratch: Vec<Scratch>,
    /// Where small calls lie that run as one: their inputs, and their outputs.
    packed: [Option<Region>; 2],
    active: Option<Active>,
    space: Space,
    sleeper: Sleeper,
    sequence: u32,
    broken: Option<Error>,
}

/// What a cached plan is found by.
#[derive(Clone, PartialEq, Eq)]
enum Shape {
    Collective(Choice, rccl_schedule::Collective),
    /// Peers and directions (`true`: sent).
    Messages(Vec<(Rank, bool)>),
}

struct Ready {
    shape: Shape,
    plan: Plan,
    /// For messages: the number of the message of each buffer behind the first two, and of each operation.
    messages: [Vec<u32>; 2],
    /// The links to its peers are there.
    linked: bool,
}

/// The task that runs.
struct Active {
    /// What errors name.
    call: Call,
    task: Task,
    /// Of its plan.
    number: usize,
    stage: Stage,
    watch: Watch,
}

impl Active {
    /// Whether the same call may come again: its memory is all that another one of its signature could have different.
    fn repeats(&self) -> bool {
        matches!(self.task, Task::Collective { sizes: Lengths::Equal(_), scale: None, .. })
    }
}

/// What became of a task.
pub(crate) enum Polled {
    /// Nothing can be done for it now.
    Waits,
    Moved,
    Ended(Result<()>),
}

impl Engine {
    /// Forgets all links, without running what they do when they are dropped.
    pub fn abandon(&mut self) {
        self.space.links.drain(..).for_each(std::mem::forget);
    }

    /// # Errors
    /// [`Error::InvalidSetting`] when `RCCL_ALGO` leaves no algorithm for a collective.
    pub fn new(
        control: Control,
        regions: Arc<RegionTable>,
        label: String,
        config: &Config,
        rank: Rank,
    ) -> Result<Engine> {
        let layout = control.layout().clone();
        let processors = control.processors();
        let local = layout.on_host(layout.host[rank as usize]).count();
        let links = control.link_settings();
        let slot = links.shm_options.slot as u64;
        let (always_eager, _) = links.eager();
        let ranks = layout.ranks() as usize;
        let yields = local > processors;
        Ok(Engine {
            tuner: {
                let tuning = control.tuning();
                Arc::new(Tuner::new(config, &layout, tuning.hosts, &tuning.profile)?)
            },
            timeout: config.timeout,
            allowed: config.timeout,
            yields,
            eager: vec![0; ranks],
            unasked: vec![0; ranks],
            always_eager: always_eager as u64,
            reached: Vec::new(),
            sockets: 0,
            plans: Vec::new(),
            last: None,
            repertoire: Repertoire::default(),
            kernel: None,
            scratch: Vec::new(),
            packed: [None, None],
            active: None,
            space: Space::new(ranks, slot, !yields),
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

    /// Runs a task to its end, which none is under way before.
    ///
    /// # Safety
    /// Memory that the task reads is valid for reads, and memory that it writes for writes, until this returns; what it
    /// reads and what it writes is the same memory as far as the collective defines, or does not overlap; and nobody
    /// else touches either.
    #[inline]
    pub unsafe fn execute(&mut self, task: Task) -> Result<()> {
        if let Task::Collective { call, sizes: Lengths::Equal(_), input, output, scale: None } = &task
            && let Some(Again::Ended(result)) =
                // SAFETY: the caller's promise.
                unsafe { self.again(call, input.cast_mut(), *output, Duration::MAX) }
        {
            return result;
        }
        // SAFETY: the caller's promise.
        unsafe { self.execute_first(task) }
    }

    /// Runs a short call that was run before, as [`Engine::execute`], but waits for other ranks for no longer than this in
    /// all, and with zero not at all; what has not ended then is under way, as if it had been [begun](Engine::begin).
    /// `None`: it is no such call.
    ///
    /// # Safety
    /// As for [`Engine::begin`].
    #[inline]
    pub unsafe fn execute_for(&mut self, task: &Task, slice: Duration) -> Option<Again> {
        let Task::Collective { call, sizes: Lengths::Equal(_), input, output, scale: None } = task else {
            return None;
        };
        // SAFETY: the caller's promise.
        unsafe { self.again(call, input.cast_mut(), *output, slice) }
    }

    /// # Safety
    /// As for [`Engine::execute`].
    #[inline(never)]
    unsafe fn execute_first(&mut self, task: Task) -> Result<()> {
        // SAFETY: the caller's promise.
        let mut active = unsafe { self.prepare(task) }?;
        let outcome = match self.link(&mut active) {
            Some(outcome) => outcome,
            None => loop {
                let Active { number, stage, watch, .. } = &mut active;
                if let Some(outcome) = self.drive(*number, stage, watch, Duration::MAX) {
                    break outcome;
                }
            },
        };
        self.remember(&active, &outcome);
        self.end_task(&active, outcome)
    }

    /// Runs what is bound to a plan to its end, or until it has waited for so long.
    #[inline]
    fn drive(
        &mut self,
        number: usize,
        stage: &mut Stage,
        watch: &mut Watch,
        slice: Duration,
    ) -> Option<Outcome> {
        let plan = &self.plans[number].plan;
        let mut run = self.space.run(plan);
        let waiting = Waiting {
            control: &self.control,
            sleeper: &mut self.sleeper,
            patience: Patience::new(self.yields),
            timeout: self.timeout,
            sequence: self.sequence,
            peers: &plan.peers,
            slice,
        };
        drive(&mut run, stage, watch, waiting)
    }

    /// Goes on with the task that was begun, one round. Never blocks.
    pub fn poll(&mut self) -> Polled {
        if let Some(mut active) = self.active.take_if(|active| matches!(active.stage, Stage::Linking)) {
            self.take_links(&mut active);
            self.active = Some(active);
        }
        let Some(active) = &mut self.active else { return Polled::Ended(Ok(())) };
        let mut run = self.space.run(&self.plans[active.number].plan);
        let outcome = match go(&mut run, &mut active.stage) {
            Ok((_, true)) => Outcome::Done,
            Ok((true, false)) => {
                active.watch.reset();
                return Polled::Moved;
            }
            Ok((false, false)) => {
                let Active { stage, watch, .. } = active;
                watch.set_unlinked(matches!(stage, Stage::Linking));
                let awaited = || stage.awaited(&run);
                match watch.look_idle(&self.control, self.sequence, self.allowed, awaited) {
                    Some(outcome) => outcome,
                    None => return Polled::Waits,
                }
            }
            Err(stop) => Outcome::Stopped(stop),
        };
        match self.active.take() {
            Some(active) => {
                self.remember(&active, &outcome);
                Polled::Ended(self.end_task(&active, outcome))
            }
            None => Polled::Waits,
        }
    }

    /// Whether a task is under way.
    pub fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// Prepares to sleep until the task can go on, together with others: see [`Sleeper`]. `false`: it can already.
    pub fn arm(&mut self, sleeper: &mut Sleeper) -> bool {
        let Some(active) = &self.active else { return true };
        let peers = &self.plans[active.number].plan.peers;
        sleeper.arm(&mut self.space.links, peers, self.control.doorbell().as_fd())
    }

    /// Undoes [`Engine::arm`], whatever that answered.
    pub fn disarm(&mut self) {
        if let Some(active) = &self.active {
            Sleeper::disarm(&mut self.space.links, &self.plans[active.number].plan.peers);
            if matches!(active.stage, Stage::Linking) {
                self.control.doorbell().silence();
            }
        }
    }

    /// Wakes a sleep of this engine's.
    pub fn doorbell(&self) -> &Arc<rccl_transport::shm::Doorbell> {
        self.control.doorbell()
    }

    /// Whether more ranks than processors share this host.
    pub fn yields(&self) -> bool {
        self.yields
    }

    fn end_task(&mut self, active: &Active, outcome: Outcome) -> Result<()> {
        if matches!(outcome, Outcome::Done) {
            self.unpack(active);
        }
        self.end(&active.call, outcome)
    }

    #[inline]
    fn end(&mut self, call: &Call, outcome: Outcome) -> Result<()> {
        let result = match outcome {
            Outcome::Done => Ok(()),
            Outcome::Failed => Err(self.failure()),
            Outcome::TimedOut => Err(self.await_failure(None)),
            Outcome::Stopped(stop) => Err(self.explain(call, stop)),
        };
        self.control.progress().leave(self.sequence);
        result.map_err(|error| self.broken_by(error))
    }

    /// Whether a task may begin. One that need not wait would end well in a communicator that has failed: what it needs of the
    /// others may have come before. It may where a rank was lost, which perhaps had nothing more to do.
    #[inline]
    fn check(&mut self) -> Result<()> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if self.control.failed() {
            return self.check_failure();
        }
        Ok(())
    }

    #[cold]
    fn check_failure(&mut self) -> Result<()> {
        let error = self.failure();
        match error.failure() {
            Some(Failure::PeerLost { .. }) => Ok(()),
            _ => Err(self.broken_by(error)),
        }
    }

    /// Notes what broke the communicator.
    fn broken_by(&mut self, error: Error) -> Error {
        if error.failure().is_none() {
            // The others wait for this rank, and only it knows that they do so in vain.
            self.control.abort(&error.to_string());
        }
        // The caller gets its memory back, and devices would go on writing to it.
        for link in &mut self.space.links {
            link.take_if(|link| link.kind() == Kind::Verbs);
        }
        self.broken.get_or_insert(error).clone()
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
        let Decision { algorithm, chunk, .. } = self.decision(call);
        let collective = schedule(call);
        let shape = Shape::Collective(Choice { algorithm, chunk }, collective);
        if let Some(number) = self.plans.iter().position(|ready| ready.shape == shape) {
            return number;
        }
        let program = rccl_schedule::program(algorithm, &collective, self.rank, &self.layout, 1);
        let plan = Plan::new(program);
        self.plans.push(Ready { shape, plan, messages: Default::default(), linked: false });
        self.plans.len() - 1
    }

    /// What decides on algorithms, which may be asked while calls run.
    pub fn tuner(&self) -> Arc<Tuner> {
        self.tuner.clone()
    }

    /// The algorithm that a collective call takes, and why.
    fn decision(&self, call: &Call) -> Decision {
        self.tuner.decide_call(call, &schedule(call))
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

    /// How every peer that was met so far is reached.
    pub fn reached(&self) -> &[Reached] {
        &self.reached
    }

    /// The program that a collective call runs, for people.
    pub fn explain_program(&mut self, call: &Call) -> String {
        let Decision { algorithm, chunk, .. } = self.decision(call);
        let number = self.find_plan(call);
        format!("{call} by {}\n{}", Choice { algorithm, chunk }, self.plans[number].plan.program)
    }

    /// Refuses every later task; returns what has broken the communicator before.
    pub fn finish(&mut self) -> Option<Error> {
        let before = self.broken.clone();
        let Engine { label, rank, .. } = self;
        self.broken.get_or_insert_with(|| Error::Finished { communicator: label.clone(), rank: *rank });
        before
    }
}

/// What a collective call's schedules compute.
fn schedule(call: &Call) -> rccl_schedule::Collective {
    let schedule = call.collective.schedule(call.root.unwrap_or(0));
    schedule.expect("messages and groups have no schedule of their own and are not asked for one")
}
