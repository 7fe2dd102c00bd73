//! `--svg`: times over sizes, a line for each algorithm, both axes logarithmic.

use super::report::Report;
use crate::perf::show_size;
use plotters::prelude::*;
use rccl_schedule::Algorithm;

const FONT: &str = "sans-serif";

/// The picture as the text of an SVG file.
pub fn draw(report: &Report) -> Result<String, String> {
    let mut svg = String::new();
    draw_into(report, &mut svg).map_err(|error| format!("cannot draw the plot: {error}"))?;
    Ok(svg)
}

fn draw_into(report: &Report, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (900, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    // Nothing to send has no place on a logarithmic axis.
    let points: Vec<(Algorithm, f64, f64)> = report
        .rows
        .iter()
        .filter_map(|row| {
            Some((row.algorithm, row.bytes as f64, row.outcome.as_ref().ok()?.time as f64 / 1e6))
        })
        .filter(|&(_, bytes, time)| bytes > 0.0 && time > 0.0)
        .collect();
    if points.is_empty() {
        return Ok(root.present()?);
    }
    let range = |of: fn(&(Algorithm, f64, f64)) -> f64| {
        let (least, most) = points
            .iter()
            .map(of)
            .fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), x| (least.min(x), most.max(x)));
        // A single size still needs a range to be drawn in.
        least / 1.4..most * 1.4
    };
    let mut chart = ChartBuilder::on(&root)
        .caption(report.title(), (FONT, 17))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(range(|p| p.1).log_scale().base(8.0), range(|p| p.2).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style((FONT, 14))
        .x_label_formatter(&|bytes| show_size(bytes.round() as u64))
        .x_desc("size")
        .y_desc("simulated time")
        .y_label_formatter(&|us| {
            if *us >= 1000.0 { format!("{} ms", us / 1000.0) } else { format!("{us} us") }
        })
        .draw()?;
    let mut algorithms: Vec<Algorithm> = points.iter().map(|point| point.0).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    for (number, algorithm) in algorithms.into_iter().enumerate() {
        let mut line: Vec<(f64, f64)> =
            points.iter().filter(|p| p.0 == algorithm).map(|p| (p.1, p.2)).collect();
        line.sort_by(|a, b| a.0.total_cmp(&b.0));
        let colour = COLOURS[number % COLOURS.len()];
        chart
            .draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(2)))?
            .label(algorithm.word())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(2)));
        chart.draw_series(line.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font((FONT, 15))
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(root.present()?)
}

/// Distinct for most kinds of colour vision (the Okabe-Ito palette).
const COLOURS: [RGBColor; 7] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];
