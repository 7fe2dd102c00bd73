//! A picture of single steps: what each rank did when.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::steps::{Steps, bounds};
use crate::trace::{Span, What};

const ROW: u32 = 24;
const FONT: &str = "sans-serif";

/// Draws the typical step of each kind, one below the other and on the same scale: two rows for each rank.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(file: &Path, ranks: &[Vec<Span>], kinds: &[&Steps]) -> Result<(), Box<dyn Error>> {
    let steps: Vec<Vec<Vec<Span>>> = kinds.iter().map(|kind| step(ranks, kind.typical)).collect();
    let longest = steps.iter().map(|step| length(step)).fold(0.0, f64::max);
    let rows = 2 * ranks.len();
    let height = 100 + rows as u32 * ROW;
    let root = SVGBackend::new(file, (800, height * kinds.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for ((kind, step), area) in kinds.iter().zip(&steps).zip(root.split_evenly((kinds.len(), 1))) {
        let begin = bounds(&step.concat()).0;
        let title =
            format!("{} bucket(s): {:.1} ms, {:.1} ms of it waiting", kind.buckets, kind.length, kind.waited);
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FONT, 17))
            .margin(10)
            .x_label_area_size(42)
            .y_label_area_size(120)
            .build_cartesian_2d(0.0..longest, (0..rows - 1).into_segmented())?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(WHITE)
            .label_style((FONT, 13))
            .x_desc("ms; grey forward, blue backward, green new parameters, orange all_reduce")
            .y_labels(rows)
            .y_label_formatter(&|row| match row {
                SegmentValue::CenterOf(row) if *row < rows => {
                    let (rank, row) = ((rows - 1 - row) / 2, (rows - 1 - row) % 2);
                    format!("rank {rank} {}", ["computes", "all_reduce"][row])
                }
                _ => String::new(),
            })
            .draw()?;
        for (rank, spans) in step.iter().enumerate() {
            chart.draw_series(spans.iter().map(|span| {
                let row = rows - 1 - 2 * rank - usize::from(!span.is_computing());
                let millis = |nanos: u64| (nanos - begin) as f64 / 1e6;
                let corners = [
                    (millis(span.begin), SegmentValue::Exact(row)),
                    (millis(span.end), SegmentValue::Exact(row + 1)),
                ];
                let mut bar = Rectangle::new(corners, colour(span.what).filled());
                bar.set_margin(3, 3, 0, 1);
                bar
            }))?;
        }
    }
    root.present()?;
    Ok(())
}

/// The spans of each rank in one step.
fn step(ranks: &[Vec<Span>], number: u64) -> Vec<Vec<Span>> {
    ranks.iter().map(|spans| spans.iter().filter(|span| span.step == number).copied().collect()).collect()
}

/// From the first begin on any rank to the last end, in milliseconds.
fn length(step: &[Vec<Span>]) -> f64 {
    let (begin, end) = bounds(&step.concat());
    (end - begin) as f64 / 1e6
}

/// Layers and calls that follow one another differ in brightness.
fn colour(what: What) -> RGBColor {
    match what {
        What::Forward => RGBColor(150, 150, 150),
        What::Backward(layer) if layer % 2 == 0 => RGBColor(0, 114, 178),
        What::Backward(_) => RGBColor(86, 180, 233),
        What::Update => RGBColor(0, 158, 115),
        What::AllReduce(number) if number % 2 == 0 => RGBColor(213, 94, 0),
        What::AllReduce(_) => RGBColor(230, 159, 0),
    }
}
