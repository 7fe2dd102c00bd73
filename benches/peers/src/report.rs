//! What the rounds add up to: a table for the eye, JSON and CSV for programs, and the plot.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::library::{Collective, Library, Work, word};
use crate::machine::Machine;
use crate::plot;
use crate::row::Row;

/// The rows of all rounds, by size and library, in the order of the rounds.
#[derive(Default)]
pub struct Comparison {
    by_size: BTreeMap<u64, BTreeMap<Library, Vec<Row>>>,
}

impl Comparison {
    /// Takes over the rows of one turn that compare: [`Collective::in_place`] or not. Where a library
    /// wrote several rows of one size (several algorithms, say), the first counts.
    pub fn add(&mut self, library: Library, collective: Collective, rows: &[Row]) {
        let mut last_size = None;
        for row in rows.iter().filter(|row| row.in_place == collective.in_place()) {
            if last_size != Some(row.bytes) {
                self.by_size.entry(row.bytes).or_default().entry(library).or_default().push(row.clone());
            }
            last_size = Some(row.bytes);
        }
    }

    /// Wrong elements in all rows.
    pub fn wrong(&self) -> u64 {
        self.by_size.values().flat_map(BTreeMap::values).flatten().map(|row| row.wrong).sum()
    }
}

/// Least, middle and greatest of one figure per round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
        Some(Spread { min, median, max })
    }
}

/// What one library did at one size.
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    /// Of the rounds' medians, microseconds.
    pub us: Spread,
    /// Of the rounds' 99th percentiles, microseconds.
    pub p99_us: Spread,
    /// The median of each round.
    pub rounds_us: Vec<f64>,
    pub iterations: Option<u64>,
    pub wrong: u64,
}

/// One size.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub bytes: u64,
    pub times: BTreeMap<Library, Times>,
    pub best_peer: Option<Library>,
    /// How many times as fast as the best peer rccl is: round by round, the peer's time over rccl's.
    pub faster_than_best_peer: Option<Spread>,
    /// How many times the limit probe's time rccl takes, round by round.
    pub times_the_limit: Option<Spread>,
}

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub work: Work,
    pub versions: BTreeMap<&'static str, String>,
    pub rounds: u32,
    /// What was left out, and why.
    pub notes: Vec<String>,
    pub lines: Vec<Line>,
}

impl Report {
    pub fn new(
        machine: Machine,
        work: Work,
        versions: BTreeMap<&'static str, String>,
        rounds: u32,
        notes: Vec<String>,
        comparison: &Comparison,
    ) -> Self {
        let lines = comparison.by_size.iter().map(|(&bytes, rows)| Line::new(bytes, rows)).collect();
        Report { machine, work, versions, rounds, notes, lines }
    }

    /// The libraries that have a figure anywhere.
    pub fn libraries(&self) -> Vec<Library> {
        let all = [Library::Rccl, Library::Openmpi, Library::Mpich, Library::Gloo, Library::Limit];
        all.into_iter()
            .filter(|library| self.lines.iter().any(|line| line.times.contains_key(library)))
            .collect()
    }

    /// What was measured, in a line.
    pub fn title(&self) -> String {
        let Work { collective, ranks, transport, memory, closing_barrier, .. } = &self.work;
        let (collective, transport, memory) = (word(collective), word(transport), word(memory));
        let and = if *closing_barrier { " and a barrier" } else { "" };
        format!("{collective} of f32{and}, {ranks} ranks, {transport}, rccl with {memory} memory")
    }

