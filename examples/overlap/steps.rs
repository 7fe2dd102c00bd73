//! What the steps of a trace took.

use std::fmt;

use crate::trace::Span;

/// Steps of one kind: medians over all of them and all ranks, in milliseconds.
pub struct Steps {
    /// Parts that their gradients were added up in.
    pub buckets: usize,
    /// The step of a usual length.
    pub typical: u64,
    /// A whole step.
    pub length: f64,
    /// Calls under way.
    pub communication: f64,
    /// Of these, while the rank did not compute.
    pub waited: f64,
}

impl Steps {
    /// Of those steps in a trace of all ranks that `are_meant`; there is at least one.
    pub fn of(ranks: &[Vec<Span>], buckets: usize, are_meant: impl Fn(u64) -> bool) -> Steps {
        let (mut lengths, mut communication, mut waited) = (Vec::new(), Vec::new(), Vec::new());
        for spans in ranks {
            for step in spans.chunk_by(|a, b| a.step == b.step).filter(|step| are_meant(step[0].step)) {
                let (begin, end) = bounds(step);
                let (under_way, hidden) = calls(step);
                lengths.push((end - begin, step[0].step));
                communication.push(under_way);
                waited.push(under_way - hidden);
            }
        }
        let (length, typical) = median(lengths);
        let millis = |nanos: u64| nanos as f64 / 1e6;
        let (communication, waited) = (millis(median(communication)), millis(median(waited)));
        Steps { buckets, typical, length: millis(length), communication, waited }
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Steps { buckets, length, communication, waited, .. } = self;
        write!(f, "{buckets} bucket(s): {length:.3} ms a step, {communication:.3} ms of communication, ")?;
        write!(f, "{waited:.3} ms of it waited for")
    }
}

/// When the spans begin and end.
pub fn bounds(spans: &[Span]) -> (u64, u64) {
    let begin = spans.iter().map(|span| span.begin).min().unwrap_or_default();
    (begin, spans.iter().map(|span| span.end).max().unwrap_or_default())
}

/// Of the spans of one rank: nanoseconds of calls under way, and how many of these passed while the rank computed.
fn calls(spans: &[Span]) -> (u64, u64) {
    let (computing, calls): (Vec<&Span>, Vec<&Span>) = spans.iter().partition(|span| span.is_computing());
    let both = |a: &Span, b: &Span| a.end.min(b.end).saturating_sub(a.begin.max(b.begin));
    let under_way = calls.iter().map(|call| call.length()).sum();
    let hidden = calls.iter().flat_map(|call| computing.iter().map(|span| both(call, span))).sum();
    (under_way, hidden)
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::What;

    #[test]
    fn calls_are_hidden_where_the_rank_computes() {
        let span = |what, begin, end| Span { what, step: 1, begin, end };
        let step = [
            span(What::Forward, 1_000_000, 2_000_000),
            span(What::Backward(1), 2_000_000, 4_000_000),
            span(What::Backward(0), 5_000_000, 8_000_000),
            span(What::AllReduce(0), 4_000_000, 7_000_000),
            span(What::AllReduce(1), 7_000_000, 9_000_000),
            span(What::Update, 9_000_000, 9_500_000),
        ];
        let steps = Steps::of(&[step.to_vec()], 2, |step| step == 1);
        assert_eq!((steps.length, steps.communication, steps.waited), (8.5, 5.0, 2.0));
        assert_eq!(steps.typical, 1);
    }
}
