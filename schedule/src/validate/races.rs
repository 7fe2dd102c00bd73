//! Are conflicting accesses of one element ordered?

use super::values::{Element, Event, event, lies_there};
use super::violation::{Fault, Violation};

/// All accesses by one operation of an element in its rank's memory: they begin after all of `starts` and are over with
/// the last of their ends. What happens in between is ordered by the operation itself: it reads, writes, and has its
/// receivers read.
struct Access {
    memory: u32,
    op: u32,
    writes: bool,
    starts: [u32; 2],
    /// Where its ends lie in [`Races::ends`].
    ends: std::ops::Range<u32>,
}

/// An event of one access that has to come before the start of another.
struct Question {
    before: u32,
    starts: [u32; 2],
    /// The operations that race if it does not.
    ops: [u32; 2],
    memory: u32,
}

/// Tables that are kept from element to element.
#[derive(Default)]
pub(super) struct Races {
    accesses: Vec<Access>,
    ends: Vec<u32>,
    questions: Vec<Question>,
    reached: Vec<[u64; WORDS]>,
}

/// 64 times as many questions are answered by one walk over the events.
const WORDS: usize = 8;

impl Races {
    pub(super) fn check(&mut self, element: &Element<'_>) -> Result<(), Violation> {
        self.accesses.clear();
        self.ends.clear();
        self.questions.clear();
        for op in 0..element.ops.len() as u32 {
            self.list(element, op);
        }
        self.accesses.sort_unstable_by_key(|access| access.memory);
        let accesses = std::mem::take(&mut self.accesses);
        for same in accesses.chunk_by(|a, b| a.memory == b.memory) {
            if same.len() > 1 && same.iter().any(|access| access.writes) {
                for (i, a) in same.iter().enumerate() {
                    for b in &same[i + 1..] {
                        if a.op != b.op && (a.writes || b.writes) {
                            self.ask(element, a, b)?;
                        }
                    }
                }
            }
        }
        self.accesses = accesses;
        self.answer(element)
    }

    /// The accesses of an operation; the table is in the documentation of the [module above](super).
    fn list(&mut self, element: &Element<'_>, number: u32) {
        let op = element.op(number);
        let there = lies_there(op);
        let [granted, read, value, stored, ended] =
            [Event::Granted, Event::Read, Event::Value, Event::Stored, Event::Ended]
                .map(|e| event(number, e));
        let source = op.reduce_with.map(|buffer| element.memory(number, buffer));
        let target =
            op.copy_to.filter(|_| !element.is_no_copy(number)).map(|buffer| element.memory(number, buffer));
        let sends = !op.send.is_empty();

        if let Some(memory) = source {
            let first = self.ends.len() as u32;
            if Some(memory) == target {
                // Over with the write, or with the reads for receivers after it, which come below.
            } else if !there || target.is_some() {
                self.ends.push(read);
            }
            if there && sends {
                self.ends_of_sends(element, number, value);
            }
            if Some(memory) != target || self.ends.len() as u32 > first {
                let ends = first..self.ends.len() as u32;
                self.accesses.push(Access { memory, op: number, writes: false, starts: [granted; 2], ends });
            }
        }
        if let Some(memory) = target {
            let only_receives = op.reduce_with.is_none() && op.recv.len() == 1;
            let starts = match element.senders(number).next() {
                Some(sender) if only_receives => {
                    let has_it = if lies_there(element.op(sender)) { Event::Granted } else { Event::Read };
                    [granted, event(sender, has_it)]
                }
                _ if there || source == target => [granted; 2],
                _ => [read; 2],
            };
            let first = self.ends.len() as u32;
            match (sends, there) {
                (false, _) => self.ends.push(stored),
                (true, false) => self.ends_of_sends(element, number, value),
                // The value is published before it is stored: both may be what is over last.
                (true, true) if element.buffers => self.ends.push(ended),
                (true, true) => {
                    self.ends.push(stored);
                    self.ends_of_sends(element, number, value);
                }
            }
            let ends = first..self.ends.len() as u32;
            self.accesses.push(Access { memory, op: number, writes: true, starts, ends });
        }
    }

