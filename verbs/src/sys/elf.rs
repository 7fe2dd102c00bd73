//! A look at a shared library's file before the loader maps it.
//!
//! The loader maps a file that ends too early as if it were whole, and the process dies of SIGBUS at the first access
//! behind its end; and its own words for a file of another kind leave the user guessing. So the header and the list of
//! segments are read first (ELF-64 object file format; System V ABI, chapter 5).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::LibraryError;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const SHARED_OBJECT: u16 = 3;
const LOADED: u32 = 1;

/// Checks the file that the loader will open for `name`, if it is where it can be found. A name without a slash is
/// searched for by the loader, in more places than are known here; what is not found is left to its judgement.
pub(super) fn check(name: &Path) -> Result<(), LibraryError> {
    if name.as_os_str().as_encoded_bytes().contains(&b'/') {
        return check_file(name);
    }
    match search(name) {
        Some(path) => check_file(&path),
        None => Ok(()),
    }
}

/// The first file of that name where the loader looks first (ld.so(8)): its variable, then the usual directories.
fn search(name: &Path) -> Option<PathBuf> {
    let listed = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = [
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib/aarch64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
    ];
    std::env::split_paths(&listed)
        .filter(|directory| !directory.as_os_str().is_empty())
        .chain(usual.into_iter().map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.exists())
}

fn check_file(path: &Path) -> Result<(), LibraryError> {
    let missing =
        |error: std::io::Error| LibraryError::Missing { path: path.into(), detail: error.to_string() };
    let unusable = |what: String| LibraryError::NotALibrary { path: path.into(), what };
    let file = File::open(path).map_err(missing)?;
    let attributes = file.metadata().map_err(missing)?;
    if !attributes.is_file() {
        return Err(unusable("it is no regular file".into()));
    }
    let length = attributes.len();
    let mut header = [0; HEADER];
    if length < HEADER as u64 || file.read_exact_at(&mut header, 0).is_err() {
        return Err(unusable(format!("it has {length} bytes, less than the header of one")));
    }
    if header[..4] != *b"\x7fELF" {
        return Err(unusable("it does not begin like an ELF file".into()));
    }
    // Class 2: 64 bits. Data 1: little-endian.
    let (kind, machine) = (u16_at(&header, 16), u16_at(&header, 18));
    if header[4] != 2 || header[5] != 1 || machine != MACHINE {
        return Err(unusable(format!(
            "it is made for another kind of machine (class {}, machine {machine}; this one is class 2, machine {MACHINE})",
            header[4]
        )));
    }
    if kind != SHARED_OBJECT {
        return Err(unusable(format!(
            "it is an ELF file of type {kind}, a shared library is {SHARED_OBJECT}"
        )));
    }
    let (at, count) = (u64_at(&header, 32), u64::from(u16_at(&header, 56)));
    let mut needs = at.saturating_add(count * SEGMENT as u64);
    for index in 0..count {
        let mut segment = [0; SEGMENT];
        if file.read_exact_at(&mut segment, at.saturating_add(index * SEGMENT as u64)).is_err() {
            break; // the list itself lies behind the end, which `needs` says
        }
        if u32_at(&segment, 0) == LOADED {
            needs = needs.max(u64_at(&segment, 8).saturating_add(u64_at(&segment, 32)));
        }
    }
    if length < needs {
        return Err(unusable(format!(
            "it is truncated: its segments reach to byte {needs}, it ends at {length}"
        )));
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test program is a shared object itself, as every position-independent program is.
    fn program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    fn verdict(bytes: &[u8]) -> Result<(), LibraryError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        check(file.path())
    }

    #[test]
    fn a_whole_file_passes() {
        verdict(&program()).unwrap();
    }

    #[test]
    fn a_file_that_ends_early_is_told_with_both_lengths() {
        let whole = program();
        for length in [0, 3, 63, 64, 200, 4096] {
            let message = verdict(&whole[..length]).unwrap_err().to_string();
            assert!(message.contains(&length.to_string()), "{length}: {message}");
        }
    }

    #[test]
    fn other_kinds_of_file_are_told_apart() {
        let mut foreign = program();
        foreign[18] = 8; // MIPS
        assert!(verdict(&foreign).unwrap_err().to_string().contains("another kind of machine"));
        let mut relocatable = program();
        relocatable[16] = 1;
        assert!(verdict(&relocatable).unwrap_err().to_string().contains("type 1"));
        assert!(verdict(&[b'#'; 100]).unwrap_err().to_string().contains("ELF"));
        let directory = tempfile::tempdir().unwrap();
        assert!(check(directory.path()).unwrap_err().to_string().contains("regular"));
    }

    #[test]
    fn a_list_of_segments_far_away_is_truncation_and_no_panic() {
        let mut file = program();
        file[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(verdict(&file).unwrap_err().to_string().contains("truncated"));
    }
}
