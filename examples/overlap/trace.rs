//! When each rank computed and when its calls were under way: recorded, gathered, and written as Chrome trace events.

use std::error::Error;
use std::fs::File;
use std::future::Future;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use rccl::{Communicator, Work};
use serde_json::json;

/// What a span of time went into.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// All layers, upwards.
    Forward,
    /// The gradient of the layer of this number.
    Backward(u64),
    /// New parameters.
    Update,
    /// The all_reduce of this number in its step.
    AllReduce(u64),
}

/// A span of time of one rank.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// What it went into.
    pub what: What,
    /// The step that it belongs to.
    pub step: u64,
    /// Nanoseconds since the ranks met.
    pub begin: u64,
    /// As `begin`, and not before it.
    pub end: u64,
}

/// Records the spans of this rank.
pub struct Tracer {
    met: Instant,
    step: u64,
    spans: Vec<Span>,
}

impl Tracer {
    /// Every rank calls it; their clocks start as they leave a barrier together.
    pub fn new(comm: &Communicator) -> rccl::Result<Tracer> {
        comm.barrier()?;
        Ok(Tracer { met: Instant::now(), step: 0, spans: Vec::new() })
    }

    /// What follows belongs to the next step.
    pub fn next_step(&mut self) {
        self.step += 1;
    }

    /// Computes, and records it.
    pub fn compute<R>(&mut self, what: What, compute: impl FnOnce() -> R) -> R {
        let begin = Instant::now();
        let result = compute();
        self.record(what, begin, Instant::now());
        result
    }

    /// Waits for the calls of a step, which are in their order, and records them.
    pub fn wait(&mut self, calls: Vec<Watched>) -> rccl::Result<()> {
        let mut free = None;
        for (number, call) in (0..).zip(calls) {
            let (submitted, end) = call.wait()?;
            // Calls on one communicator run one after the other.
            let begin = free.map_or(submitted, |free| submitted.max(free));
            self.record(What::AllReduce(number), begin, end);
            free = Some(end);
        }
        Ok(())
    }

    fn record(&mut self, what: What, begin: Instant, end: Instant) {
        let since = |moment: Instant| moment.saturating_duration_since(self.met).as_nanos() as u64;
        let (begin, end) = (since(begin), since(end));
        self.spans.push(Span { what, step: self.step, begin, end: end.max(begin) });
    }

    /// The spans of every rank on rank 0, those of no rank on the others.
    pub fn gather(&self, comm: &Communicator) -> rccl::Result<Vec<Vec<Span>>> {
        let mine: Vec<u64> = self.spans.iter().flat_map(Span::words).collect();
        let mut counts = vec![0_u64; comm.size() as usize];
        comm.gather_into(&[mine.len() as u64], &mut counts, 0)?;
        let counts: Vec<usize> = counts.into_iter().map(|count| count as usize).collect();
        let mut all = vec![0; if comm.rank() == 0 { counts.iter().sum() } else { 0 }];
        comm.gather_v_into(&mine, &mut all, &counts, 0)?;
        let mut rest = &all[..];
        let ranks = counts.iter().filter(|_| comm.rank() == 0).map(|&count| {
            let (of_rank, others) = rest.split_at(count);
            rest = others;
            of_rank.as_chunks().0.iter().map(Span::from_words).collect()
        });
        Ok(ranks.collect())
    }
}

/// A call whose end is noted when it comes, also while its rank computes.
pub struct Watched {
    work: Work<()>,
    submitted: Instant,
    ended: Arc<End>,
    /// The result, if the call had ended at once.
    result: Option<rccl::Result<()>>,
}

#[derive(Default)]
struct End(OnceLock<Instant>);

/// A [`Work`] is a future, and wakes whoever polled it when it ends.
impl Wake for End {
    fn wake(self: Arc<Self>) {
        self.0.get_or_init(Instant::now);
    }
}

impl Watched {
    /// Watches a call that was just made, at `submitted`.
    pub fn new(submitted: Instant, mut work: Work<()>) -> Watched {
        let ended = Arc::new(End::default());
        let waker = Waker::from(ended.clone());
        let result = match Pin::new(&mut work).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => {
                waker.wake();
                Some(result)
            }
            Poll::Pending => None,
        };
        Watched { work, submitted, ended, result }
    }

    /// When it was submitted and when it ended.
    fn wait(self) -> rccl::Result<(Instant, Instant)> {
        self.result.unwrap_or_else(|| self.work.wait())?;
        // Who waits may be here a moment before the waker has been called.
        Ok((self.submitted, *self.ended.0.get_or_init(Instant::now)))
    }
}

impl Span {
    /// Nanoseconds.
    pub fn length(&self) -> u64 {
        self.end - self.begin
    }

    /// Whether the rank computed, or a call was under way.
    pub fn is_computing(&self) -> bool {
        !matches!(self.what, What::AllReduce(_))
    }

    fn words(&self) -> [u64; 5] {
        let (kind, number) = match self.what {
            What::Forward => (0, 0),
            What::Backward(layer) => (1, layer),
            What::Update => (2, 0),
            What::AllReduce(number) => (3, number),
        };
        [kind, number, self.step, self.begin, self.end]
    }

    fn from_words(&[kind, number, step, begin, end]: &[u64; 5]) -> Span {
        let what = match kind {
            0 => What::Forward,
            1 => What::Backward(number),
            2 => What::Update,
            _ => What::AllReduce(number),
        };
        Span { what, step, begin, end }
    }
}

/// Writes the spans of all ranks for chrome://tracing or <https://ui.perfetto.dev>: a process for each rank, with a
/// thread that computes and one for the calls.
///
/// # Errors
/// When the file cannot be written.
pub fn write(file: &Path, ranks: &[Vec<Span>]) -> Result<(), Box<dyn Error>> {
    let mut events = Vec::new();
    for (rank, spans) in ranks.iter().enumerate() {
        let name = |what: &str, thread: u32, name: &str| json!({"ph": "M", "name": what, "pid": rank, "tid": thread, "args": {"name": name}});
        events.push(name("process_name", 0, &format!("rank {rank}")));
        events.push(name("thread_name", 0, "compute"));
        events.push(name("thread_name", 1, "communication"));
        events.extend(spans.iter().map(|span| {
            let name = match span.what {
                What::Forward => "forward".into(),
                What::Backward(layer) => format!("backward, layer {layer}"),
                What::Update => "update".into(),
                What::AllReduce(number) => format!("all_reduce {number}"),
            };
            let micros = |nanos: u64| nanos as f64 / 1e3;
            json!({
                "ph": "X", "name": name, "pid": rank, "tid": u32::from(!span.is_computing()),
                "ts": micros(span.begin), "dur": micros(span.length()), "args": {"step": span.step},
            })
        }));
    }
    let mut writer = BufWriter::new(File::create(file)?);
    serde_json::to_writer(&mut writer, &json!({"traceEvents": events}))?;
    writer.flush()?;
    Ok(())
}
