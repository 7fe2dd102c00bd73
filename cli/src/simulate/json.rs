//! `--json`: one object a line, for programs. Names and units are stable; new fields may be added.

use super::report::{Report, how};
use rccl_schedule::simulate::{How, Outcome};
use serde_json::{Value, json};

pub fn lines(report: &Report) -> String {
    let lines = report.rows.iter().map(|row| {
        let mut object = json!({
            "collective": report.collective.word(),
            "root": report.collective.root(),
            "ranks": report.ranks,
            "bytes": row.bytes,
            "algo": row.algorithm.word(),
        });
        let more = match &row.outcome {
            Ok(outcome) => found(outcome),
            Err(unfit) => json!({ "error": unfit.to_string() }),
        };
        if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
            object.extend(more);
        }
        format!("{object}\n")
    });
    lines.collect()
}

fn found(outcome: &Outcome) -> Value {
    let uses = outcome.uses.iter().map(|used| {
        json!({ "class": used.class.word(), "links": used.links, "mean": used.mean, "most": used.most })
    });
    let from = match outcome.how {
        How::Extrapolated { from } => Some(from),
        _ => None,
    };
    json!({
        "how": how(outcome.how),
        "extrapolated_from": from,
        "time_us": outcome.time as f64 / 1e6,
        "busbw": outcome.bus_bandwidth(),
        "chunks": outcome.chunks,
        "links": uses.collect::<Vec<Value>>(),
        "processors": outcome.processors.map(|(mean, most)| json!({ "mean": mean, "most": most })),
        "slowest": outcome.slowest.as_ref().map(|(name, used)| json!({ "link": name, "used": used })),
    })
}
