//! From times to rules.

use rccl::tuner::{Choice, ChunkSize, Rule};
use rccl_schedule::Collective;

/// How many times as long a call must take at least before it is worth to go by another algorithm from one size to the next:
/// less is noise, and rules that change with it are of no use.
const SWITCH: f64 = 1.12;
/// How many times as long the usual algorithm may take, size for size, and is still preferred.
const HABIT: f64 = 1.03;

/// How many times as long chunks of the usual size may take and are still preferred to others: noise shall not choose those.
const CUT: f64 = 1.05;
/// Sizes of chunks that are tried, in bytes, besides the engine's own.
const CHUNKS: [u64; 3] = [4 << 10, 8 << 10, 16 << 10];

/// Into so many chunks at most a call's data, or a block, is cut to try that.
const MOST: u64 = 256;

/// A size, as profiles count it, and what each choice takes for it.
pub struct Row {
    pub bytes: u64,
    /// What is taken unless another is clearly better.
    pub usual: Option<Choice>,
    pub times: Vec<(Choice, f64)>,
}

impl Row {
    /// How long it takes by this one.
    pub fn time(&self, choice: Choice) -> Option<f64> {
        self.times.iter().find(|(known, _)| *known == choice).map(|&(_, time)| time)
    }

    /// What takes least.
    pub fn best(&self) -> Option<(Choice, f64)> {
        self.times.iter().copied().min_by(|one, other| one.1.total_cmp(&other.1))
    }

    /// Adds what was measured later, in relation to the best so far, which was measured again with it: the machine may be
    /// slower or faster meanwhile.
    pub fn add(&mut self, best: (Choice, f64), later: Vec<(Choice, f64)>) {
        let again = later.iter().find(|(choice, _)| *choice == best.0);
        let factor = again.map_or(1.0, |(_, time)| best.1 / time);
        let new = later.into_iter().filter(|(choice, _)| *choice != best.0);
        self.times.extend(new.map(|(choice, time)| (choice, time * factor)));
    }

    /// The same algorithms in chunks of other sizes, as far as these may be of use: of the best so many.
    pub fn in_chunks(&self, best: usize) -> impl Iterator<Item = Choice> {
        let mut times: Vec<_> = self.times.iter().filter(|(choice, _)| choice.chunk.is_none()).collect();
        times.sort_by(|one, other| one.1.total_cmp(&other.1));
        let algorithms: Vec<_> = times.into_iter().take(best).map(|(choice, _)| choice.algorithm).collect();
        // A block that is a single chunk is the same in all of them, and in a long one the way of the first hardly counts.
        let chunks = CHUNKS
            .into_iter()
            .filter(move |&bytes| bytes < self.bytes && self.bytes <= bytes * MOST)
            .filter_map(ChunkSize::new);
        chunks.flat_map(move |chunk| {
            algorithms.clone().into_iter().map(move |algorithm| Choice { algorithm, chunk: Some(chunk) })
        })
    }
}

/// What is taken for each row: those by which all rows together take least, each as a factor over its best time, where a
/// switch from row to row counts as [`SWITCH`], all but the usual one as [`HABIT`], and chunks of another size as [`CUT`]. Found
/// row by row, for each choice that the row can end with (Viterbi 1967).
pub fn choices(rows: &[Row]) -> Vec<Choice> {
    /// The best way to end a row with a choice.
    struct End {
        choice: Choice,
        cost: f64,
        /// Its place in the row before.
        before: usize,
    }
    let mut ends: Vec<Vec<End>> = Vec::new();
    for row in rows {
        let least = row.best().map_or(f64::INFINITY, |(_, time)| time);
        let end = |&(choice, time): &(Choice, f64)| {
            let habit = if row.usual == Some(choice) { 0.0 } else { HABIT.ln() };
            let cut = if choice.chunk.is_some() { CUT.ln() } else { 0.0 };
            let own = (time / least).ln() + habit + cut;
            let from = |end: &End| end.cost + if end.choice == choice { 0.0 } else { SWITCH.ln() };
            let ways = ends.last().into_iter().flatten().map(from).enumerate();
            let (before, cost) = ways.min_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or((0, 0.0));
            End { choice, cost: cost + own, before }
        };
        ends.push(row.times.iter().map(end).collect());
    }
    let last = ends.last().into_iter().flatten().enumerate();
    let mut place =
        last.min_by(|one, other| one.1.cost.total_cmp(&other.1.cost)).map_or(0, |(place, _)| place);
    let mut chosen = Vec::with_capacity(ends.len());
    for row in ends.iter().rev() {
        let end = &row[place];
        chosen.push(end.choice);
        place = end.before;
    }
    chosen.reverse();
    chosen
}

