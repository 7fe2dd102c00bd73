//! From times to rules.

use rccl::tuner::Rule;
use rccl_schedule::{Algorithm, Collective};

/// How many times as long a call must take at least before it is worth to go by another algorithm from one size to the next:
/// less is noise, and rules that change with it are of no use.
const SWITCH: f64 = 1.12;
/// How many times as long the usual algorithm may take, size for size, and is still preferred.
const HABIT: f64 = 1.03;

/// A size, as profiles count it, and what each algorithm takes for it.
pub struct Row {
    pub bytes: u64,
    /// What is taken unless another is clearly better.
    pub usual: Option<Algorithm>,
    pub times: Vec<(Algorithm, f64)>,
}

impl Row {
    /// How long it takes by this one.
    pub fn time(&self, algorithm: Algorithm) -> Option<f64> {
        self.times.iter().find(|(known, _)| *known == algorithm).map(|&(_, time)| time)
    }
}

/// Which algorithm is taken for each row: those by which all rows together take least, each as a factor over its best time,
/// where a switch from row to row counts as [`SWITCH`], and all but the usual one as [`HABIT`]. Found row by row, for each
/// algorithm that the row can end with (Viterbi 1967).
pub fn choices(rows: &[Row]) -> Vec<Algorithm> {
    /// The best way to end a row with an algorithm.
    struct End {
        algorithm: Algorithm,
        cost: f64,
        /// Its place in the row before.
        before: usize,
    }
    let mut ends: Vec<Vec<End>> = Vec::new();
    for row in rows {
        let least = row.times.iter().map(|&(_, time)| time).fold(f64::INFINITY, f64::min);
        let end = |&(algorithm, time): &(Algorithm, f64)| {
            let habit = if row.usual == Some(algorithm) { 0.0 } else { HABIT.ln() };
            let own = (time / least).ln() + habit;
            let from = |end: &End| end.cost + if end.algorithm == algorithm { 0.0 } else { SWITCH.ln() };
            let ways = ends.last().into_iter().flatten().map(from).enumerate();
            let (before, cost) = ways.min_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or((0, 0.0));
            End { algorithm, cost: cost + own, before }
        };
        ends.push(row.times.iter().map(end).collect());
    }
    let last = ends.last().into_iter().flatten().enumerate();
    let mut place =
        last.min_by(|one, other| one.1.cost.total_cmp(&other.1.cost)).map_or(0, |(place, _)| place);
    let mut chosen = Vec::with_capacity(ends.len());
    for row in ends.iter().rev() {
        let end = &row[place];
        chosen.push(end.algorithm);
        place = end.before;
    }
    chosen.reverse();
    chosen
}

/// The rules by which each row gets what was chosen for it. Where two rows differ, the geometric mean of their sizes parts
/// them.
pub fn rules(collective: Collective, rows: &[Row], chosen: &[Algorithm]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for (index, (row, &algorithm)) in rows.iter().zip(chosen).enumerate() {
        let up_to = match rows.get(index + 1) {
            Some(next) => ((row.bytes as f64) * (next.bytes as f64)).sqrt() as u64,
            None => u64::MAX,
        };
        match rules.last_mut().filter(|last| last.algorithm == algorithm) {
            Some(last) => last.up_to = up_to,
            None => rules.push(Rule { collective, algorithm, up_to }),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bytes: u64, ring: f64, tree: f64, direct: f64) -> Row {
        Row {
            bytes,
            usual: Some(Algorithm::Tree),
            times: vec![(Algorithm::Ring, ring), (Algorithm::Tree, tree), (Algorithm::Direct, direct)],
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
        assert_eq!(chosen, [Algorithm::Direct, Algorithm::Direct, Algorithm::Ring, Algorithm::Ring]);
        let rule = |algorithm, up_to| Rule { collective: Collective::AllReduce, algorithm, up_to };
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
        assert_eq!(choices(&rows), [Algorithm::Tree; 2]);
    }

    #[test]
    fn nothing_measured_is_no_rule() {
        assert!(choices(&[]).is_empty());
        assert!(rules(Collective::AllGather, &[], &[]).is_empty());
    }
}
