//! The tags of a text, without understanding them: what the parser is too deep in to see.
//!
//! A parser that meets `</cpu>` instead of `</pci>` knows that place, and not the `<pci>` that somebody forgot to close.
//! And it has no limits on depth and on attributes of an element, which it compares with each other.

use super::{Error, Position};

/// How deep elements may be. Machines have less than 16.
const MAX_DEPTH: usize = 64;

/// How many bytes a tag may have, with its attributes.
const MAX_TAG: usize = 64 << 10;

/// An element's opening tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'t> {
    /// Its element's name.
    pub name: &'t str,
    /// Where it starts, in bytes.
    pub start: usize,
}

/// What is wrong with how elements are nested.
#[derive(Debug, PartialEq, Eq)]
pub struct Unclosed<'t> {
    /// The outermost element that is never closed.
    pub first: Opened<'t>,
    /// Those inside of it, inwards.
    pub others: Vec<Opened<'t>>,
    /// The closing tag at which that shows; `None` at the text's end.
    pub before: Option<Opened<'t>>,
}

/// Refuses what no machine looks like.
pub fn check_limits(text: &str) -> Result<(), Error> {
    let mut depth = 0_usize;
    for tag in tags(text) {
        let refuse = |what: String, remedy| Err(Error::new(Some(position(text, tag.start)), what, remedy));
        if tag.length > MAX_TAG {
            return refuse(format!("this tag has more than {} KiB", MAX_TAG >> 10), "is this NCCL's file?");
        }
        match tag.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::Empty => {}
        }
        if depth > MAX_DEPTH {
            return refuse(
                format!("<{}> is more than {MAX_DEPTH} elements deep", tag.name),
                "close the elements around it",
            );
        }
    }
    Ok(())
}

/// The elements that are not closed where they should be, in a text that is not well-formed. `None` if that is not what
/// is wrong with it: all are closed, or a closing tag has no opening one.
pub fn unclosed(text: &str) -> Option<Unclosed<'_>> {
    let mut open: Vec<Opened<'_>> = Vec::new();
    for tag in tags(text) {
        let this = Opened { name: tag.name, start: tag.start };
        match tag.kind {
            Kind::Open => open.push(this),
            Kind::Empty => {}
            Kind::Close if open.last().is_some_and(|last| last.name == tag.name) => {
                open.pop();
            }
            Kind::Close => {
                let partner = open.iter().rposition(|opened| opened.name == tag.name)?;
                let others = open.split_off(partner + 2);
                return Some(Unclosed { first: open.pop()?, others, before: Some(this) });
            }
        }
    }
    let first = *open.first()?;
    Some(Unclosed { first, others: open.split_off(1), before: None })
}

/// Line and column of a byte.
pub fn position(text: &str, byte: usize) -> Position {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    // The text is shorter than 4 GiB.
    let line = before.matches('\n').count() as u32 + 1;
    Position { line, column: before[line_start..].chars().count() as u32 + 1 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open,
    Close,
    Empty,
}

struct Tag<'t> {
    kind: Kind,
    name: &'t str,
    start: usize,
    length: usize,
}

/// All tags; not those in comments, character data, instructions and declarations.
fn tags(text: &str) -> impl Iterator<Item = Tag<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text[at..].find('<')?;
            let rest = &text[start..];
            let skipped = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>"), ("<!", ">")]
                .into_iter()
                .find(|(begin, _)| rest.starts_with(begin));
            if let Some((begin, end)) = skipped {
                at = start + begin.len() + rest[begin.len()..].find(end)? + end.len();
                continue;
            }
            let length = tag_length(rest);
            at = start + length;
            return Some(tag(&rest[..length], start));
        }
    })
}

/// Up to its `>` that is not quoted; or up to the next `<`, which nothing in a tag may contain.
fn tag_length(text: &str) -> usize {
    let mut quote = None;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match (byte, quote) {
            (b'<', _) => return index,
            (b'>', None) => return index + 1,
            (b'"' | b'\'', None) => quote = Some(byte),
            (_, Some(open)) if byte == open => quote = None,
            _ => {}
        }
    }
    text.len()
}

fn tag(text: &str, start: usize) -> Tag<'_> {
    let inside = text.trim_start_matches('<');
    let (kind, inside) = match inside.strip_prefix('/') {
        Some(name) => (Kind::Close, name),
        None if text.ends_with("/>") => (Kind::Empty, inside),
        None => (Kind::Open, inside),
    };
    let end = inside.find(|char: char| char.is_whitespace() || char == '>' || char == '/');
    Tag { kind, name: &inside[..end.unwrap_or(inside.len())], start, length: text.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(Kind, &str, Position)> {
        tags(text).map(|tag| (tag.kind, tag.name, position(text, tag.start))).collect()
    }

    #[test]
    fn tags_and_what_only_looks_like_one() {
        let text = "<?xml v='<a>'?><!DOCTYPE b>\n<c x='>' y=\"/\"><!-- <d> --><e/><![CDATA[<f>]]></c >";
        let at = |line, column| Position { line, column };
        assert_eq!(
            names(text),
            [(Kind::Open, "c", at(2, 1)), (Kind::Empty, "e", at(2, 28)), (Kind::Close, "c", at(2, 47))]
        );
        assert_eq!(names("<a <b"), [(Kind::Open, "a", at(1, 1)), (Kind::Open, "b", at(1, 4))]);
        assert_eq!(names("<!-- <a>"), []);
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(position("ä\nöü<", 7), Position { line: 2, column: 3 });
    }

    #[test]
    fn the_elements_that_nobody_closed() {
        let found = unclosed("<s><c><p><p></c></s>").unwrap();
        assert_eq!(found.first, Opened { name: "p", start: 6 });
        assert_eq!(found.others, [Opened { name: "p", start: 9 }]);
        assert_eq!(found.before, Some(Opened { name: "c", start: 12 }));
        let found = unclosed("<s><c></c>").unwrap();
        assert_eq!((found.first, found.others, found.before), (Opened { name: "s", start: 0 }, vec![], None));
        assert_eq!(unclosed("<s></c></s>"), None);
        assert_eq!(unclosed("<s><c/></s>"), None);
    }

    #[test]
    fn limits_of_depth_and_of_a_tag() {
        let nested = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
        assert!(check_limits(&nested(64)).is_ok());
        let error = check_limits(&nested(65)).unwrap_err();
        assert_eq!(error.position, Some(Position { line: 1, column: 64 * 3 + 1 }));
        assert!(check_limits(&format!("<a b='{}'/>", "x".repeat(70 << 10))).is_err());
    }
}
