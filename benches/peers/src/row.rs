//! One measured row, as `rccl perf --json` and the peers' drivers write it: a JSON object on a line of its own.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Times of one call in microseconds, over the iterations; each iteration counts its slowest rank.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct TimeUs {
    pub min: f64,
    pub median: f64,
    pub p99: f64,
    pub max: f64,
}

/// The part of a row that is compared. Keys that are not named here are allowed and ignored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub collective: String,
    pub ranks: u32,
    pub bytes: u64,
    pub transport: String,
    pub algo: String,
    pub in_place: bool,
    /// The timed calls; drivers lower it for a library too slow for the time that a size may take.
    #[serde(default)]
    pub iterations: Option<u64>,
    pub time_us: TimeUs,
    /// Elements with a wrong value after the last call, over all ranks.
    pub wrong: u64,
}

/// Reads all rows of a file; an error names the line.
pub fn read(path: &Path) -> Result<Vec<Row>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("no rows in {}: {e}", path.display()))?;
    let rows: Result<Vec<Row>, String> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|e| format!("{}:{}: {e}: `{line}`", path.display(), at + 1))
        })
        .collect();
    rows.and_then(|rows| if rows.is_empty() { Err(format!("{} is empty", path.display())) } else { Ok(rows) })
}
