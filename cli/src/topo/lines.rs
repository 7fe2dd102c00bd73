//! Lines for people, further in for what belongs to the one above, and the words in them.

use std::fmt::Write;

/// Lines with what they are in before them.
#[derive(Default)]
pub struct Lines {
    text: String,
    /// How far in the next line is.
    pub depth: usize,
}

impl Lines {
    /// A line of the words that are not empty, with commas between.
    pub fn line(&mut self, words: &[String]) {
        let said: Vec<&str> = words.iter().map(String::as_str).filter(|words| !words.is_empty()).collect();
        // Files may name things as they like; a line stays one.
        let said = said.join(", ").replace(char::is_control, "\u{fffd}");
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{:width$}{said}", "", width = 2 * self.depth);
    }

    /// Lines below the last one.
    pub fn inside(&mut self, write: impl FnOnce(&mut Lines)) {
        self.depth += 1;
        write(self);
        self.depth -= 1;
    }

    /// All lines.
    pub fn finish(self) -> String {
        self.text
    }
}

/// "rank 3", or nothing.
pub fn named(name: &str, value: Option<u32>) -> String {
    value.map_or_else(String::new, |value| format!("{name} {value}"))
}

/// Up to three digits after the point: "22.5", "0.125", "370.8".
pub fn short(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Bytes in the largest unit that they have one of: "32 KiB", "1.25 MiB".
pub fn bytes(bytes: u64) -> String {
    let unit = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match unit.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        // As a number of few digits it need not be exact.
        Some((shift, unit)) => {
            format!("{} {unit}", (bytes as f64 / (1_u64 << shift) as f64 * 100.0).round() / 100.0)
        }
        None => format!("{bytes} bytes"),
    }
}
