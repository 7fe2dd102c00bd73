//! What a run prints: the table, the JSON, the programs, the progress. Only rank 0 prints; the others' is empty.

use super::line;
use super::links;
use super::options::Options;
use super::size::show_size;
use super::table::{self, Half};
use super::{json, measure::Case};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Where a run's output goes, and the sums of its last lines.
pub struct Report {
    text: Box<dyn Write>,
    json: Option<Box<dyn Write>>,
    progress: Progress,
    wrong: u64,
    bandwidths: Vec<f64>,
}

impl Report {
    /// The report of `rank`, on `cases` measurements.
    ///
    /// # Errors
    /// When the JSON's file cannot be created.
    pub fn new(options: &Options, rank: u32, cases: usize) -> io::Result<Report> {
        let to_stdout = options.json.as_deref() == Some(Path::new("-"));
        let (text, json): (Box<dyn Write>, Option<Box<dyn Write>>) = match (&options.json, rank) {
            (_, 1..) => (Box::new(io::sink()), None),
            (None, 0) => (Box::new(io::stdout()), None),
            (Some(_), 0) if to_stdout => (Box::new(io::stderr()), Some(Box::new(io::stdout()))),
            (Some(path), 0) => (Box::new(io::stdout()), Some(Box::new(BufWriter::new(create(path)?)))),
        };
        let progress = Progress::new(rank, cases);
        Ok(Report { text, json, progress, wrong: 0, bandwidths: Vec::new() })
    }

    /// The lines before the table: what runs, and where.
    pub fn head(&mut self, options: &Options, places: &[String]) -> io::Result<()> {
        let sizes = options.sizes();
        let mut text = format!(
            "# rccl {} {}\n# nRanks {} minBytes {} maxBytes {} step: {} warmup iters: {} iters: {} agg iters: {} validation: {}\n#\n# Using ranks\n",
            env!("CARGO_PKG_VERSION"),
            line::name(options.collective),
            places.len(),
            options.begin,
            sizes.largest(),
            sizes.step(),
            options.warm_up,
            options.table_iterations(),
            options.calls,
            options.check
        );
        for (rank, place) in places.iter().enumerate() {
            text += &format!("#  Rank {rank:2} {place}\n");
        }
        text += table::HEAD;
        self.print(&text)
    }

    /// A line of the table.
    pub fn row(&mut self, row: &table::Row) -> io::Result<()> {
        for half in [&row.out_of_place, &row.in_place].into_iter().flatten() {
            self.count(half);
        }
        self.print(&format!("{}\n", row.line()))
    }

    /// A line of the JSON, if it is written.
    pub fn json(&mut self, row: &json::Row<'_>) -> io::Result<()> {
        let Some(json) = &mut self.json else { return Ok(()) };
        let line = serde_json::to_string(row).map_err(io::Error::other)?;
        writeln!(json, "{line}")?;
        json.flush()
    }

    /// A rank's program, as comment lines between those of the table.
    pub fn program(&mut self, program: &str) -> io::Result<()> {
        let lines = program.lines().map(|line| format!("# {line}\n"));
        let text: String = lines.collect();
        self.print(&text)
    }

    /// Shows what is about to be measured.
    pub fn begin(&mut self, case: &Case) {
        self.progress.begin(case);
    }

    /// The lines after the table; `links` is what each rank knows of them. Returns how many elements were wrong.
    pub fn foot(mut self, links: &[String]) -> io::Result<u64> {
        self.progress.end();
        let bandwidth = self.bandwidths.iter().sum::<f64>() / self.bandwidths.len().max(1) as f64;
        let foot = links::lines(links) + &table::foot(self.wrong, bandwidth);
        self.print(&foot)?;
        self.json.as_mut().map_or(Ok(()), |json| json.flush())?;
        Ok(self.wrong)
    }

    fn count(&mut self, half: &Half) {
        self.wrong += half.wrong.unwrap_or(0);
        self.bandwidths.push(half.bus_bandwidth);
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        let out = &mut self.text;
        self.progress.aside(|| {
            out.write_all(text.as_bytes())?;
            out.flush()
        })
    }
}

/// Creates the file that the JSON goes to, empty, where there is one. For a process that does not write it, but wants to
/// know before the others start that it can be written.
///
/// # Errors
/// The system's, with the path.
pub fn create_json(options: &Options) -> io::Result<()> {
    match options.json.as_deref() {
        Some(path) if path != Path::new("-") => create(path).map(drop),
        _ => Ok(()),
    }
}

fn create(path: &Path) -> io::Result<File> {
    File::create(path)
        .map_err(|error| io::Error::new(error.kind(), format!("--json {}: {error}", path.display())))
}

/// A bar on standard error that appears where that is a terminal, once a run has taken a while.
struct Progress {
    bar: ProgressBar,
    since: Instant,
    wanted: bool,
}

impl Progress {
    const PATIENCE: Duration = Duration::from_secs(3);

    fn new(rank: u32, cases: usize) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(cases as u64), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {elapsed}") {
            bar.set_style(style);
        }
        Progress { bar, since: Instant::now(), wanted: rank == 0 && io::stderr().is_terminal() }
    }

    fn begin(&mut self, case: &Case) {
        if self.wanted && self.since.elapsed() > Progress::PATIENCE {
            self.wanted = false;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        let place = if case.in_place { "in place" } else { "out of place" };
        self.bar.set_message(format!("{} {}, {place}", case.line.dtype.name(), show_size(case.line.bytes())));
        self.bar.inc(1);
    }

    /// Prints something else without the bar in the way.
    fn aside<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bar.suspend(print)
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
