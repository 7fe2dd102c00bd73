//! docs/coming-from.md names what there is, and leaves out no function.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn read(file: impl AsRef<Path>) -> String {
    let file = workspace().join(file);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn page() -> String {
    read("docs/coming-from.md")
}

/// Names in a text that begin so, an upper-case letter or digit following.
fn names(text: &str, begin: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named = |word: &&str| {
        word.strip_prefix(begin).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
    };
    words.filter(named).map(str::to_owned).collect()
}

/// Those of the names that a header declares as functions.
fn functions(header: &str, begin: &str) -> BTreeSet<String> {
    let declared = |name: &String| {
        [format!(" {name}("), format!("*{name}("), format!(", {name},")]
            .iter()
            .any(|form| header.contains(form))
    };
    names(header, begin).into_iter().filter(declared).collect()
}

fn missing(of: &BTreeSet<String>, from: &BTreeSet<String>) -> Vec<String> {
    of.difference(from).cloned().collect()
}

#[test]
fn names_of_c_are_those_of_the_headers() {
    for (file, begin, least) in [("ffi/include/roceccl.h", "rccl", 45), ("ffi/nccl/nccl.h", "nccl", 50)] {
        let (header, named) = (read(file), names(&page(), begin));
        assert_eq!(missing(&named, &names(&header, begin)), [""; 0], "not in {file}");
        let functions = functions(&header, begin);
        assert!(functions.len() >= least, "{functions:?}");
        assert_eq!(missing(&functions, &named), [""; 0], "functions of {file} that the page leaves out");
    }
}

#[test]
fn variables_are_those_of_the_settings() {
    let (page, settings) = (page(), read("docs/settings.md"));
    let mut known = names(&settings, "RCCL_");
    known.extend(names(&read("ffi/include/roceccl.h"), "RCCL_"));
    assert_eq!(missing(&names(&page, "RCCL_"), &known), [""; 0]);
    let paragraph =
        page.split("\n\n").find(|text| text.contains("read under their own names")).expect("a list");
    assert_eq!(names(paragraph, "NCCL_"), names(&settings, "NCCL_"), "read under NCCL's name");
}

/// Every name in the tables' columns for Rust is a function, a type or a variant of the crates.
#[test]
fn names_of_rust_are_those_of_the_crates() {
    let mut source = String::new();
    let mut folders: Vec<PathBuf> = ["rccl/src", "kernels/src"].map(|folder| workspace().join(folder)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                source += &read(path);
            }
        }
    }
    let words: BTreeSet<&str> = source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let mut checked = 0;
    let page = page();
    let mut in_table = false;
    for line in page.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        in_table = line.starts_with('|') && (in_table || cells.last() == Some(&" Rust "));
        if !in_table {
            continue;
        }
        for code in
            cells[cells.len() - 1].split('`').skip(1).step_by(2).filter(|code| !code.starts_with("RCCL_"))
        {
            for name in code.trim_end_matches("()").split("::") {
                let is_function = name.starts_with(|c: char| c.is_ascii_lowercase()) && !is_primitive(name);
                let function = [format!("pub fn {name}("), format!("pub fn {name}<")];
                let there = if is_function {
                    function.iter().any(|form| source.contains(form))
                } else {
                    words.contains(name)
                };
                assert!(there, "`{code}` is none of rccl's: {line}");
                checked += 1;
            }
        }
    }
    assert!(checked > 80, "{checked} names");
}

fn is_primitive(name: &str) -> bool {
    name.len() <= 3 && name[1..].parse::<u32>().is_ok()
}

/// Links lead to files of the repository.
#[test]
fn links_lead_somewhere() {
    let page = page();
    let links: Vec<&str> = page.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    for link in links.iter().filter(|link| !link.starts_with('#')) {
        assert!(workspace().join("docs").join(link).exists(), "{link}");
    }
    assert!(links.len() > 5, "{links:?}");
}
