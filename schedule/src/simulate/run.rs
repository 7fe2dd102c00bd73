//! The run itself: what the engine does with the programs, chunk by chunk, in simulated time.

use super::cluster::{Cluster, Overhead, Time};
use super::graph::{Graph, chunks};
use super::links::{Links, Route};
use super::queue::{Event, Queue, What};

/// How many chunks of a value that is not stored wait for those who have not been sent them: as many as the engine keeps.
const OUTBOX: u32 = 4;

/// How far an operation is, in chunks.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// Those whose operands were taken.
    taken: u32,
    /// Those whose value exists.
    made: u32,
}

/// An edge and what is under way on it.
struct Lane {
    route: Route,
    latency: Time,
    /// The message that leaves next or is leaving, and how many of its chunks have.
    head: u32,
    sent: u32,
    /// One past the last message.
    end: u32,
    /// Chunks that have left and that the sender does not know to be taken.
    in_flight: u32,
    /// The sender's processor is at a chunk.
    posting: bool,
    /// The edge carries more chunks than its window holds, so that releases matter.
    windowed: bool,
    /// The message that arrives, and how many of its chunks have.
    arriving: u32,
    arrived: u32,
}

pub(super) struct Run<'a> {
    cluster: &'a Cluster,
    graph: &'a Graph,
    links: &'a Links<'a>,
    queue: Queue,
    now: Time,
    /// When the last chunk so far was made or left.
    end: Time,
    ops: Vec<Progress>,
    lanes: Vec<Lane>,
    /// Of each message, the chunks that its sender knows to be taken; where anything waits for that.
    released: Vec<u32>,
    /// When the receiver of each operation made itself ready; where some are not from the start.
    opened: Vec<Time>,
    /// When each link is free, and how long it was busy.
    pub free: Vec<Time>,
    pub busy: Vec<Time>,
    /// When each rank's processor is free, how long it was busy, and how slow it is, in 1/65,536.
    processor: Vec<Time>,
    pub worked: Vec<Time>,
    slowness: Vec<u64>,
    pub events: u64,
    pub chunks: u64,
}

const NEVER: Time = Time::MAX;