    /// Reads for receivers are over when these have read or, if sends are snapshots, with the copy into the slots.
    fn ends_of_sends(&mut self, element: &Element<'_>, number: u32, value: u32) {
        if element.buffers {
            self.ends.push(value);
        } else {
            self.ends.extend(element.receivers(number).map(|receiver| event(receiver, Event::Read)));
        }
    }

    /// Notes what has to be shown for two accesses to be ordered, if the one way in which they can be.
    fn ask(&mut self, element: &Element<'_>, a: &Access, b: &Access) -> Result<(), Violation> {
        let place = |event: u32| element.place[event as usize];
        let may_precede = |a: &Access, b: &Access| {
            let start = b.starts.map(place).into_iter().max();
            self.ends[a.ends.start as usize..a.ends.end as usize].iter().all(|&end| Some(place(end)) <= start)
        };
        let (a, b) = if may_precede(a, b) {
            (a, b)
        } else if may_precede(b, a) {
            (b, a)
        } else {
            return Err(race(element, [a.op, b.op], a.memory));
        };
        for i in a.ends.clone() {
            let before = self.ends[i as usize];
            if !b.starts.contains(&before) && !comes_nearby(element, before, b) {
                self.questions.push(Question {
                    before,
                    starts: b.starts,
                    ops: [a.op, b.op],
                    memory: a.memory,
                });
            }
        }
        Ok(())
    }

    /// Answers the questions that are left, by walking over all events in order with a set of questions at each.
    fn answer(&mut self, element: &Element<'_>) -> Result<(), Violation> {
        self.questions.sort_unstable_by_key(|question| question.before);
        for questions in self.questions.chunks(64 * WORDS) {
            let place = |event: u32| element.place[event as usize] as usize;
            let first = questions.iter().map(|question| place(question.before)).min().unwrap_or(0);
            let last = questions.iter().flat_map(|question| question.starts.map(place)).max().unwrap_or(0);
            self.reached.clear();
            self.reached.resize(element.place.len(), [0; WORDS]);
            for (bit, question) in questions.iter().enumerate() {
                self.reached[question.before as usize][bit / 64] |= 1 << (bit % 64);
            }
            for &of in &element.order[first..last] {
                let here = self.reached[of as usize];
                if here != [0; WORDS] {
                    for &next in element.next(of) {
                        for (there, here) in self.reached[next as usize].iter_mut().zip(here) {
                            *there |= here;
                        }
                    }
                }
            }
            for (bit, question) in questions.iter().enumerate() {
                let reached = |start: u32| self.reached[start as usize][bit / 64] >> (bit % 64) & 1 == 1;
                if !question.starts.iter().any(|&start| reached(start)) {
                    return Err(race(element, question.ops, question.memory));
                }
            }
        }
        Ok(())
    }
}

/// Whether `before` leads to a start of `access` over events of that access's rank only, which settles most questions.
fn comes_nearby(element: &Element<'_>, before: u32, access: &Access) -> bool {
    let rank = element.rank(access.op);
    let latest = access.starts.map(|start| element.place[start as usize]).into_iter().max();
    let mut rest = vec![before];
    let mut steps = 0;
    while let Some(of) = rest.pop() {
        if access.starts.contains(&of) {
            return true;
        }
        steps += 1;
        if steps > 64 {
            return false;
        }
        rest.extend(
            element.next(of).iter().copied().filter(|&next| {
                element.rank(next / 5) == rank && Some(element.place[next as usize]) <= latest
            }),
        );
    }
    false
}

fn race(element: &Element<'_>, ops: [u32; 2], memory: u32) -> Violation {
    let [a, b] = ops.map(|number| element.ops[number as usize]);
    let (earlier, later) = (a.min(b), a.max(b));
    let buffer = element.buffer(ops[0], memory);
    element.wiring.violation(later, Fault::Race { other: element.wiring.local(earlier), buffer })
}
