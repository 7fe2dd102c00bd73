//! The C library, shared and static, where compilers, pkg-config and CMake find it.
//!
//! The shared library is linked by the C compiler from the static one, not by rustc: rustc gives a library a version script of
//! its own, and linkers take one. So it has versioned symbols, those of `ffi/roceccl.map`, and a soname.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What Rust's standard library needs of the system, for those who link the static library.
const SYSTEM: &str = "-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where to.
#[derive(clap::Args)]
pub struct Options {
    /// The folder that gets lib, include and so on
    #[arg(long, value_name = "FOLDER", default_value = "/usr/local")]
    prefix: PathBuf,
    /// Put the files below this folder, as if it were the root: for packages
    #[arg(long, value_name = "FOLDER")]
    destdir: Option<PathBuf>,
    /// Build without optimisation
    #[arg(long)]
    debug: bool,
}

/// Builds and installs; the error is a sentence.
pub fn run(options: &Options) -> Result<(), String> {
    // As cargo says now: the folder may have been moved since this was built.
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = Path::new(&own).parent().ok_or("the workspace has no folder")?;
    let prefix =
        std::path::absolute(&options.prefix).map_err(|error| failed("looking at", &options.prefix, error))?;
    let to = match &options.destdir {
        Some(destdir) => destdir.join(prefix.strip_prefix("/").unwrap_or(&prefix)),
        None => prefix.clone(),
    };
    let archive = build(root, options.debug)?;
    let soversion = &interface(root)?;
    let library = to.join("lib");
    // Never where programs look by themselves: a GPU's NCCL has the same names.
    let nccl = library.join("roceccl/nccl");
    for folder in
        [&nccl, &to.join("include/roceccl/nccl"), &library.join("pkgconfig"), &library.join("cmake/roceccl")]
    {
        std::fs::create_dir_all(folder).map_err(|error| failed("making", folder, error))?;
    }
    let put = |from: &Path, to: &Path| {
        std::fs::copy(from, to).map(drop).map_err(|error| failed("writing", to, error))?;
        println!("{}", to.display());
        Ok::<_, String>(())
    };
    put(&root.join("ffi/include/roceccl.h"), &to.join("include/roceccl.h"))?;
    put(&archive, &library.join("libroceccl.a"))?;
    let shared = library.join(format!("libroceccl.so.{VERSION}"));
    link(root, &archive, &shared, soversion)?;
    println!("{}", shared.display());
    put(&root.join("ffi/nccl/nccl.h"), &to.join("include/roceccl/nccl/nccl.h"))?;
    let soname = format!("libroceccl.so.{soversion}");
    let nccl_library = nccl.join("libnccl.so.2");
    link_nccl(root, &shared, &nccl_library)?;
    println!("{}", nccl_library.display());
    for (place, target) in [
        (library.join(&soname), format!("libroceccl.so.{VERSION}")),
        (library.join("libroceccl.so"), soname),
        (nccl.join("libnccl.so"), "libnccl.so.2".into()),
    ] {
        match std::fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("replacing", &place, error));
            }
            _ => std::os::unix::fs::symlink(target, &place)
                .map_err(|error| failed("writing", &place, error))?,
        }
        println!("{}", place.display());
    }
    for (template, place) in [
        ("roceccl.pc.in", "pkgconfig/roceccl.pc"),
        ("nccl/roceccl-nccl.pc.in", "pkgconfig/roceccl-nccl.pc"),
        ("rocecclConfig.cmake.in", "cmake/roceccl/rocecclConfig.cmake"),
        ("rocecclConfigVersion.cmake.in", "cmake/roceccl/rocecclConfigVersion.cmake"),
    ] {
        let (template, place) = (root.join("ffi").join(template), library.join(place));
        let text = std::fs::read_to_string(&template).map_err(|error| failed("reading", &template, error))?;
        let text = text
            .replace("@prefix@", &prefix.display().to_string())
            .replace("@version@", VERSION)
            .replace("@soversion@", soversion)
            .replace("@private@", SYSTEM);
        std::fs::write(&place, text).map_err(|error| failed("writing", &place, error))?;
        println!("{}", place.display());
    }
    Ok(())
}

/// The number of the C interface, which is the version of its symbols and of the soname.
fn interface(root: &Path) -> Result<String, String> {
    let map = root.join("ffi/roceccl.map");
    let text = std::fs::read_to_string(&map).map_err(|error| failed("reading", &map, error))?;
    let number = text.lines().find_map(|line| line.strip_prefix("ROCECCL_")?.strip_suffix(" {"));
    number.map(str::to_owned).ok_or_else(|| format!("{} names no version ROCECCL_", map.display()))
}

/// Builds the static library; where it lies.
fn build(root: &Path, debug: bool) -> Result<PathBuf, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "--package", "rccl-ffi"]);
    if !debug {
        cargo.arg("--release");
    }
    ended(&mut cargo)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(if debug { "debug" } else { "release" }).join("libroceccl.a"))
}

fn link(root: &Path, archive: &Path, shared: &Path, soversion: &str) -> Result<(), String> {
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    compiler.arg("-shared").arg("-o").arg(shared);
    compiler.arg(format!("-Wl,-soname,libroceccl.so.{soversion}"));
    compiler.arg(format!("-Wl,--version-script={}", root.join("ffi/roceccl.map").display()));
    // All that the interface has, and of the rest what that needs; nothing may be left for the program to have.
    compiler.args(["-Wl,--whole-archive".as_ref(), archive.as_os_str(), "-Wl,--no-whole-archive".as_ref()]);
    compiler.args(["-Wl,--gc-sections", "-Wl,--no-undefined", "-Wl,-z,relro", "-Wl,-z,now"]);
    compiler.args(SYSTEM.split(' '));
    ended(&mut compiler)
}

/// NCCL's functions, by those of the shared library, which is found two folders above.
fn link_nccl(root: &Path, shared: &Path, nccl: &Path) -> Result<(), String> {
    let ffi = root.join("ffi");
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    compiler.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-pthread", "-shared", "-o"]).arg(nccl);
    compiler.arg("-I").arg(ffi.join("include")).arg(ffi.join("nccl/nccl.c"));
    compiler.args([
        "-Wl,-soname,libnccl.so.2",
        "-Wl,-rpath,$ORIGIN/../..",
        "-Wl,--no-undefined",
        "-Wl,-z,relro",
    ]);
    compiler.arg(format!("-Wl,--version-script={}", ffi.join("nccl/nccl.map").display())).arg(shared);
    ended(&mut compiler)
}

fn ended(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} failed: {status}", command.get_program().display())),
        Err(error) => Err(format!("{} cannot be started: {error}", command.get_program().display())),
    }
}

fn failed(doing: &str, place: &Path, error: io::Error) -> String {
    format!("{doing} {}: {error}", place.display())
}
