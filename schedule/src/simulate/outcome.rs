//! What a simulation found.

use super::Call;
use super::cluster::Time;
use super::links::{Class, Links};
use super::run::Run;
use crate::collective::Collective;

/// How a result came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum How {
    /// Every chunk was simulated.
    Simulated,
    /// From two shorter calls, the longer of so many bytes.
    Extrapolated {
        /// Of the longer one.
        from: u64,
    },
    /// By a formula.
    Formula,
}

/// How much the links of a class were used.
#[derive(Clone, Debug, PartialEq)]
pub struct Use {
    /// Which.
    pub class: Class,
    /// How many there are.
    pub links: u32,
    /// Share of the time that a link of them was busy, on average.
    pub mean: f64,
    /// Likewise the one that was busy most.
    pub most: f64,
}

/// What a call takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The call.
    pub call: Call,
    /// Until the last rank has the last of its result, all ranks having begun at 0.
    pub time: Time,
    /// How this was found.
    pub how: How,
    /// By class, those without links left out; none of a formula.
    pub uses: Vec<Use>,
    /// The link that was busy most of the time and for what share of it; `None` where nothing was sent,
    /// and of a formula.
    pub slowest: Option<(String, f64)>,
    /// Share of the time that a rank's processor was busy, on average and at most; `None` of a formula.
    pub processors: Option<(f64, f64)>,
    /// Chunks that were sent.
    pub chunks: u64,
    /// Events of the simulation.
    pub events: u64,
    /// How long each link was busy.
    busy: Vec<Time>,
    /// How long each rank's processor was busy.
    worked: Vec<Time>,
}

impl Outcome {
    pub(super) fn of(call: &Call, links: &Links<'_>, time: Time, run: &Run<'_>) -> Outcome {
        let (busy, worked) = (run.busy.clone(), run.worked.clone());
        let outcome = Outcome::new(call, links, time, How::Simulated, busy, worked);
        Outcome { chunks: run.chunks, events: run.events, ..outcome }
    }

    /// From a call and one of about half its bytes, on a straight line.
    pub(super) fn extrapolated(
        call: &Call,
        links: &Links<'_>,
        shorter: &Outcome,
        longer: &Outcome,
    ) -> Outcome {
        let step = (longer.call.bytes - shorter.call.bytes).max(1) as f64;
        let times = (call.bytes - longer.call.bytes) as f64 / step;
        let line =
            |short: Time, long: Time| (long as f64 + (long as f64 - short as f64) * times).max(0.0) as Time;
        let lines = |short: &[Time], long: &[Time]| -> Vec<Time> {
            short.iter().zip(long).map(|(&short, &long)| line(short, long)).collect()
        };
        let busy = lines(&shorter.busy, &longer.busy);
        let worked = lines(&shorter.worked, &longer.worked);
        let how = How::Extrapolated { from: longer.call.bytes };
        let outcome = Outcome::new(call, links, line(shorter.time, longer.time), how, busy, worked);
        let (chunks, events) = (shorter.chunks + longer.chunks, shorter.events + longer.events);
        Outcome { chunks, events, ..outcome }
    }

    /// Without uses.
    pub(super) fn by_formula(call: &Call, time: Time) -> Outcome {
        Outcome {
            call: *call,
            time,
            how: How::Formula,
            uses: Vec::new(),
            slowest: None,
            processors: None,
            chunks: 0,
            events: 0,
            busy: Vec::new(),
            worked: Vec::new(),
        }
    }

    fn new(
        call: &Call,
        links: &Links<'_>,
        time: Time,
        how: How,
        busy: Vec<Time>,
        worked: Vec<Time>,
    ) -> Outcome {
        let share = |busy: Time| if time == 0 { 0.0 } else { busy as f64 / time as f64 };
        let mut uses: Vec<Use> = Vec::new();
        for (link, &busy) in (0..).zip(&busy) {
            let (class, _) = links.class(link);
            let position = uses.iter().position(|known| known.class == class).unwrap_or_else(|| {
                uses.push(Use { class, links: 0, mean: 0.0, most: 0.0 });
                uses.len() - 1
            });
            let known = &mut uses[position];
            known.links += 1;
            known.mean += share(busy);
            known.most = known.most.max(share(busy));
        }
        uses.iter_mut().for_each(|known| known.mean /= f64::from(known.links));
        // The first of those that are busy alike.
        let slowest =
            (0..).zip(&busy).filter(|(_, busy)| **busy > 0).min_by_key(|(_, busy)| std::cmp::Reverse(**busy));
        let slowest = slowest.map(|(link, &busy)| (links.name(link), share(busy)));
        let mean = worked.iter().map(|&worked| share(worked)).sum::<f64>() / worked.len().max(1) as f64;
        let most = worked.iter().map(|&worked| share(worked)).fold(0.0, f64::max);
        let processors = Some((mean, most));
        Outcome { call: *call, time, how, uses, slowest, processors, chunks: 0, events: 0, busy, worked }
    }

    /// GB/s, with 10^9 bytes a GB, as nccl-tests define it: [`bus_factor`] times the bytes of the call over its time.
    pub fn bus_bandwidth(&self) -> f64 {
        let factor = bus_factor(&self.call.collective, self.call.ranks);
        if self.time == 0 { 0.0 } else { self.call.bytes as f64 * factor * 1e3 / self.time as f64 }
    }
}

/// nccl-tests' factor between bytes over time and bus bandwidth, which makes collectives comparable with what links carry.
pub fn bus_factor(collective: &Collective, ranks: u32) -> f64 {
    let others = f64::from(ranks - 1) / f64::from(ranks);
    match collective {
        Collective::AllReduce => 2.0 * others,
        Collective::Reduce { .. } | Collective::Broadcast { .. } => 1.0,
        _ => others,
    }
}
