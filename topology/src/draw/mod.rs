//! Pictures of systems and graphs, as SVG.
//!
//! ```text
//! blocks    a system as boxes in boxes: hosts, NUMA nodes, switches, GPUs, adapters, ports
//! layout    where each box goes, a pure function of the boxes
//! channels  graphs as rows: rings and trees, channel by channel
//! svg       shapes as text
//! ```
//!
//! Boxes are nested as devices are, so no line has to be followed to see what hangs on what. Only links between GPUs are
//! lines: they leave the tree.

mod blocks;
mod channels;
mod layout;
mod svg;

use crate::graph::Graphs;
use crate::system::System;
use svg::Canvas;

/// Space around everything, in pixels.
const MARGIN: f64 = 16.0;

/// Draws a system, and graphs below it; either may be missing. Answers the text of an SVG file, whose size grows with
/// what there is to draw.
pub fn svg(system: Option<&System>, graphs: Option<&Graphs>) -> String {
    let mut canvas = Canvas::default();
    let mut bottom = MARGIN;
    if let Some(system) = system {
        for block in blocks::hosts(system) {
            let placed = layout::place(&block, MARGIN, bottom);
            bottom = placed.bottom() + MARGIN;
            layout::draw(&mut canvas, &block, &placed);
            blocks::draw_links(&mut canvas, &block, &placed);
        }
    }
    if let Some(graphs) = graphs {
        bottom = channels::draw(&mut canvas, graphs, system, bottom);
    }
    canvas.finish(MARGIN, bottom)
}

/// Three digits say enough of a bandwidth: "370.8", "24", "0.125".
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
