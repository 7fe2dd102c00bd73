//! `--json`: one object a line, for programs.

use super::line;
use super::measure::{Case, Measured};
use super::options::Options;
use serde::Serialize;

/// One row. Names and units are stable; new fields may be added.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    collective: &'static str,
    ranks: u32,
    /// The size as nccl-tests means it.
    bytes: u64,
    /// nccl-tests' name.
    #[serde(rename = "type")]
    data_type: &'static str,
    op: Option<&'static str>,
    root: Option<u32>,
    algo: &'a str,
    /// What the job's links used, joined by `+`.
    transport: &'a str,
    in_place: bool,
    /// How many iterations were timed.
    iterations: usize,
    time_us: TimeUs,
    /// GB/s of the median call, with 1e9 bytes a GB.
    algbw: f64,
    busbw: f64,
    /// Over all ranks; null where nothing was checked.
    wrong: Option<u64>,
    /// Calls of an iteration.
    calls: u32,
    /// Whether they were started, and waited for at the iteration's end.
    #[serde(rename = "async")]
    asynchronous: bool,
}

/// Microseconds of single calls, or of iterations over the number of their calls; each counts its slowest rank.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TimeUs {
    min: f64,
    median: f64,
    p99: f64,
    max: f64,
}

impl TimeUs {
    /// Of times in ascending order. The percentiles are times that were measured: the least that at least that share of
    /// all calls do not exceed.
    pub fn of(sorted: &[f64]) -> Option<TimeUs> {
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100) - 1];
        Some(TimeUs { min, median: at(50), p99: at(99), max })
    }
}

impl Row<'_> {
    /// The row of what was measured, or `None` if no single call was timed.
    pub fn new<'a>(
        options: &Options,
        case: &Case,
        algo: &'a str,
        transport: &'a str,
        measured: &Measured,
    ) -> Option<Row<'a>> {
        let time_us = TimeUs::of(&measured.calls_us)?;
        let line = &case.line;
        let algbw = line.bytes() as f64 / time_us.median / 1e3;
        Some(Row {
            collective: line::name(line.collective),
            ranks: line.ranks,
            bytes: line.bytes(),
            data_type: line.dtype.name(),
            op: line.op.map(|op| op.name()),
            root: line.root,
            algo,
            transport,
            in_place: case.in_place,
            iterations: measured.calls_us.len(),
            time_us,
            algbw,
            busbw: algbw * line.bus_factor(),
            wrong: measured.wrong,
            calls: options.calls,
            asynchronous: options.asynchronous,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rccl::{Collective, DataType, ReduceOp};

    #[test]
    fn percentiles_are_measured_times() {
        let times: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(TimeUs::of(&times), Some(TimeUs { min: 1.0, median: 100.0, p99: 198.0, max: 200.0 }));
        assert_eq!(TimeUs::of(&[7.0]), Some(TimeUs { min: 7.0, median: 7.0, p99: 7.0, max: 7.0 }));
        assert_eq!(TimeUs::of(&[]), None);
    }

    #[test]
    fn a_row_has_the_documented_fields() {
        let sum = Some(ReduceOp::Sum);
        let line = line::Line::new(Collective::AllReduce, DataType::F32, sum, None, 4, 4000);
        let case = Case { line, in_place: true };
        let measured = Measured { average_us: 1.0, calls_us: vec![1.0, 2.0, 4.0], wrong: Some(0) };
        let options = Options::parsed("all_reduce -m 2").unwrap();
        let row = Row::new(&options, &case, "ring", "shm", &measured).unwrap();
        assert_eq!(
            serde_json::to_string(&row).unwrap(),
            r#"{"collective":"all_reduce","ranks":4,"bytes":4000,"type":"float","op":"sum","root":null,"algo":"ring","transport":"shm","in_place":true,"iterations":3,"time_us":{"min":1.0,"median":2.0,"p99":4.0,"max":4.0},"algbw":2.0,"busbw":3.0,"wrong":0,"calls":2,"async":false}"#
        );
    }
}
