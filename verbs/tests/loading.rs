//! Every way in which libibverbs can be missing or wrong is one clear error, and none of them ends the process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rccl_verbs::{Library, LibraryError};
use tempfile::TempDir;

fn error(path: &Path) -> LibraryError {
    match Library::open(Some(path)) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

/// A shared library that is loaded into this very process, and is not libibverbs.
fn some_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    paths.find(|path| path.contains("libc.so") || path.contains("libc-")).expect("a C library").into()
}

/// Which functions have which version: as in libibverbs since 2008, and as before.
const TODAY: &str = "IBVERBS_1.0 { global: ibv_create_comp_channel; ibv_destroy_comp_channel; local: *; };
    IBVERBS_1.1 { global: ibv_*; } IBVERBS_1.0;";
const OF_2006: &str = "IBVERBS_1.0 { global: ibv_*; local: *; };";

/// A shared library that has these functions, of which none may be called. Links with what links Rust.
fn library_of(directory: &TempDir, functions: &[&str], versions: &str) -> PathBuf {
    let source = directory.path().join("stub.s");
    let script = directory.path().join("stub.map");
    let library = directory.path().join("libibverbs.so.1");
    let function = |name: &&str| format!(".globl {name}\n.type {name}, %function\n{name}:\n  .long 0\n");
    fs::write(&source, format!(".text\n{}", functions.iter().map(function).collect::<String>())).unwrap();
    fs::write(&script, versions).unwrap();
    let linked = Command::new("cc")
        .args(["-shared", "-nostdlib", "-o"])
        .arg(&library)
        .arg(&source)
        .arg(format!("-Wl,--version-script={}", script.display()))
        .output()
        .expect("cc, which links Rust programs too");
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
    library
}

const ALL: [&str; 26] = [
    "ibv_get_device_list",
    "ibv_free_device_list",
    "ibv_get_device_name",
    "ibv_get_device_guid",
    "ibv_open_device",
    "ibv_close_device",
    "ibv_query_device",
    "ibv_query_port",
    "ibv_query_pkey",
    "ibv_get_async_event",
    "ibv_ack_async_event",
    "ibv_alloc_pd",
    "ibv_dealloc_pd",
    "ibv_reg_mr",
    "ibv_dereg_mr",
    "ibv_create_comp_channel",
    "ibv_destroy_comp_channel",
    "ibv_create_cq",
    "ibv_destroy_cq",
    "ibv_get_cq_event",
    "ibv_ack_cq_events",
    "ibv_create_qp",
    "ibv_modify_qp",
    "ibv_query_qp",
    "ibv_destroy_qp",
    "ibv_fork_init",
];

#[test]
fn a_missing_file_is_told_with_what_to_install() {
    let error = error(Path::new("/nowhere/libibverbs.so.1"));
    assert!(matches!(error, LibraryError::Missing { .. }), "{error}");
    let message = error.to_string();
    for part in ["/nowhere/libibverbs.so.1", "No such file", "install libibverbs"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert_eq!(message.lines().count(), 1);
}

#[test]
fn a_truncated_library_is_told_and_not_mapped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("libibverbs.so.1");
    let whole = fs::read(some_library()).unwrap();
    for length in [0, 10, 64, 1000, whole.len() / 2, whole.len() * 3 / 4] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = error(&path);
        assert!(matches!(error, LibraryError::NotALibrary { .. }), "{length}: {error}");
    }
}

#[test]
fn a_text_is_no_library() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("libibverbs.so.1");
    fs::write(&path, "#!/bin/sh\nexec true, and some more to be longer than a header would be at all\n")
        .unwrap();
    let error = error(&path);
    assert!(matches!(error, LibraryError::NotALibrary { .. }), "{error}");
}

#[test]
fn another_library_is_foreign() {
    let error = error(&some_library());
    assert!(matches!(error, LibraryError::Foreign { .. }), "{error}");
}

#[test]
fn a_library_that_lacks_a_function_is_told_which() {
    let directory = tempfile::tempdir().unwrap();
    let most: Vec<&str> = ALL.into_iter().filter(|&name| name != "ibv_create_qp").collect();
    let error = error(&library_of(&directory, &most, TODAY));
    let LibraryError::MissingSymbol { symbol, .. } = &error else { panic!("{error}") };
    assert_eq!(symbol, "ibv_create_qp", "{error}");
}

#[test]
fn a_library_without_what_came_later_opens() {
    let directory = tempfile::tempdir().unwrap();
    let path = library_of(&directory, &ALL, TODAY);
    assert_eq!(Library::open(Some(&path)).unwrap().path(), path);
}

/// Functions of the binary interface of 2006 take other structures, and must not be called.
#[cfg(target_env = "gnu")]
#[test]
fn functions_of_the_old_interface_are_not_taken_for_todays() {
    let directory = tempfile::tempdir().unwrap();
    let error = error(&library_of(&directory, &ALL, OF_2006));
    let LibraryError::MissingSymbol { symbol, version, .. } = &error else { panic!("{error}") };
    assert_eq!((symbol.as_str(), *version), ("ibv_get_device_list", "IBVERBS_1.1"));
}

#[test]
fn a_library_that_needs_another_which_is_missing_is_refused_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let needed = directory.path().join("libneeded-by-rccl.so");
    let stub = library_of(&directory, &["ibv_fork_init"], TODAY);
    fs::rename(&stub, &needed).unwrap();
    let library = directory.path().join("libuser.so");
    let linked = Command::new("cc")
        .args(["-shared", "-nostdlib", "-Wl,--no-as-needed", "-o"])
        .arg(&library)
        .arg(directory.path().join("stub.s"))
        .arg(format!("-L{}", directory.path().display()))
        .arg("-lneeded-by-rccl")
        .output()
        .expect("cc, which links Rust programs too");
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
    fs::remove_file(&needed).unwrap();
    let error = error(&library);
    assert!(matches!(error, LibraryError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("libneeded-by-rccl.so"), "{error}");
}

/// What the loader would find by name is looked at too. In a process of its own, whose search path can be set.
#[test]
fn a_truncated_library_in_the_search_path_ends_no_process() {
    const CHILD: &str = "RCCL_TEST_OPEN_BY_NAME";
    if std::env::var_os(CHILD).is_some() {
        match Library::open(None) {
            Ok(library) => println!("opened {library:?}"),
            Err(error) => println!("refused: {error}"),
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(some_library()).unwrap();
    let path = directory.path().join("libibverbs.so.1");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_truncated_library_in_the_search_path_ends_no_process", "--nocapture"])
        .env(CHILD, "1")
        .env("LD_LIBRARY_PATH", directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{:?}: {text}", output.status);
    assert!(text.contains("refused: ") && text.contains("truncated"), "{text}");
}

/// Where libibverbs is installed, with or without devices.
#[test]
fn the_installed_library_opens_and_lists_devices() {
    let library = match Library::open(None) {
        Ok(library) => library,
        Err(error) => {
            assert!(std::env::var_os("RCCL_TEST_RDMA").is_none(), "{error}");
            eprintln!("skipped: {error}");
            return;
        }
    };
    eprintln!("fork support: {:?}", library.prepare_for_fork().unwrap());
    match library.devices() {
        Ok(devices) => eprintln!("{library:?} has {devices:?}"),
        Err(error) => eprintln!("{error}"),
    }
    if let Err(error) = library.device("no such device") {
        assert!(error.to_string().contains("no such device") || error.raw_os_error().is_some(), "{error}");
    }
}
