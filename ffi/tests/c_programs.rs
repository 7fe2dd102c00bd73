//! What C programs see: the library as `cargo xtask install` puts it under a prefix, found by its pkg-config file, and programs
//! that know no Rust. Every exported function is called by `c/every.c`.

mod install;

use install::{have, installed, run, said};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A line of a pkg-config file, its variables filled in.
fn of(package: &str, name: &str) -> Vec<String> {
    let prefix = installed();
    let text = std::fs::read_to_string(prefix.join("lib/pkgconfig").join(package)).expect("the file");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).expect(name);
    let root = prefix.display().to_string();
    let of_nccl = if package == "roceccl.pc" { "" } else { "/roceccl/nccl" };
    let line = line.replace("${libdir}", &format!("${{prefix}}/lib{of_nccl}"));
    let line = line.replace("${includedir}", &format!("${{prefix}}/include{of_nccl}"));
    line.replace("${prefix}", &root).split(' ').map(str::to_owned).collect()
}

fn of_package(name: &str) -> Vec<String> {
    of("roceccl.pc", name)
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(name)
}

/// Compiles a program as a user would; `how` goes before its libraries.
fn compiled(compiler: &str, how: &[&str], name: &str, folder: &Path, libraries: &[String]) -> PathBuf {
    let program = folder.join(name).with_extension("");
    let mut command = Command::new(compiler);
    command
        .args(how)
        .args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-o"])
        .arg(&program)
        .arg(source(name));
    said(command.args(of_package("Cflags")).args(libraries));
    program
}

#[test]
fn every_function_works_from_c() {
    let folder = tempfile::tempdir().unwrap();
    let program = compiled("cc", &["-std=c99"], "every.c", folder.path(), &of_package("Libs"));
    for ranks in [2, 3, 4] {
        assert_eq!(run(&program, &[], ranks), vec!["every function: right\n"; ranks]);
    }
}

