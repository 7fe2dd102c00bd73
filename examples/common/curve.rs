//! The loss and accuracy curve as an SVG file.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

/// What one epoch ended with.
pub struct Epoch {
    /// Mean loss over the training images, while training.
    pub loss: f32,
    /// Share of the test images that are recognised, after the epoch.
    pub accuracy: f32,
}

const LOSS: RGBColor = RGBColor(213, 94, 0);
const ACCURACY: RGBColor = RGBColor(0, 114, 178);
const FONT: &str = "sans-serif";

/// Draws the curve into a file: the loss by the left scale, logarithmic; the accuracy by the right one, in percent.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(file: &Path, title: &str, epochs: &[Epoch]) -> Result<(), Box<dyn Error>> {
    let least_loss = epochs.iter().map(|e| e.loss).fold(f32::INFINITY, f32::min);
    let most_loss = epochs.iter().map(|e| e.loss).fold(0.0, f32::max);
    let range = 1..epochs.len().max(2);
    let root = SVGBackend::new(file, (800, 460)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 19))
        .margin(12)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .right_y_label_area_size(70)
        .build_cartesian_2d(range.clone(), (least_loss / 1.5..most_loss * 1.5).log_scale())?
        .set_secondary_coord(range, 80.0f32..100.0);
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style((FONT, 14))
        .x_desc("epoch")
        .y_desc("training loss")
        .draw()?;
    chart.configure_secondary_axes().label_style((FONT, 14)).y_desc("test accuracy, %").draw()?;

    let numbered = || epochs.iter().enumerate().map(|(at, epoch)| (at + 1, epoch));
    chart
        .draw_series(LineSeries::new(numbered().map(|(at, e)| (at, e.loss)), LOSS.stroke_width(2)))?
        .label("training loss (left)")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 22, y)], LOSS.stroke_width(2)));
    let percent = numbered().map(|(at, e)| (at, (e.accuracy * 100.0).max(80.0)));
    chart
        .draw_secondary_series(LineSeries::new(percent, ACCURACY.stroke_width(2)))?
        .label("test accuracy (right)")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 22, y)], ACCURACY.stroke_width(2)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .label_font((FONT, 15))
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}
