//! From times to rules.

use rccl::tuner::Rule;
use rccl_schedule::{Algorithm, Collective};

/// What an algorithm may take more than the best before it is not kept: less is noise, and rules that change with it are no
/// use to anybody.
const ALIKE: f64 = 1.05;

/// A size, as profiles count it, and what each algorithm takes for it.
pub struct Row {
    pub bytes: u64,
    pub times: Vec<(Algorithm, f64)>,
}

impl Row {
    fn best(&self) -> Option<(Algorithm, f64)> {
        self.times.iter().copied().min_by(|one, other| one.1.total_cmp(&other.1))
    }

    /// How long it takes by this one.
    pub fn time(&self, algorithm: Algorithm) -> Option<f64> {
        self.times.iter().find(|(known, _)| *known == algorithm).map(|&(_, time)| time)
    }
}

/// Which algorithm is taken for each row: the best; or one that is about as good, if `usual` says that it would be taken
/// anyway, or if it is taken for the size before.
pub fn choices(rows: &[Row], usual: impl Fn(u64) -> Option<Algorithm>) -> Vec<Algorithm> {
    let mut chosen: Vec<Algorithm> = Vec::new();
    for row in rows {
        let Some((best, least)) = row.best() else { continue };
        let alike = |algorithm: &Algorithm| row.time(*algorithm).is_some_and(|time| time <= least * ALIKE);
        let usual = usual(row.bytes).filter(alike);
        chosen.push(usual.or(chosen.last().copied().filter(alike)).unwrap_or(best));
    }
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
        let chosen = choices(&rows, |_| Some(Algorithm::Tree));
        assert_eq!(chosen, [Algorithm::Tree, Algorithm::Direct, Algorithm::Direct, Algorithm::Ring]);
        let rule = |algorithm, up_to| Rule { collective: Collective::AllReduce, algorithm, up_to };
        assert_eq!(
            rules(Collective::AllReduce, &rows, &chosen),
            [rule(Algorithm::Tree, 32), rule(Algorithm::Direct, 8 << 10), rule(Algorithm::Ring, u64::MAX)]
        );
    }

    #[test]
    fn nothing_measured_is_no_rule() {
        assert!(choices(&[], |_| None).is_empty());
        assert!(rules(Collective::AllGather, &[], &[]).is_empty());
    }
}
