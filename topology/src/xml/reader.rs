//! From text to elements with typed attributes.

use roxmltree::{Document, Node, ParsingOptions};

use super::outline;
use super::{Error, Note, Parsed, Position};

/// How long a file may be.
pub const MAX_BYTES: usize = 4 << 20;

/// How many notes are kept.
const MAX_NOTES: usize = 64;

/// What is left out, as it is found.
pub struct Reader<'t> {
    text: &'t str,
    notes: Vec<Note>,
}

/// Reads a document whose root `read` understands.
pub fn parse<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>, Node<'_, '_>) -> Result<T, Error>,
) -> Result<Parsed<T>, Error> {
    let text = decode(bytes)?;
    outline::check_limits(text)?;
    // A byte per node at the least, so bytes bound the nodes, too.
    let options =
        ParsingOptions { allow_dtd: false, nodes_limit: MAX_BYTES as u32, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| malformed(text, &error))?;
    let mut reader = Reader { text, notes: Vec::new() };
    let value = read(&mut reader, document.root_element())?;
    Ok(Parsed { value, notes: reader.notes })
}

fn decode(bytes: &[u8]) -> Result<&str, Error> {
    if bytes.len() > MAX_BYTES {
        let what = format!("it has more than {} MiB", MAX_BYTES >> 20);
        return Err(Error::new(None, what, "is this NCCL's file?"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    str::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let position = outline::position(&valid, valid.len());
        Error::new(Some(position), "this is not UTF-8", "save the file as UTF-8")
    })
}

/// What the parser says, and more where an element was not closed.
fn malformed(text: &str, error: &roxmltree::Error) -> Error {
    let nesting =
        matches!(error, roxmltree::Error::UnexpectedCloseTag(..) | roxmltree::Error::UnclosedRootNode);
    if let Some(unclosed) = nesting.then(|| outline::unclosed(text)).flatten() {
        return never_closed(text, &unclosed);
    }
    let words = error.to_string();
    let words = words.strip_suffix(&format!(" at {}", error.pos())).unwrap_or(&words);
    let remedy = match error {
        roxmltree::Error::DtdDetected => "remove the document type declaration",
        roxmltree::Error::NoRootNode => "NCCL's files have a <system> or <graphs> element",
        _ => "correct the XML there",
    };
    // They quote what was found, a line's end among others.
    Error::new(Some(place(text, error)), format!("this is not XML: {}", words.replace('\n', "\\n")), remedy)
}

/// The parser knows no place of some errors, and says 1:1.
fn place(text: &str, error: &roxmltree::Error) -> Position {
    match error {
        roxmltree::Error::UnexpectedEndOfStream | roxmltree::Error::NoRootNode => {
            outline::position(text, text.len())
        }
        roxmltree::Error::DtdDetected => outline::position(text, text.find("<!DOCTYPE").unwrap_or(0)),
        _ => Position { line: error.pos().row, column: error.pos().col },
    }
}

fn never_closed(text: &str, unclosed: &outline::Unclosed<'_>) -> Error {
    let place = |opened: &outline::Opened<'_>| outline::position(text, opened.start);
    let outline::Unclosed { first, others, before } = unclosed;
    let shown: Vec<String> = others.iter().take(3).map(|opened| place(opened).to_string()).collect();
    let others = match others.len() {
        0 => String::new(),
        more @ 1..=3 => format!(", nor {} more after it ({})", more, shown.join(", ")),
        more => format!(", nor {} more after it ({}, ...)", more, shown.join(", ")),
    };
    let before = match before {
        Some(before) => format!("</{}> comes at {} first", before.name, place(before)),
        None => "the file ends first".to_owned(),
    };
    Error::new(
        Some(place(first)),
        format!("<{}> is never closed{others}: {before}", first.name),
        format!("write </{0}>, or <{0} .../> where nothing is inside", first.name),
    )
}

impl Reader<'_> {
    /// Refuses a root with another name.
    pub fn expect(&self, root: Node<'_, '_>, name: &str, remedy: &str) -> Result<(), Error> {
        match root.tag_name().name() {
            found if found == name => Ok(()),
            found => Err(self.error(root, format!("the root is <{found}>, not <{name}>"), remedy)),
        }
    }

    /// Notes an element that has no meaning where it is.
    pub fn unknown(&mut self, node: Node<'_, '_>) {
        let inside = node.parent_element().map_or("", |parent| parent.tag_name().name());
        self.note(
            node.range().start,
            format!("<{}> inside of <{inside}> is not known", node.tag_name().name()),
        );
    }

    /// Notes something at a byte.
    pub fn note(&mut self, byte: usize, words: String) {
        let words = match MAX_NOTES - self.notes.len() {
            0 => return,
            1 => "there is more from here on that is left out".to_owned(),
            _ => words,
        };
        self.notes.push(Note { position: outline::position(self.text, byte), words });
    }

    /// An error at an element.
    pub fn error(&self, node: Node<'_, '_>, what: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::new(Some(outline::position(self.text, node.range().start)), what, remedy)
    }
}
