//! Elements and attributes as text.

use std::fmt::Display;

/// Writes elements, one a line, with two spaces for each that they are in.
#[derive(Default)]
pub struct Writer {
    text: String,
    depth: usize,
}

/// The attributes of an element that is being written.
pub struct Attributes<'w> {
    text: &'w mut String,
}

impl Writer {
    /// Writes an element: its attributes, then what is inside, if anything.
    pub fn element(
        &mut self,
        name: &str,
        attributes: impl FnOnce(&mut Attributes<'_>),
        inside: impl FnOnce(&mut Writer),
    ) {
        let indent = "  ".repeat(self.depth);
        self.text.push_str(&format!("{indent}<{name}"));
        attributes(&mut Attributes { text: &mut self.text });
        let before = self.text.len();
        self.text.push_str(">\n");
        self.depth += 1;
        let empty = self.text.len();
        inside(self);
        self.depth -= 1;
        if self.text.len() == empty {
            self.text.truncate(before);
            self.text.push_str("/>\n");
        } else {
            self.text.push_str(&format!("{indent}</{name}>\n"));
        }
    }

    /// Writes an element that holds text and no elements.
    pub fn text(&mut self, name: &str, attributes: impl FnOnce(&mut Attributes<'_>), words: &str) {
        self.text.push_str(&format!("{}<{name}", "  ".repeat(self.depth)));
        attributes(&mut Attributes { text: &mut self.text });
        self.text.push_str(&format!(">{}</{name}>\n", escaped(words)));
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

impl Attributes<'_> {
    /// Writes an attribute, if there is a value.
    pub fn write(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.text.push_str(&format!(" {name}=\"{}\"", escaped(&value.to_string())));
        }
    }

    /// Writes 1 or 0.
    pub fn flag(&mut self, name: &str, value: Option<bool>) {
        self.write(name, value.map(u8::from));
    }
}

/// What an attribute may hold, or the text of an element. White space would otherwise come back as blanks; characters
/// that XML has no way to write are replaced.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for char in value.chars() {
        match char {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\t' | '\n' | '\r' => text.push_str(&format!("&#{};", u32::from(char))),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => text.push(char::REPLACEMENT_CHARACTER),
            other => text.push(other),
        }
    }
    text
}
