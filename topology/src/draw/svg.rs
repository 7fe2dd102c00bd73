//! Shapes as text.

use crate::xml::writer::Writer;

/// A rectangle, in pixels from the left and from the top.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// Height of a line of text.
pub const LINE: f64 = 16.0;

/// About how wide a text is, rather too much: viewers choose the font.
pub fn text_width(words: &str, bold: bool) -> f64 {
    words.chars().count() as f64 * if bold { 8.0 } else { 7.0 }
}

/// What is drawn, in order; later shapes cover earlier ones.
#[derive(Default)]
pub struct Canvas {
    shapes: Vec<Shape>,
    right: f64,
}

enum Shape {
    Box { area: Area, fill: &'static str },
    Text { x: f64, y: f64, words: String, bold: bool },
    Line { path: String, colour: &'static str, arrow: bool },
}

impl Canvas {
    /// A box with round corners.
    pub fn rectangle(&mut self, area: Area, fill: &'static str) {
        self.right = self.right.max(area.x + area.width);
        self.shapes.push(Shape::Box { area, fill });
    }

    /// A line of text whose upper left corner is there.
    pub fn text(&mut self, x: f64, y: f64, words: &str, bold: bool) {
        self.right = self.right.max(x + text_width(words, bold));
        self.shapes.push(Shape::Text { x, y, words: words.to_owned(), bold });
    }

    /// A line along a path in SVG's notation.
    pub fn line(&mut self, path: String, colour: &'static str, arrow: bool) {
        self.shapes.push(Shape::Line { path, colour, arrow });
    }

    /// The text of the file.
    pub fn finish(self, margin: f64, bottom: f64) -> String {
        let (width, height) = ((self.right + margin).ceil(), bottom.ceil());
        let mut writer = Writer::default();
        writer.element(
            "svg",
            |it| {
                it.write("xmlns", Some("http://www.w3.org/2000/svg"));
                it.write("width", Some(width));
                it.write("height", Some(height));
                it.write("viewBox", Some(format!("0 0 {width} {height}")));
                it.write("font-family", Some("Helvetica, Arial, sans-serif"));
                it.write("font-size", Some(12));
            },
            |writer| {
                arrow_head(writer);
                let everything = Area { x: 0.0, y: 0.0, width, height };
                Shape::Box { area: everything, fill: "#ffffff" }.write(writer);
                self.shapes.iter().for_each(|shape| shape.write(writer));
            },
        );
        writer.finish()
    }
}

fn arrow_head(writer: &mut Writer) {
    let marker = |writer: &mut Writer| {
        writer.element(
            "marker",
            |it| {
                it.write("id", Some("arrow"));
                it.write("viewBox", Some("0 0 8 8"));
                it.write("refX", Some(7));
                it.write("refY", Some(4));
                it.write("markerWidth", Some(6));
                it.write("markerHeight", Some(6));
                it.write("orient", Some("auto"));
            },
            |writer| {
                let path = |it: &mut crate::xml::writer::Attributes<'_>| {
                    it.write("d", Some("M0 0L8 4L0 8Z"));
                    it.write("fill", Some("#444444"));
                };
                writer.element("path", path, |_| {});
            },
        );
    };
    writer.element("defs", |_| {}, marker);
}

impl Shape {
    fn write(&self, writer: &mut Writer) {
        match self {
            Shape::Box { area, fill } => writer.element(
                "rect",
                |it| {
                    it.write("x", Some(area.x));
                    it.write("y", Some(area.y));
                    it.write("width", Some(area.width));
                    it.write("height", Some(area.height));
                    it.write("rx", Some(4));
                    it.write("fill", Some(fill));
                    it.write("stroke", Some("#888888"));
                },
                |_| {},
            ),
            Shape::Text { x, y, words, bold } => writer.text(
                "text",
                |it| {
                    it.write("x", Some(x));
                    it.write("y", Some(y + 12.0));
                    it.write("font-weight", bold.then_some("bold"));
                },
                words,
            ),
            Shape::Line { path, colour, arrow } => writer.element(
                "path",
                |it| {
                    it.write("d", Some(path));
                    it.write("fill", Some("none"));
                    it.write("stroke", Some(colour));
                    it.write("stroke-width", Some(1.5));
                    // What it crosses stays readable.
                    it.write("stroke-opacity", Some(0.7));
                    it.write("marker-end", arrow.then_some("url(#arrow)"));
                },
                |_| {},
            ),
        }
    }
}
