//! Training with gradients in buckets gives the curve of data-parallel training, and its trace shows calls under way
//! while their rank computes.

mod launch;

use launch::{curve, learns_as_digits_does, run};
use serde_json::Value;
use std::path::Path;

const OVERLAP: &str = env!("CARGO_BIN_EXE_overlap");

#[test]
fn any_number_of_ranks_learns_as_digits_does() {
    for ranks in [1, 2, 3, 4] {
        let said = learns_as_digits_does(OVERLAP, ranks, &[], &[]);
        assert_eq!(curve(&said)[29].1, 98.06);
    }
}

#[test]
fn the_trace_shows_calls_behind_computation() {
    let folder = tempfile::tempdir().unwrap();
    for ranks in [2, 3] {
        let [trace, picture] = ["trace.json", "picture.svg"].map(|name| folder.path().join(name));
        let [trace_to, picture_to] = [&trace, &picture].map(|path| path.to_str().unwrap());
        let network = ["--hidden", "64,64,64", "--epochs", "1"];
        let files = ["--trace", trace_to, "--picture", picture_to];
        let said = run(OVERLAP, ranks, &[&network[..], &files, &["--buckets", "4"]].concat());
        assert!(said.contains("4 bucket(s): ") && said.contains(" hidden"), "{said}");
        let overlaps = overlaps(&trace);
        assert_eq!(overlaps.len(), ranks as usize);
        assert!(overlaps.iter().all(|overlap| overlap.in_buckets > 0.0), "{overlaps:?}");
        assert!(overlaps.iter().all(|overlap| overlap.in_one < 1e-3), "{overlaps:?}");
        let picture = std::fs::read_to_string(picture).unwrap();
        assert!(picture.starts_with("<svg") && picture.contains("all_reduce"));
    }
}

/// Microseconds of one rank's trace in which a call was under way and the rank computed.
#[derive(Debug, Default)]
struct Overlap {
    in_buckets: f64,
    in_one: f64,
}

/// Reads a trace: of each rank, in their order.
fn overlaps(trace: &Path) -> Vec<Overlap> {
    let trace: Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let named = |event: &&Value| event["ph"] == "M" && event["name"] == "process_name";
    let ranks = events.iter().filter(named).map(|event| event["pid"].as_u64().unwrap());
    ranks
        .map(|rank| {
            let on = |row: u64| {
                events.iter().filter(move |e| e["ph"] == "X" && e["pid"] == rank && e["tid"] == row)
            };
            let mut overlap = Overlap::default();
            for (call, compute) in on(1).flat_map(|call| on(0).map(move |compute| (call, compute))) {
                let (begin, end) = (
                    |e: &Value| e["ts"].as_f64().unwrap(),
                    |e: &Value| e["ts"].as_f64().unwrap() + e["dur"].as_f64().unwrap(),
                );
                let both = (end(call).min(end(compute)) - begin(call).max(begin(compute))).max(0.0);
                // The steps count from 1, those in buckets first.
                if call["args"]["step"].as_u64().unwrap() % 2 == 1 {
                    overlap.in_buckets += both;
                } else {
                    overlap.in_one += both;
                }
            }
            overlap
        })
        .collect()
}
