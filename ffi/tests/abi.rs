//! What the headers promise to programs that are compiled already, against `ffi/abi/`: a change of a number, a layout or a
//! function's form there is one that such programs would meet. What only adds is recorded with `WRITE_ABI=1`; what breaks also
//! raises the number in `roceccl.map`, of which the soname is made (CONTRIBUTING.md).

mod install;

use install::said;
use std::path::{Path, PathBuf};
use std::process::Command;

fn ffi(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A header's macros with a value, types and functions, one in a line, as the preprocessor gives them.
fn promised(header: &Path) -> String {
    let preprocessed = said(Command::new("cc").args(["-E", "-dD", "-std=c99"]).arg(header));
    let mut own = false;
    let (mut lines, mut declaration, mut depth) = (Vec::new(), String::new(), 0);
    for line in preprocessed.lines() {
        // Lines that say which file the next ones are of.
        if let Some(place) = line.strip_prefix("# ") {
            own = place.contains(&header.display().to_string());
        } else if !own {
        } else if let Some(macro_) = line.strip_prefix("#define ") {
            // Those without a value guard against a second inclusion.
            if macro_.trim().contains(' ') {
                lines.push(words(line));
            }
        } else if !line.starts_with('#') {
            declaration += line;
            declaration.push(' ');
            depth += line.matches('{').count() as i32 - line.matches('}').count() as i32;
            if depth == 0 && line.trim_end().ends_with(';') {
                lines.push(words(&std::mem::take(&mut declaration)));
            }
        }
    }
    assert_eq!(declaration.trim(), "", "a declaration that does not end");
    lines.join("\n") + "\n"
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The layouts of a header's types by the C compiler: sizes and offsets.
fn layouts(header: &Path, types: &[(&str, &[&str])]) -> String {
    let mut program = format!(
        "#include \"{}\"\n#include <stdio.h>\n#include <stddef.h>\nint main(void) {{\n",
        header.display()
    );
    for (name, fields) in types {
        program += &format!("printf(\"sizeof {name} %d\\n\", (int)sizeof({name}));\n");
        for field in *fields {
            program += &format!("printf(\"{name}.{field} at %d\\n\", (int)offsetof({name}, {field}));\n");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, compiled) = (folder.path().join("layouts.c"), folder.path().join("layouts"));
    std::fs::write(&source, program + "return 0; }\n").unwrap();
    said(Command::new("cc").arg(&source).arg("-o").arg(&compiled));
    said(&mut Command::new(compiled))
}

/// The record and the headers are the same.
fn kept(record: &str, header: &str, types: &[(&str, &[&str])]) {
    let (header, record) = (ffi(header), ffi(record));
    let now = promised(&header) + &layouts(&header, types);
    if std::env::var_os("WRITE_ABI").is_some() {
        std::fs::write(&record, &now).unwrap();
    }
    let recorded = std::fs::read_to_string(&record).unwrap();
    let gone: Vec<&str> = recorded.lines().filter(|line| !now.lines().any(|new| new == *line)).collect();
    let new: Vec<&str> = now.lines().filter(|line| !recorded.lines().any(|old| old == *line)).collect();
    assert!(gone.is_empty() && new.is_empty(), "gone or changed: {gone:#?}\nnew: {new:#?}");
    assert_eq!(now, recorded, "the order of declarations changed");
}

#[test]
fn roceccl_h_is_as_recorded() {
    let config =
        ["size", "magic", "version", "blocking", "timeoutMs", "initTimeoutMs", "reproducible", "commName"];
    kept(
        "abi/roceccl.txt",
        "include/roceccl.h",
        &[
            ("rcclUniqueId", &["internal"]),
            ("rcclConfig_t", &config),
            ("rcclResult_t", &[]),
            ("rcclDataType_t", &[]),
            ("rcclWaitSignalDesc_t", &["opCnt", "peer", "sigIdx", "ctx"]),
        ],
    );
}

#[test]
fn nccl_h_is_as_recorded() {
    kept(
        "abi/nccl.txt",
        "nccl/nccl.h",
        &[("ncclUniqueId", &["internal"]), ("ncclConfig_t", &["magic", "numRmaCtx"]), ("ncclResult_t", &[])],
    );
}

/// One number says which programs the library fits: the symbols' version, the soname and what `rccl --version` tells.
#[test]
fn there_is_one_number_of_the_interface() {
    let map = std::fs::read_to_string(ffi("roceccl.map")).unwrap();
    let number =
        map.lines().find_map(|line| line.strip_prefix("ROCECCL_")?.strip_suffix(" {")).expect("a version");
    let dynamic = said(Command::new("readelf").arg("-d").arg(install::installed().join("lib/libroceccl.so")));
    assert!(dynamic.contains(&format!("soname: [libroceccl.so.{number}]")), "{dynamic}");
    assert_eq!(number, rccl::ABI.to_string());
}
