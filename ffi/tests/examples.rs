//! The examples in C and C++, built and started as their users do: by pkg-config, make and CMake, under mpirun and without a
//! launcher.

mod install;

use install::{have, installed, run, said};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The examples' sources, where programs may be built beside them.
struct Examples {
    folder: TempDir,
}

impl Examples {
    /// None where one of the tools is missing.
    fn with(tools: &[&str]) -> Option<Examples> {
        if !have(tools) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let examples =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("examples");
        for language in ["c", "cpp"] {
            let to = folder.path().join(language);
            std::fs::create_dir(&to).expect("a folder");
            for file in std::fs::read_dir(examples.join(language)).expect("the sources") {
                let file = file.expect("a source");
                if file.file_type().expect("its type").is_file() {
                    std::fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
                }
            }
        }
        Some(Examples { folder })
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program that make builds.
    fn made(&self, language: &str, name: &str) -> PathBuf {
        let mut make = self.command("make");
        said(make.args(["-C", language, name, "CFLAGS=-O2 -Werror", "CXXFLAGS=-O2 -Werror"]));
        self.place(language).join(name)
    }

    /// Runs in the folder of the examples, and finds the library.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("PKG_CONFIG_PATH", installed().join("lib/pkgconfig"));
        command.env("LD_LIBRARY_PATH", installed().join("lib"));
        command
    }

    /// What a program writes that nobody launches: one rank.
    fn alone(&self, program: &Path, arguments: &[&str]) -> String {
        said(self.command("timeout").arg("120").arg(program).args(arguments))
    }

    /// What four ranks write together.
    fn under_mpirun(&self, program: &Path, arguments: &[&str]) -> String {
        let mut mpirun = self.command("timeout");
        // Each version of Open MPI has its own name for more ranks than cores.
        mpirun.env("OMPI_MCA_rmaps_base_oversubscribe", "1");
        mpirun.env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
        mpirun.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        said(mpirun.args(["120", "mpirun", "-n", "4"]).arg(program).args(arguments))
    }
}

fn digits() -> String {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/digits.bin");
    examples.to_str().expect("a path in Unicode").to_owned()
}

/// Loss and accuracy (percent) of each epoch.
fn curve(said: &str) -> Vec<(f64, f64)> {
    let epoch = |line: &str| {
        let (loss, accuracy) =
            line.strip_prefix("epoch")?.split_once("loss ")?.1.split_once("  test accuracy ")?;
        Some((loss.parse().ok()?, accuracy.strip_suffix(" %")?.parse().ok()?))
    };
    said.lines().filter_map(epoch).collect()
}

/// What each rank says that its weights are at the end.
fn weights(said: &str) -> Vec<&str> {
    said.lines().filter_map(|line| line.split_once(": weights ")).map(|(_, weights)| weights).collect()
}

#[test]
fn one_line_builds_a_program_that_mpirun_starts() {
    let Some(examples) = Examples::with(&["pkg-config", "mpirun"]) else { return };
    let line = "cc c/sum.c -o sum $(pkg-config --cflags --libs roceccl)";
    said(examples.command("sh").args(["-c", line]));
    let output = examples.under_mpirun(&examples.place("sum"), &[]);
    for rank in 0..4 {
        let right = format!("rank {rank} of 4: all sums are right");
        assert!(output.lines().any(|line| line == right), "{output}");
    }
}

#[test]
fn ranks_in_c_learn_together_what_one_learns_alone() {
    let Some(examples) = Examples::with(&["pkg-config", "make"]) else { return };
    let program = examples.made("c", "digits");
    let data = digits();
    let alone = curve(&examples.alone(&program, &[&data]));
    assert_eq!(alone.len(), 30, "a line an epoch");
    assert_eq!(alone[29].1, 98.06, "as every training on these data ends");
    let four = run(&program, &[&data], 4);
    let together = curve(&four[0]);
    assert_eq!(together.len(), 30);
    assert!(together[29].0 < together[0].0 / 10.0, "{together:?}");
    for ((one, _), (many, _)) in alone.iter().zip(&together) {
        // Rounding differs, and nothing else.
        assert!((one - many).abs() <= 2e-6 + 1e-4 * one, "{one} alone, {many} on four ranks");
    }
    let all: Vec<&str> = four.iter().flat_map(|said| weights(said)).collect();
    assert_eq!(all, [all[0]; 4], "all ranks end with the same");
}

#[test]
fn ranks_in_c_learn_under_mpirun() {
    let Some(examples) = Examples::with(&["pkg-config", "make", "mpirun"]) else { return };
    let program = examples.made("c", "digits");
    let output = examples.under_mpirun(&program, &[&digits(), "3"]);
    let curve = curve(&output);
    assert_eq!(curve.len(), 3, "{output}");
    assert!(curve[2].0 < curve[0].0 / 2.0, "{output}");
    let weights = weights(&output);
    assert_eq!(weights, [weights[0]; 4], "{output}");
}

/// The gradients are checked by the program itself, to the bit and against one rank's.
#[test]
fn streams_in_cpp_give_what_waiting_gives() {
    let Some(examples) = Examples::with(&["pkg-config", "make", "mpirun"]) else { return };
    let program = examples.made("cpp", "overlap");
    let arguments = [&*digits(), "2", "32"];
    for ranks in [1, 2, 3] {
        is_overlap(&run(&program, &arguments, ranks)[0], ranks);
    }
    is_overlap(&examples.under_mpirun(&program, &arguments), 4);
}

#[test]
fn cmake_finds_the_package() {
    let Some(examples) = Examples::with(&["cmake"]) else { return };
    let prefix = format!("-DCMAKE_PREFIX_PATH={}", installed().display());
    for (build, target) in [("build", "roceccl::roceccl"), ("build-static", "roceccl::roceccl_static")] {
        let target = format!("-DROCECCL={target}");
        said(examples.command("cmake").args(["-S", "cpp", "-B", build, &prefix, &target]));
        said(examples.command("cmake").args(["--build", build]));
        is_overlap(&run(&examples.place(&format!("{build}/overlap")), &[&digits(), "2", "32"], 2)[0], 2);
    }
}

fn is_overlap(said: &str, ranks: usize) {
    let losses = said.lines().filter_map(|line| line.split_once("  loss ")?.1.parse::<f64>().ok());
    let losses: Vec<f64> = losses.collect();
    assert!(losses.len() == 2 && losses[1] < losses[0], "{said}");
    assert!(said.contains(&format!("{ranks} rank(s), ")) && said.contains(" ms overlapped\n"), "{said}");
    assert!(said.contains("gradients are equal, and right\n"), "{said}");
}

/// By standard error of the C program and the exception of the C++ one.
#[test]
fn what_the_library_says_reaches_the_user() {
    let Some(examples) = Examples::with(&["pkg-config", "make"]) else { return };
    for (language, name) in [("c", "sum"), ("c", "digits"), ("cpp", "overlap")] {
        let program = examples.made(language, name);
        let mut command = examples.command(program.to_str().expect("a path in Unicode"));
        if name != "sum" {
            command.arg(digits());
        }
        let output = command.env("RCCL_ALGO", "rng").output().expect("the program starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
        assert!(error.contains("RCCL_ALGO=rng") && error.contains("did you mean `ring`?"), "{name}: {error}");
    }
}
