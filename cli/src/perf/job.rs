//! Joins the ranks, and goes through types, operators or roots, and sizes.

use super::json;
use super::line::{self, Line, SENDRECV};
use super::links;
use super::measure::{Bench, Case, Measured};
use super::options::{Choice, Options, Root, op_word};
use super::report::Report;
use super::table::{self, Half};
use crate::share::share;
use rccl::config::TRANSPORT_WORDS;
use rccl::{Collective, Communicator, Config, DataType, ReduceOp};
use std::io;

/// Why a run ended early.
pub enum Error {
    /// The options do not fit the job; every rank finds out.
    Usage {
        /// This process's.
        rank: u32,
        /// A sentence for the user.
        message: String,
    },
    /// Rank 0 cannot write.
    Output(io::Error),
    /// Another rank has the same trouble or one of its own, and prints it.
    Elsewhere,
    /// A call failed; `rank` is unknown before the job was joined.
    Call {
        /// This process's.
        rank: Option<u32>,
        /// The call's answer.
        error: rccl::Error,
    },
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Output(error)
    }
}

impl From<rccl::Error> for Error {
    fn from(error: rccl::Error) -> Error {
        Error::Call { rank: None, error }
    }
}

/// Runs all that the options ask for as one rank of the job. Returns how many elements were wrong over all ranks.
///
/// # Errors
/// [`Error`], after the other ranks were told.
pub fn run(options: &Options) -> Result<u64, Error> {
    let mut config = Config::from_env()?;
    options.configure(&mut config)?;
    let communicator = Communicator::builder()?.config(config).label("perf").from_env()?;
    let rank = communicator.rank();
    // All ranks have the same options and see the same, so nobody needs to be told.
    options.validate_ranks(communicator.size()).map_err(|message| Error::Usage { rank, message })?;
    let result = go_through(options, &communicator).map_err(|error| {
        match &error {
            Error::Output(cause) => {
                communicator.abort(&format!("rank {rank} cannot write the results: {cause}"))
            }
            Error::Call { error, .. } if error.failure().is_none() => communicator.abort(&error.to_string()),
            _ => {}
        }
        match error {
            Error::Call { error, .. } => Error::Call { rank: Some(rank), error },
            other => other,
        }
    })?;
    communicator.finish().map_err(|error| Error::Call { rank: Some(rank), error })?;
    Ok(result)
}

fn go_through(options: &Options, communicator: &Communicator) -> Result<u64, Error> {
    let lines = lines(options, communicator.size());
    let mut report = Report::new(options, communicator.rank(), lines.len() * halves(options).len())?;
    let places = share(communicator, &format!("Pid {:6} on {}", std::process::id(), host()))?;
    report.head(options, &places)?;
    let largest = lines.iter().map(Line::bytes).max().unwrap_or(0);
    let bench = Bench::new(communicator, options, largest);
    let mut bench = first_to_fail(communicator, bench)?;
    for line in lines {
        explain(options, communicator, &line, &mut report)?;
        let mut row = table::Row {
            bytes: line.bytes(),
            count: line.count(),
            data_type: if line.collective == Collective::Barrier { "none" } else { line.dtype.name() },
            op: line.op.map_or("none", op_word),
            root: line.root,
            out_of_place: None,
            in_place: None,
        };
        for &in_place in halves(options) {
            let case = Case { line, in_place };
            report.begin(&case);
            let measured = bench.run(&case)?;
            write_json(options, communicator, &case, &measured, &mut report)?;
            let half = half(&line, &measured);
            *(if in_place { &mut row.in_place } else { &mut row.out_of_place }) = Some(half);
        }
        report.row(&row)?;
    }
    let known = share(communicator, &links::known(communicator.rank(), &communicator.transports()))?;
    Ok(report.foot(&known)?)
}

