//! Reading files of sysfs and its like. What is missing or cannot be read is absent.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use crate::host::natural_order;

/// Names in a directory, in natural order; none if there is no such directory.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_by(|one, other| natural_order(one, other));
    names
}

/// A file's content without blanks around it; absent if that is empty.
pub(crate) fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What a file's content stands for; absent if it is something else.
pub(crate) fn parsed<T: FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}
