//! The comparison as a picture: times over sizes above, both logarithmic; below, how many times as fast as the best
//! peer rccl is.

use plotters::prelude::*;

use crate::library::Library;
use crate::machine::Machine;
use crate::report::{Report, size};

const FONT: &str = "sans-serif";

/// The picture as the text of an SVG file.
pub fn draw(report: &Report) -> Result<String, String> {
    let mut svg = String::new();
    draw_into(report, &mut svg).map_err(|e| format!("cannot draw the plot: {e}"))?;
    Ok(svg)
}

fn draw_into(report: &Report, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (900, 760)).into_drawing_area();
    root.fill(&WHITE)?;
    let (Some(first), Some(last)) = (report.lines.first(), report.lines.last()) else {
        root.present()?;
        return Ok(());
    };
    // A single size still needs a range to be drawn in.
    let sizes = first.bytes as f64 / 1.3..last.bytes as f64 * 1.3;
    let (upper, lower) = root.split_vertically(500);
    draw_times(report, sizes.clone(), &upper)?;
    draw_ratio(report, sizes, &lower)?;
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_times(report: &Report, sizes: std::ops::Range<f64>, area: &Area<'_>) -> Drawn {
    let all = || report.lines.iter().flat_map(|line| line.times.values());
    let least = all().map(|times| times.us.min).fold(f64::INFINITY, f64::min);
    let most = all().map(|times| times.us.max).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(report.title(), (FONT, 19))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(70)
        .build_cartesian_2d(sizes.log_scale().base(8.0), (least / 1.5..most * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style((FONT, 14))
        .x_labels(12)
        .x_label_formatter(&|bytes| size(bytes.round() as u64))
        .y_desc("time of a call, slowest rank")
        .y_label_formatter(&|us| time(*us))
        .draw()?;
    for library in report.libraries() {
        let colour = colour(library);
        let line = colour.stroke_width(if library == Library::Rccl { 3 } else { 2 });
        let times = || report.lines.iter().filter_map(|l| Some((l.bytes as f64, l.times.get(&library)?.us)));
        chart
            .draw_series(LineSeries::new(times().map(|(bytes, us)| (bytes, us.median)), line))?
            .label(library.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], line));
        chart.draw_series(times().map(|(bytes, us)| Circle::new((bytes, us.median), 3, colour.filled())))?;
        chart.draw_series(
            times().map(|(bytes, us)| PathElement::new([(bytes, us.min), (bytes, us.max)], colour)),
        )?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font((FONT, 15))
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

fn draw_ratio(report: &Report, sizes: std::ops::Range<f64>, area: &Area<'_>) -> Drawn {
    let ratios = || report.lines.iter().filter_map(|l| Some((l.bytes as f64, l.faster_than_best_peer?)));
    let least = ratios().map(|(_, r)| r.min).fold(0.9, f64::min);
    let most = ratios().map(|(_, r)| r.max).fold(1.2, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("how many times as fast as the best peer rccl is, round by round", (FONT, 16))
        .margin(12)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(
            sizes.clone().log_scale().base(8.0),
            (least / 1.1..most * 1.1).log_scale().base(2.0),
        )?;
    let Machine { cpu, cores, date, .. } = &report.machine;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style((FONT, 14))
        .x_labels(12)
        .y_labels(6)
        .x_label_formatter(&|bytes| size(bytes.round() as u64))
        .x_desc(format!("{cpu}, {cores} cores, {date}, {} rounds; bars: least to most", report.rounds))
        .y_label_formatter(&|ratio| {
            if *ratio < 1.0 { format!("1/{:.0}", 1.0 / ratio) } else { format!("{ratio:.0}x") }
        })
        .draw()?;
    let even = [(sizes.start, 1.0), (sizes.end, 1.0)];
    chart.draw_series(std::iter::once(PathElement::new(even, BLACK.stroke_width(1))))?;
    let colour = colour(Library::Rccl);
    chart
        .draw_series(LineSeries::new(ratios().map(|(bytes, r)| (bytes, r.median)), colour.stroke_width(3)))?;
    chart.draw_series(ratios().map(|(bytes, r)| Circle::new((bytes, r.median), 3, colour.filled())))?;
    chart
        .draw_series(ratios().map(|(bytes, r)| PathElement::new([(bytes, r.min), (bytes, r.max)], colour)))?;
    Ok(())
}

/// Distinct for most kinds of colour vision (the Okabe-Ito palette), the limit in grey.
fn colour(library: Library) -> RGBColor {
    match library {
        Library::Rccl => RGBColor(213, 94, 0),
        Library::Openmpi => RGBColor(0, 114, 178),
        Library::Mpich => RGBColor(0, 158, 115),
        Library::Gloo => RGBColor(204, 121, 167),
        Library::Limit => RGBColor(120, 120, 120),
    }
}

fn time(us: f64) -> String {
    match us {
        t if t >= 1000.0 => format!("{} ms", t / 1000.0),
        t => format!("{t} us"),
    }
}