/// The static library, by a compiler of C++.
#[test]
fn every_function_works_from_cpp() {
    if !have(&["c++"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let archive = installed().join("lib/libroceccl.a").display().to_string();
    let libraries = [vec!["-x".into(), "none".into(), archive], of_package("Libs.private")].concat();
    let program = compiled("c++", &["-std=c++11", "-x", "c++"], "every.c", folder.path(), &libraries);
    assert_eq!(run(&program, &[], 2), vec!["every function: right\n"; 2]);
}

#[test]
fn the_library_exports_what_the_header_declares_and_every_c_calls() {
    let header = std::fs::read_to_string(installed().join("include/roceccl.h")).unwrap();
    let every = std::fs::read_to_string(source("every.c")).unwrap();
    let calls = |text: &str| -> BTreeSet<String> {
        let words = text
            .split(|c: char| !c.is_ascii_alphanumeric())
            .zip(text.match_indices(|c: char| !c.is_ascii_alphanumeric()));
        let called = words.filter(|(word, (_, after))| word.starts_with("rccl") && *after == "(");
        called.map(|(word, _)| word.to_owned()).collect()
    };
    let declared = calls(&header);
    assert!(declared.len() > 40, "{declared:?}");
    assert_eq!(declared.difference(&calls(&every)).collect::<Vec<_>>(), Vec::<&String>::new(), "not called");
    let exported =
        said(Command::new("nm").args(["-D", "--defined-only"]).arg(installed().join("lib/libroceccl.so")));
    let exported = exported.lines().filter_map(|line| line.split(' ').nth(2));
    let exported: BTreeSet<&str> = exported.filter(|name| *name != "ROCECCL_0").collect();
    let versioned: BTreeSet<String> = declared.iter().map(|name| format!("{name}@@ROCECCL_0")).collect();
    assert_eq!(exported, versioned.iter().map(String::as_str).collect());
}

#[test]
fn programs_for_nccl_compile_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let libraries =
        [of("roceccl-nccl.pc", "Cflags"), of("roceccl-nccl.pc", "Libs"), of_package("Libs")].concat();
    let languages: [(&str, &[&str]); 2] = [("cc", &["-std=c99"]), ("c++", &["-std=c++11", "-x", "c++"])];
    for (compiler, language) in languages.into_iter().filter(|(compiler, _)| have(&[compiler])) {
        let libraries = [vec!["-x".into(), "none".into()], libraries.clone()].concat();
        let program = compiled(compiler, language, "nccl.c", folder.path(), &libraries);
        assert_eq!(run(&program, &[], 1), ["NCCL's interface: right\n"]);
    }
}

/// By the line of docs/coming-from.md and nothing besides, a process a rank, each told its rank by its arguments.
#[test]
fn programs_for_nccl_need_one_line_and_nothing_of_rccl() {
    if !have(&["pkg-config"]) {
        return;
    }
    let page = include_str!("../../docs/coming-from.md");
    let line =
        page.lines().find(|line| line.starts_with("cc ") && line.contains("roceccl-nccl")).expect("a line");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(source("nccl_ranks.c"), folder.path().join("program.c")).unwrap();
    let mut shell = Command::new("sh");
    shell.current_dir(folder.path()).env_remove("LD_LIBRARY_PATH");
    said(shell.args(["-c", line]).env("PKG_CONFIG_PATH", installed().join("lib/pkgconfig")));
    let start =
        "rank=$RCCL_RANK size=$RCCL_SIZE; unset RCCL_RANK RCCL_SIZE RCCL_COMM_ID RCCL_KEY LD_LIBRARY_PATH
        exec \"$0/a.out\" $rank $size \"$0/id.$size\"";
    for ranks in [2, 3] {
        let said = run(Path::new("sh"), &["-c", start, folder.path().to_str().unwrap()], ranks);
        assert_eq!(said, vec!["NCCL alone: right\n"; ranks]);
    }
}

/// As most programs for NCCL are.
#[test]
fn the_header_of_nccl_is_one_of_cpp() {
    if !have(&["c++"]) {
        return;
    }
    let header = installed().join("include/roceccl/nccl/nccl.h");
    let how = ["-std=c++11", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-x", "c++"];
    said(Command::new("c++").args(how).arg(header));
}

/// Of NCCL 2.29, by the version that they came with, without their prefix.
const OF_NCCL: &str = "
    GetUniqueId CommInitRank CommInitAll CommDestroy CommCount CommCuDevice CommUserRank GetErrorString GetVersion Reduce
    Bcast Broadcast AllReduce ReduceScatter AllGather GroupStart GroupEnd
    CommAbort CommGetAsyncError Send Recv RedOpCreatePreMulSum RedOpDestroy GetLastError CommInitRankConfig CommFinalize
    CommSplit CommRegister CommDeregister MemAlloc MemFree GroupSimulateEnd CommInitRankScalable ResetDebugInit
    CommShrink CommWindowRegister CommWindowDeregister AlltoAll Gather Scatter CommRevoke
    CommGrow CommGetUniqueId PutSignal Signal WaitSignal WinGetUserPtr CommSuspend CommResume CommMemStats";

/// Programs for NCCL that include CUDA's headers too have the type of streams from there.
#[test]
fn the_header_of_nccl_goes_with_those_of_cuda() {
    if !have(&["cc"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let cuda = "#define __CUDA_RUNTIME_API_H__\ntypedef struct CUstream_st *cudaStream_t;\n";
    std::fs::write(place.path().join("cuda_runtime_api.h"), cuda).unwrap();
    let program = "#include <cuda_runtime_api.h>\n#include <nccl.h>\n\
        cudaStream_t one;\nncclResult_t (*of)(ncclComm_t, int *) = ncclCommCount;\n";
    std::fs::write(place.path().join("program.c"), program).unwrap();
    let headers = [installed().join("include/roceccl/nccl"), place.path().to_owned()];
    let mut compiler = Command::new("cc");
    // Before C11 a type that is defined twice is an error.
    compiler.args(["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]);
    headers.iter().for_each(|folder| {
        compiler.arg("-I").arg(folder);
    });
    said(compiler.arg(place.path().join("program.c")));
}

/// Both names of every function of the header, without versions, as those of NVIDIA's library.
#[test]
fn nccl_has_every_function_by_both_names() {
    let library = installed().join("lib/roceccl/nccl/libnccl.so.2");
    let symbols = said(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    let exported: BTreeSet<&str> = symbols.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let place =
        |name: &str| symbols.lines().find(|line| line.ends_with(&format!(" {name}"))).map(|line| &line[..16]);
    let program = std::fs::read_to_string(source("nccl.c")).unwrap();
    let functions: Vec<&str> = exported.iter().copied().filter(|name| name.starts_with("nccl")).collect();
    let expected: BTreeSet<String> = OF_NCCL.split_whitespace().map(|name| format!("nccl{name}")).collect();
    assert_eq!(functions, expected.iter().map(String::as_str).collect::<Vec<_>>());
    let header = std::fs::read_to_string(installed().join("include/roceccl/nccl/nccl.h")).unwrap();
    for name in &functions {
        assert!(exported.contains(format!("p{name}").as_str()), "{name} has one name only");
        assert_eq!(place(name), place(&format!("p{name}")), "{name} is two functions");
        assert!(program.contains(&format!("{name}(")), "{name} is not called");
        assert!(header.contains(&format!(", {name},")), "{name} is not declared");
    }
    assert_eq!(exported.len(), 100, "and nothing else: {exported:?}");
}
