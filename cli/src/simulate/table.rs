//! The table for people.

use super::report::{Report, how};
use crate::perf::show_size;
use rccl_schedule::simulate::{Class, Outcome};

pub fn table(report: &Report) -> String {
    let mut text = format!("# {}\n", report.title());
    text += &format!(
        "# {:>7}  {:<17}  {:>14}  {:>8}  {:>9}  {:>6}  {:>6}  {:>6}  {:<12}  {}\n",
        "size",
        "algorithm",
        "time (us)",
        "GB/s bus",
        "processor",
        "memory",
        "rails",
        "trunks",
        "",
        "slowest link"
    );
    for row in &report.rows {
        let head = format!("  {:>7}  {:<17}", show_size(row.bytes), row.algorithm);
        text += &match &row.outcome {
            Ok(outcome) => line(&head, outcome),
            Err(unfit) => format!("{head}  {unfit}\n"),
        };
    }
    text += "# processor, memory, rails, trunks: for how much of the time the busiest of them was busy\n";
    text
}

fn line(head: &str, outcome: &Outcome) -> String {
    let percent = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.1}%", 100.0 * share));
    let most = |classes: &[Class]| {
        let used = outcome.uses.iter().filter(|used| classes.contains(&used.class));
        percent(used.map(|used| used.most).reduce(f64::max))
    };
    let slowest = match &outcome.slowest {
        Some((name, _)) => name.as_str(),
        None => "-",
    };
    format!(
        "{head}  {:>14.2}  {:>8.3}  {:>9}  {:>6}  {:>6}  {:>6}  {:<12}  {slowest}\n",
        outcome.time as f64 / 1e6,
        outcome.bus_bandwidth(),
        percent(outcome.processors.map(|(_, most)| most)),
        most(&[Class::Memory]),
        most(&[Class::Out, Class::In]),
        most(&[Class::Up, Class::Down]),
        how(outcome.how),
    )
}