impl<'a> Run<'a> {
    pub(super) fn new(cluster: &'a Cluster, graph: &'a Graph, links: &'a Links<'a>, ranks: u32) -> Run<'a> {
        let lane = |(number, edge): (u32, &super::graph::Edge)| {
            let messages = graph.messages_of(number);
            let route = links.route(edge.from, edge.to);
            let total: u64 = messages
                .clone()
                .map(|message| u64::from(chunks(graph.op(graph.message(message).from).bytes, cluster.chunk)))
                .sum();
            Lane {
                latency: links.latency(&route),
                route,
                head: messages.start,
                sent: 0,
                end: messages.end,
                in_flight: 0,
                posting: false,
                windowed: total > u64::from(cluster.window),
                arriving: messages.start,
                arrived: 0,
            }
        };
        let mut slowness = vec![1 << 16; ranks as usize];
        for slow in &cluster.slow {
            let Some(host) = links.host(&slow.what) else { continue };
            for rank in (0..ranks).filter(|&rank| links.host_of(rank) == host) {
                let slower = slowness[rank as usize] as f64 * slow.factor;
                slowness[rank as usize] = slower.round() as u64;
            }
        }
        let (waiting, opening) =
            if graph.any_dependencies() { (graph.messages.len(), graph.ops()) } else { (0, 0) };
        let opened = (0..opening as u32).map(|op| if graph.before(op).is_empty() { 0 } else { NEVER });
        Run {
            cluster,
            graph,
            links,
            queue: Queue::default(),
            now: 0,
            end: 0,
            ops: vec![Progress::default(); graph.ops()],
            lanes: (0..).zip(&graph.edges).map(lane).collect(),
            released: vec![0; waiting],
            opened: opened.collect(),
            free: vec![0; links.all.len()],
            busy: vec![0; links.all.len()],
            processor: vec![0; ranks as usize],
            worked: vec![0; ranks as usize],
            slowness,
            events: 0,
            chunks: 0,
        }
    }

    /// Runs to the end, and says when that is. The error is the first operation that did not come to its end.
    pub(super) fn run(&mut self) -> Result<Time, u32> {
        for op in self.graph.in_program_order() {
            if self.graph.receives(op).is_empty() || !self.graph.before(op).is_empty() {
                self.go_on(op);
            }
        }
        while let Some(event) = self.queue.next() {
            self.now = event.time;
            self.events += 1;
            self.happen(event);
        }
        let unfinished = |op: &u32| self.ops[*op as usize].made < self.chunks_of(*op);
        match (0..self.graph.ops() as u32).find(unfinished) {
            Some(op) => Err(op),
            None => Ok(self.end),
        }
    }

    fn happen(&mut self, Event { what, of, bytes, .. }: Event) {
        match what {
            What::Hop { hop } => self.hop(of, hop, bytes),
            What::Leave => self.leave(of),
            What::Arrive => self.arrive(of),
            What::Made => self.made(of),
            What::Released => self.release(of),
            What::Granted => self.pump(of),
        }
    }

    /// Sends the next chunk of an edge, if it is there and may go.
    fn pump(&mut self, edge: u32) {
        let lane = &self.lanes[edge as usize];
        if lane.posting || lane.head == lane.end || lane.windowed && lane.in_flight >= self.cluster.window {
            return;
        }
        let op = self.graph.message(lane.head).from;
        if self.ops[op as usize].made <= lane.sent {
            return;
        }
        let overhead = self.overhead(lane);
        if self.graph.op(op).bytes > overhead.eager {
            // Who opens later says so then.
            let to = self.graph.message(lane.head).to;
            let granted = self.opened.get(to as usize).map_or(0, |&opened| opened);
            let granted = granted.saturating_add(lane.latency);
            if self.now < granted {
                if granted != NEVER {
                    self.queue.put(granted, What::Granted, edge, 0);
                }
                return;
            }
        }
        let bytes = self.size_of(op, lane.sent);
        self.lanes[edge as usize].posting = true;
        // What was received has been sent on in the pass that made it: see `cost`.
        let done = if self.graph.receives(op).is_empty() {
            self.work(self.graph.edges[edge as usize].from, overhead.send + overhead.copy.time(bytes))
        } else {
            self.now
        };
        self.queue.put(done, What::Leave, edge, 0);
    }

    /// A chunk leaves the processor.
    fn leave(&mut self, edge: u32) {
        let lane = &mut self.lanes[edge as usize];
        let (message, chunk) = (lane.head, lane.sent);
        let op = self.graph.message(message).from;
        let last = chunk + 1 == chunks(self.graph.op(op).bytes, self.cluster.chunk);
        lane.in_flight += 1;
        lane.posting = false;
        (lane.head, lane.sent) = if last { (message + 1, 0) } else { (message, chunk + 1) };
        let bytes = self.size_of(op, chunk) as u32;
        self.chunks += 1;
        self.end = self.now;
        self.hop(edge, 0, bytes);
        if self.is_eager(message) {
            self.note_release(message);
        }
        if !self.graph.op(op).stores {
            self.go_on(op);
        }
        self.pump(edge);
    }

    /// A chunk passes a link, behind whatever came there before.
    ///
    /// Cut-through: where the next link is no faster, the chunk begins there as soon as its first bit arrives. A faster
    /// one begins so late that it ends with the last bit.
    fn hop(&mut self, edge: u32, hop: u8, bytes: u32) {
        let route = self.lanes[edge as usize].route;
        let path = route.path();
        let number = path[usize::from(hop)] as usize;
        let link = self.links.all[number];
        let long = link.rate.time(u64::from(bytes));
        let start = self.now.max(self.free[number]);
        self.free[number] = start + long;
        self.busy[number] += long;
        match path.get(usize::from(hop) + 1) {
            Some(&next) => {
                let next = self.links.all[next as usize].rate.time(u64::from(bytes));
                let at = start + link.latency + long.saturating_sub(next);
                self.queue.put(at, What::Hop { hop: hop + 1 }, edge, bytes);
            }
            None => self.queue.put(start + link.latency + long, What::Arrive, edge, bytes),
        }
    }

    fn arrive(&mut self, edge: u32) {
        let lane = &mut self.lanes[edge as usize];
        let message = lane.arriving;
        let op = self.graph.message(message).to;
        lane.arrived += 1;
        if lane.arrived == chunks(self.graph.op(op).bytes, self.cluster.chunk) {
            (lane.arriving, lane.arrived) = (message + 1, 0);
        }
        self.go_on(op);
    }

    /// Takes the next chunk of an operation, if all of its operands are there and it may.
    fn go_on(&mut self, op: u32) {
        loop {
            let Progress { taken, made } = self.ops[op as usize];
            if taken > made || taken == self.chunks_of(op) || !self.may(op, taken) {
                return;
            }
            let receives = self.graph.receives(op);
            if !receives.iter().all(|&message| self.is_there(message, taken))
                || self.outbox_is_full(op, taken)
            {
                return;
            }
            self.ops[op as usize].taken += 1;
            let work = self.cost(op, self.size_of(op, taken));
            if work > 0 {
                let done = self.work(self.graph.op(op).rank, work);
                self.queue.put(done, What::Made, op, 0);
                return;
            }
            self.make(op);
        }
    }

    fn made(&mut self, op: u32) {
        self.make(op);
        self.go_on(op);
    }

    /// A chunk of a value exists: it can be sent, and what it was made of is released.
    fn make(&mut self, op: u32) {
        let graph = self.graph;
        self.ops[op as usize].made += 1;
        self.end = self.now;
        for &message in graph.receives(op) {
            let lane = &self.lanes[graph.message(message).edge as usize];
            let awaited = !graph.after(graph.message(message).from).is_empty();
            if lane.windowed || awaited && !self.is_eager(message) {
                self.queue.put(self.now + lane.latency, What::Released, message, 0);
            }
        }
        for &message in graph.sends(op) {
            self.pump(graph.message(message).edge);
        }
        if graph.sends(op).is_empty() {
            self.wake_later(op);
        }
    }

    /// The sender learns that a chunk of a message was taken.
    fn release(&mut self, message: u32) {
        let edge = self.graph.message(message).edge;
        self.lanes[edge as usize].in_flight -= 1;
        if !self.is_eager(message) {
            self.note_release(message);
        }
        self.pump(edge);
    }

    /// What the sender of a message waits for has happened to one more chunk of it.
    fn note_release(&mut self, message: u32) {
        if let Some(released) = self.released.get_mut(message as usize) {
            *released += 1;
            self.wake_later(self.graph.message(message).from);
        }
    }

    /// Operations that are after this one may be able to go on.
    fn wake_later(&mut self, op: u32) {
        for &later in self.graph.after(op) {
            if self.opened[later as usize] == NEVER && self.may(later, 0) {
                self.open(later);
            }
            self.go_on(later);
        }
    }

    /// The receiver makes itself ready, and its senders are told.
    fn open(&mut self, op: u32) {
        self.opened[op as usize] = self.now;
        for &message in self.graph.receives(op) {
            let edge = self.graph.message(message).edge;
            self.queue.put(self.now + self.lanes[edge as usize].latency, What::Granted, edge, 0);
        }
    }

    /// Whether what must come before a chunk has ended.
    fn may(&self, op: u32, chunk: u32) -> bool {
        self.graph.before(op).iter().all(|before| {
            let needed = if before.whole { self.chunks_of(before.op) } else { chunk + 1 };
            let sends = self.graph.sends(before.op);
            self.ops[before.op as usize].made >= needed
                && sends.iter().all(|&message| self.released[message as usize] >= needed)
        })
    }

    fn is_there(&self, message: u32, chunk: u32) -> bool {
        let lane = &self.lanes[self.graph.message(message).edge as usize];
        message < lane.arriving || message == lane.arriving && lane.arrived > chunk
    }

    /// Whether a value that is stored nowhere must be sent on before more of it is made.
    fn outbox_is_full(&self, op: u32, taken: u32) -> bool {
        if self.graph.op(op).stores || self.graph.receives(op).is_empty() || taken < OUTBOX {
            return false;
        }
        self.graph.sends(op).iter().any(|&message| {
            let lane = &self.lanes[self.graph.message(message).edge as usize];
            let sent = match message.cmp(&lane.head) {
                std::cmp::Ordering::Less => taken,
                std::cmp::Ordering::Equal => lane.sent,
                std::cmp::Ordering::Greater => 0,
            };
            taken >= sent + OUTBOX
        })
    }

    /// What it takes the processor to make a chunk, and to send it on if it was received: the engine does that in one pass.
    /// (Were the sends to queue behind what has arrived meanwhile, messages would bunch up and travel a ring in bunches.)
    fn cost(&self, op: u32, bytes: u64) -> Time {
        let receives = self.graph.receives(op);
        let operands = receives.len() as u64 + u64::from(self.graph.op(op).has_own);
        let mut cost = 0;
        let mut by_device = false;
        for &message in receives {
            let lane = &self.lanes[self.graph.message(message).edge as usize];
            let overhead = self.overhead(lane);
            cost += overhead.receive + overhead.copy.time(bytes);
            by_device = !lane.route.is_local();
        }
        if !receives.is_empty() {
            for &message in self.graph.sends(op) {
                let overhead = self.overhead(&self.lanes[self.graph.message(message).edge as usize]);
                cost += overhead.send + overhead.copy.time(bytes);
            }
        }
        if operands > 1 {
            cost + (operands - 1) * self.cluster.reduce.time(bytes)
        } else if self.graph.op(op).stores && !by_device {
            cost + self.cluster.copy.time(bytes)
        } else {
            cost
        }
    }

    /// Occupies a rank's processor, behind what it has to do already; says until when.
    fn work(&mut self, rank: u32, long: Time) -> Time {
        let rank = rank as usize;
        let long = ((u128::from(long) * u128::from(self.slowness[rank])) >> 16) as Time;
        self.worked[rank] += long;
        self.processor[rank] = self.now.max(self.processor[rank]) + long;
        self.processor[rank]
    }

    fn overhead(&self, lane: &Lane) -> &'a Overhead {
        if lane.route.is_local() { &self.cluster.local } else { &self.cluster.network }
    }

    /// Whether no message waits for its receiver.
    pub(super) fn is_all_eager(&self) -> bool {
        (0..self.graph.messages.len() as u32).all(|message| self.is_eager(message))
    }

    fn is_eager(&self, message: u32) -> bool {
        let lane = &self.lanes[self.graph.message(message).edge as usize];
        self.graph.op(self.graph.message(message).from).bytes <= self.overhead(lane).eager
    }

    fn chunks_of(&self, op: u32) -> u32 {
        chunks(self.graph.op(op).bytes, self.cluster.chunk)
    }

    /// Bytes of a chunk of an operation.
    fn size_of(&self, op: u32, chunk: u32) -> u64 {
        let long = u64::from(self.cluster.chunk);
        (self.graph.op(op).bytes - u64::from(chunk) * long).min(long)
    }
}