/// The rules by which each row gets what was chosen for it. Where two rows differ, the geometric mean of their sizes parts
/// them.
pub fn rules(collective: Collective, rows: &[Row], chosen: &[Choice]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for (index, (row, &choice)) in rows.iter().zip(chosen).enumerate() {
        let up_to = match rows.get(index + 1) {
            Some(next) => ((row.bytes as f64) * (next.bytes as f64)).sqrt() as u64,
            None => u64::MAX,
        };
        match rules.last_mut().filter(|last| last.choice == choice) {
            Some(last) => last.up_to = up_to,
            None => rules.push(Rule { collective, choice, up_to }),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use rccl_schedule::Algorithm;

    fn row(bytes: u64, ring: f64, tree: f64, direct: f64) -> Row {
        Row {
            bytes,
            usual: Some(Algorithm::Tree.into()),
            times: vec![
                (Algorithm::Ring.into(), ring),
                (Algorithm::Tree.into(), tree),
                (Algorithm::Direct.into(), direct),
            ],
        }
    }

    #[test]
    fn the_best_is_chosen_but_where_it_hardly_is() {
        let rows = [
            row(8, 10.0, 5.0, 4.9),
            row(128, 10.0, 5.0, 4.0),
            row(2048, 4.0, 8.0, 4.1),
            row(32 << 10, 3.0, 9.0, 9.0),
        ];
        let chosen = choices(&rows);
        let expected = [Algorithm::Direct, Algorithm::Direct, Algorithm::Ring, Algorithm::Ring];
        assert_eq!(chosen, expected.map(Choice::from));
        let collective = Collective::AllReduce;
        let rule = |algorithm: Algorithm, up_to| Rule { collective, choice: algorithm.into(), up_to };
        assert_eq!(
            rules(Collective::AllReduce, &rows, &chosen),
            [rule(Algorithm::Direct, 512), rule(Algorithm::Ring, u64::MAX)]
        );
    }

    #[test]
    fn a_single_size_does_not_change_the_rules_for_little() {
        let of = |middle| {
            let rows = [row(8, 9.0, 5.0, 9.0), row(16, 9.0, 5.0, middle), row(32, 9.0, 5.0, 9.0)];
            rules(Collective::AllReduce, &rows, &choices(&rows)).len()
        };
        assert_eq!([4.9, 4.5, 2.0].map(of), [1, 1, 3]);
    }

    #[test]
    fn what_is_usual_stays_where_nothing_is_clearly_better() {
        let rows = [row(8, 9.0, 5.1, 5.0), row(16, 9.0, 5.1, 5.0)];
        assert_eq!(choices(&rows), [Algorithm::Tree.into(); 2]);
    }

    #[test]
    fn the_best_are_tried_in_chunks_that_cut_them() {
        let words = |row: Row, best| row.in_chunks(best).map(|choice| choice.to_string()).collect::<Vec<_>>();
        assert!(words(row(4 << 10, 9.0, 5.0, 4.0), 1).is_empty());
        assert_eq!(
            words(row(10 << 10, 9.0, 5.0, 4.0), 2),
            [
                "direct in chunks of 4K",
                "tree in chunks of 4K",
                "direct in chunks of 8K",
                "tree in chunks of 8K"
            ]
        );
        assert_eq!(words(row(4 << 20, 3.0, 5.0, 4.0), 1), ["ring in chunks of 16K"]);
    }

    #[test]
    fn what_is_measured_later_is_seen_in_relation_to_the_best() {
        let mut row = row(1 << 20, 3.0, 5.0, 4.0);
        let ring = |chunk| Choice { algorithm: Algorithm::Ring, chunk: ChunkSize::new(chunk) };
        // The machine takes twice as long now.
        row.add((ring(0), 3.0), vec![(ring(4096), 8.0), (ring(0), 6.0)]);
        assert_eq!((row.times.len(), row.time(ring(4096)), row.time(ring(0))), (4, Some(4.0), Some(3.0)));
    }

    #[test]
    fn nothing_measured_is_no_rule() {
        assert!(choices(&[]).is_empty());
        assert!(rules(Collective::AllGather, &[], &[]).is_empty());
    }
}
