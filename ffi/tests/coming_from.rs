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

/// Every name in the tables' columns for Rust: `Type::method` or `Type::Variant`, `method` of a communicator, `function()`, or a
/// type.
#[test]
fn names_of_rust_are_those_of_the_crates() {
    let files = sources(&["rccl/src", "kernels/src"]);
    let is_word = |name: &str| {
        let mut words = files.iter().flat_map(|file| file.split(|c: char| !c.is_ascii_alphanumeric()));
        words.any(|word| word == name)
    };
    let is_function = |file: &&String, name: &str| {
        let forms = ["pub fn", "pub unsafe fn"].into_iter();
        let mut forms = forms.flat_map(|begin| [format!("{begin} {name}("), format!("{begin} {name}<")]);
        forms.any(|form| file.contains(&form))
    };
    let is_method = |of: &str, name: &str| {
        let begins = [format!(" {of} {{"), format!(" {of}<")];
        let holds = |line: &str| line.starts_with("impl") && begins.iter().any(|begin| line.contains(begin));
        files.iter().filter(|file| file.lines().any(holds)).any(|file| is_function(&file, name))
    };
    let page = page();
    let names = in_column(&page, "Rust");
    assert!(names.len() > 80, "{names:?}");
    for name in names.iter().filter(|name| !name.starts_with("RCCL_") && !is_primitive(name)) {
        let there = match (name.split_once("::"), name.strip_suffix("()")) {
            (Some((of, method)), _) if is_lower(method) => is_method(of, method),
            (Some((of, variant)), _) => is_word(of) && is_word(variant),
            (None, Some(function)) => files.iter().any(|file| is_function(&file, function)),
            (None, None) if is_lower(name) => is_method("Communicator", name),
            (None, None) => is_word(name),
        };
        assert!(there, "`{name}` is none of rccl's");
    }
}

/// Every name in the tables' columns for Python: `Class.method`, a `method` of a communicator, `rccl.name` and `nccl.name` of the
/// modules, a `parameter=`, or a `"word"` for an operator or a type.
#[test]
fn names_of_python_are_those_of_the_package() {
    let package = |file: &str| read(Path::new("ffi/python/python/rccl").join(file));
    let (stub, low_level) = (package("_rccl.pyi"), package("nccl.py"));
    let exported = package("__init__.py");
    let exported = exported.split_once("__all__ = [").expect("a list").1;
    let signatures = [stub.clone(), package("_group.py"), low_level.clone()].concat();
    let words = [stub.as_str(), &package("_arrays.py")].concat();
    let page = page();
    let names = in_column(&page, "Python");
    assert!(names.len() > 90, "{names:?}");
    for name in names.iter().filter(|name| !name.starts_with("RCCL_") && **name != "None") {
        let parts: Vec<&str> = name.split('.').collect();
        let there = match parts[..] {
            [word] if word.starts_with('"') => words.contains(word),
            [given] if given.contains('=') => {
                let optional = |text: &str| {
                    let (name, rest) = text.trim_start().split_once(": ").unwrap_or_default();
                    given.split('=').next() == Some(name) && rest.contains(" = ")
                };
                signatures.split([',', '(', '\n']).any(optional)
            }
            ["rccl", name] => exported.contains(&format!("\"{name}\",")),
            ["nccl", class] => class_of(&low_level, class).is_some(),
            ["nccl", class, member] => has_member(&low_level, class, member),
            [class, member] => has_member(&stub, class, member),
            [class] if !is_lower(class) => class_of(&stub, class).is_some(),
            [method] => has_member(&stub, "Communicator", method),
            _ => false,
        };
        assert!(there, "`{name}` is none of the package's");
    }
}

/// The lines of a class of Python's, if there is one.
fn class_of<'a>(source: &'a str, class: &str) -> Option<impl Iterator<Item = &'a str>> {
    let begins = [format!("class {class}:"), format!("class {class}(")];
    let mut lines =
        source.lines().skip_while(move |line| !begins.iter().any(|begin| line.starts_with(begin)));
    lines.next()?;
    Some(lines.take_while(|line| line.is_empty() || line.starts_with(' ')))
}

/// Whether a class of Python's has a method or a property.
fn has_member(source: &str, class: &str, member: &str) -> bool {
    let begin = format!("    def {member}(");
    class_of(source, class).is_some_and(|mut lines| lines.any(|line| line.starts_with(&begin)))
}

/// The files of Rust below these folders.
fn sources(folders: &[&str]) -> Vec<String> {
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| workspace().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(read(path));
            }
        }
    }
    files
}

/// What is marked as code in the columns that have this title.
fn in_column<'a>(page: &'a str, title: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut place = None;
    for line in page.lines() {
        if !line.starts_with('|') {
            place = None;
            continue;
        }
        let mut cells = line.split('|');
        match place {
            Some(place) => {
                found.extend(cells.nth(place).into_iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)))
            }
            None => place = cells.position(|cell| cell.trim() == title),
        }
    }
    found
}

fn is_lower(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
}

/// As `f32` or `u8`.
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