/// The outcome of something that each rank did on its own: an error if it failed on any, which is the lowest such rank's
/// to tell.
fn first_to_fail<T>(communicator: &Communicator, outcome: rccl::Result<T>) -> Result<T, Error> {
    let rank = communicator.rank();
    let mut first = [if outcome.is_err() { rank } else { u32::MAX }];
    communicator.all_reduce(&mut first, ReduceOp::Min)?;
    if first[0] == u32::MAX || first[0] == rank { Ok(outcome?) } else { Err(Error::Elsewhere) }
}

/// The ways to call: out of place, in place.
fn halves(options: &Options) -> &'static [bool] {
    if line::has_in_place(options.collective) { &[false, true] } else { &[false] }
}

/// The table's lines in their order.
fn lines(options: &Options, ranks: u32) -> Vec<Line> {
    let collective = options.collective;
    let ops: Vec<Option<ReduceOp>> = match line::reduces(collective) {
        true => options.op.values(ReduceOp::ALL).into_iter().map(Some).collect(),
        false => vec![None],
    };
    let roots: Vec<Option<u32>> = match line::has_root(collective) {
        true => options.root.values((0..ranks).map(Root)).into_iter().map(|Root(root)| Some(root)).collect(),
        false => vec![None],
    };
    if collective == Collective::Barrier {
        return vec![Line::new(collective, DataType::U8, None, None, ranks, 0)];
    }
    let mut lines = Vec::new();
    for dtype in options.data_type.values(DataType::ALL) {
        for &op in ops.iter().filter(|op| op.is_none_or(|op| op.suits(dtype))) {
            for &root in &roots {
                lines.extend(
                    options.sizes().map(|bytes| Line::new(collective, dtype, op, root, ranks, bytes)),
                );
            }
        }
    }
    lines
}

fn half(line: &Line, measured: &Measured) -> Half {
    let algorithm_bandwidth = line.bytes() as f64 / measured.average_us.max(1e-3) / 1e3;
    Half {
        time_us: measured.average_us,
        algorithm_bandwidth,
        bus_bandwidth: algorithm_bandwidth * line.bus_factor(),
        wrong: measured.wrong,
    }
}

fn write_json(
    options: &Options,
    communicator: &Communicator,
    case: &Case,
    measured: &Measured,
    report: &mut Report,
) -> Result<(), Error> {
    if measured.calls_us.is_empty() {
        return Ok(());
    }
    let transport = transports(communicator)?;
    // A message has no algorithm to choose: it goes straight.
    let algorithm = match case.line.collective {
        SENDRECV => "direct",
        _ => communicator.algorithm(&case.line.call()),
    };
    if let Some(row) = json::Row::new(options, case, algorithm, &transport, measured) {
        report.json(&row)?;
    }
    Ok(())
}

/// What the links of all ranks use, `shm+tcp`; `none` where there are no links.
fn transports(communicator: &Communicator) -> Result<String, Error> {
    let mine = communicator.transports();
    let mut used = TRANSPORT_WORDS.map(|word| u8::from(mine.iter().any(|(_, kind, _)| kind == word)));
    communicator.all_reduce(&mut used, ReduceOp::Max)?;
    let words = TRANSPORT_WORDS.into_iter().zip(used).filter(|(_, used)| *used == 1);
    let words: Vec<_> = words.map(|(word, _)| word).collect();
    Ok(if words.is_empty() { "none".into() } else { words.join("+") })
}

fn explain(
    options: &Options,
    communicator: &Communicator,
    line: &Line,
    report: &mut Report,
) -> Result<(), Error> {
    let Some(asked) = options.explain else { return Ok(()) };
    let wanted = |rank: u32| asked == Choice::All || asked == Choice::One(Root(rank));
    let mine = if wanted(communicator.rank()) { communicator.explain(&line.call()) } else { String::new() };
    for program in share(communicator, &mine)?.iter().filter(|program| !program.is_empty()) {
        report.program(program)?;
    }
    Ok(())
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "an unnamed host".into() } else { name.trim().to_owned() }
}
