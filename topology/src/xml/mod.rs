//! NCCL's files: topologies (`<system>`) and graphs (`<graphs>`), read and written.
//!
//! ```text
//! outline      limits, and which element was never closed: before and beside the parser
//! reader       from bytes to elements, with notes on what is not known
//! attributes   their values, typed
//! writer       elements and attributes into text
//! system       <system>, read and written        graphs   <graphs>, read and written
//! ```
//!
//! Files of NCCL and of AMD's dialect of it are read, of any version, partial ones too. What is not known is left out,
//! and a [`Note`] says so: newer versions write more than this one knows. What cannot be read rightly is an error, with
//! line and column. Files are UTF-8, up to 4 MiB, with elements up to 64 deep; anything larger describes no machine.
//!
//! Writing gives what NCCL writes: its names, its order of attributes, a line per element. Reading that again gives the
//! same value.

mod attributes;
mod graphs;
mod outline;
mod reader;
mod system;
pub(crate) mod writer;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::graph::Graphs;
use crate::system::System;

/// Reads a topology file.
///
/// # Errors
///
/// The file cannot be read, or is not what [`parse_system`] takes.
pub fn load_system(path: &Path) -> Result<Parsed<System>, Error> {
    load(path, parse_system)
}

/// Reads a graph file.
///
/// # Errors
///
/// The file cannot be read, or is not what [`parse_graphs`] takes.
pub fn load_graphs(path: &Path) -> Result<Parsed<Graphs>, Error> {
    load(path, parse_graphs)
}

/// Reads the text of a topology file.
///
/// # Errors
///
/// It is not well-formed XML, its root is not `<system>`, a PCI device lacks its address, a value is none of its kind,
/// or it is beyond the limits of the module.
pub fn parse_system(bytes: &[u8]) -> Result<Parsed<System>, Error> {
    reader::parse(bytes, system::read)
}

/// Reads the text of a graph file.
///
/// # Errors
///
/// It is not well-formed XML, its root is not `<graphs>`, a graph lacks its pattern or a hop its device, a value is none
/// of its kind, or it is beyond the limits of the module.
pub fn parse_graphs(bytes: &[u8]) -> Result<Parsed<Graphs>, Error> {
    reader::parse(bytes, graphs::read)
}

/// The text of a topology file.
pub fn write_system(value: &System) -> String {
    system::write(value)
}

/// The text of a graph file.
pub fn write_graphs(value: &Graphs) -> String {
    graphs::write(value)
}

fn load<T>(path: &Path, parse: fn(&[u8]) -> Result<Parsed<T>, Error>) -> Result<Parsed<T>, Error> {
    let named = |error: Error| Error { file: Some(path.to_owned()), ..error };
    let bytes = read_some(path).map_err(|error| {
        named(Error::new(None, format!("cannot be read: {error}"), "check the path and its permissions"))
    })?;
    parse(&bytes).map_err(named)
}

/// One byte more than the limit at most: a path may lead to a device that never ends.
fn read_some(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(reader::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What was read, and what was left out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed<T> {
    /// What was read.
    pub value: T,
    /// What was left out, in the file's order; 64 notes at the most.
    pub notes: Vec<Note>,
}

/// Something in a file that was left out, and why. Prints as `12:5: <gin> inside of <nic> is not known`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where it is.
    pub position: Position,
    /// A sentence without its full stop.
    pub words: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.words)
    }
}

/// A place in a text. Prints as "12:5".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Character of the line, from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Why a file cannot be read. Prints as "FILE:LINE:COLUMN: what was seen; what to do".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file, if it is one.
    pub file: Option<PathBuf>,
    /// Where in it.
    pub position: Option<Position>,
    /// What was seen.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Error {
    fn new(position: Option<Position>, what: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error { file: None, position, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.position) {
            (Some(file), Some(position)) => write!(f, "{}:{position}: ", file.display())?,
            (Some(file), None) => write!(f, "{}: ", file.display())?,
            (None, Some(position)) => write!(f, "{position}: ")?,
            (None, None) => {}
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for Error {}