    pub fn table(&self) -> String {
        let mut text = format!("\n{}\n", self.title());
        let Machine { cpu, cores, kernel, date, load, .. } = &self.machine;
        let _ = writeln!(text, "{cpu}, {cores} cores, {kernel}, {date}, load {load}");
        let _ = writeln!(text, "us a call, slowest rank: median over {} rounds (least-most)\n", self.rounds);
        let _ = write!(text, "{:>9}", "bytes");
        for library in self.libraries() {
            let _ = write!(text, "  {:>26}", library.name());
        }
        let _ = writeln!(text, "  {:>10}  {:>22}  {:>20}", "best peer", "peer / rccl", "rccl / limit");
        for line in &self.lines {
            let _ = write!(text, "{:>9}", size(line.bytes));
            for library in self.libraries() {
                let cell = line.times.get(&library).map_or("-".to_owned(), |times| {
                    let wrong =
                        if times.wrong > 0 { format!(" {} WRONG", times.wrong) } else { String::new() };
                    format!("{} ({}-{}){wrong}", us(times.us.median), us(times.us.min), us(times.us.max))
                });
                let _ = write!(text, "  {cell:>26}");
            }
            let ratio = |spread: Option<Spread>| {
                spread.map_or("-".to_owned(), |s| format!("{:.2} ({:.2}-{:.2})", s.median, s.min, s.max))
            };
            let peer = line.best_peer.map_or("-", Library::name);
            let (faster, limit) = (ratio(line.faster_than_best_peer), ratio(line.times_the_limit));
            let _ = writeln!(text, "  {peer:>10}  {faster:>22}  {limit:>20}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }

    fn csv(&self) -> String {
        let mut text = String::from("bytes,library,min_us,median_us,max_us,p99_us,wrong\n");
        for line in &self.lines {
            for (library, Times { us, p99_us, wrong, .. }) in &line.times {
                let (name, bytes) = (library.name(), line.bytes);
                let _ = writeln!(
                    text,
                    "{bytes},{name},{},{},{},{},{wrong}",
                    us.min, us.median, us.max, p99_us.median
                );
            }
        }
        text
    }

    /// Writes `stem`.json, .csv and .svg into `folder` and returns their paths.
    pub fn write(&self, folder: &Path, stem: &str) -> Result<Vec<PathBuf>, String> {
        let json = serde_json::to_string_pretty(self).map_err(|e| format!("cannot write JSON: {e}"))?;
        let svg = plot::draw(self)?;
        std::fs::create_dir_all(folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        let mut written = Vec::new();
        for (ending, text) in [("json", json + "\n"), ("csv", self.csv()), ("svg", svg)] {
            let file = folder.join(format!("{stem}.{ending}"));
            std::fs::write(&file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
            written.push(file);
        }
        Ok(written)
    }
}

impl Line {
    fn new(bytes: u64, rows: &BTreeMap<Library, Vec<Row>>) -> Self {
        let times: BTreeMap<Library, Times> = rows
            .iter()
            .filter_map(|(&library, rows)| {
                let rounds_us: Vec<f64> = rows.iter().map(|row| row.time_us.median).collect();
                let times = Times {
                    us: Spread::of(rounds_us.iter().copied())?,
                    p99_us: Spread::of(rows.iter().map(|row| row.time_us.p99))?,
                    rounds_us,
                    iterations: rows.last().and_then(|row| row.iterations),
                    wrong: rows.iter().map(|row| row.wrong).sum(),
                };
                Some((library, times))
            })
            .collect();
        let best_peer = [Library::Openmpi, Library::Mpich, Library::Gloo]
            .into_iter()
            .filter_map(|peer| Some((peer, times.get(&peer)?.us.median)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(peer, _)| peer);
        let over = |above: Library, below: Library| {
            let (above, below) = (times.get(&above)?, times.get(&below)?);
            Spread::of(above.rounds_us.iter().zip(&below.rounds_us).map(|(a, b)| a / b))
        };
        let faster_than_best_peer = best_peer.and_then(|peer| over(peer, Library::Rccl));
        let times_the_limit = over(Library::Rccl, Library::Limit);
        Line { bytes, best_peer, faster_than_best_peer, times_the_limit, times }
    }
}

/// Bytes as people say them.
pub fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}

/// Three significant figures.
fn us(time: f64) -> String {
    match time {
        t if t < 10.0 => format!("{t:.2}"),
        t if t < 100.0 => format!("{t:.1}"),
        t => format!("{t:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::TimeUs;

    fn row(bytes: u64, median: f64, in_place: bool) -> Row {
        let time_us = TimeUs { min: median, median, p99: median, max: median };
        let (collective, transport, algo) = ("all_reduce".to_owned(), "shm".to_owned(), String::new());
        Row { collective, ranks: 2, bytes, transport, algo, in_place, iterations: None, time_us, wrong: 0 }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut comparison = Comparison::default();
        // The machine is twice as slow in the second round; the ratio does not notice.
        for slow in [1.0, 2.0, 1.0] {
            comparison.add(
                Library::Rccl,
                Collective::AllReduce,
                &[row(8, 9.0, true), row(8, 2.0 * slow, false)],
            );
            comparison.add(Library::Openmpi, Collective::AllReduce, &[row(8, 6.0 * slow, false)]);
            comparison.add(Library::Mpich, Collective::AllReduce, &[row(8, 7.0 * slow, false)]);
            comparison.add(Library::Limit, Collective::AllReduce, &[row(8, 1.0 * slow, false)]);
        }
        let line = Line::new(8, &comparison.by_size[&8]);
        assert_eq!(line.best_peer, Some(Library::Openmpi));
        assert_eq!(line.faster_than_best_peer, Some(Spread { min: 3.0, median: 3.0, max: 3.0 }));
        assert_eq!(line.times_the_limit, Some(Spread { min: 2.0, median: 2.0, max: 2.0 }));
        assert_eq!(line.times[&Library::Rccl].us, Spread { min: 2.0, median: 2.0, max: 4.0 });
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!([size(8), size(1000), size(4096), size(16 << 20)], ["8 B", "1000 B", "4 KiB", "16 MiB"]);
        assert_eq!([us(0.3456), us(34.56), us(3456.7)], ["0.35", "34.6", "3457"]);
    }
}
