//! Opening libibverbs and finding its functions by version.
//!
//! Most functions of libibverbs exist twice, as IBVERBS_1.0 (binary interface of 2006, with other structures) and
//! IBVERBS_1.1; a search without a version may answer with either. Functions that came later carry the version of the
//! library that brought them, and may be absent.

use std::ffi::{CStr, CString, OsStr, c_void};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use super::elf;
use crate::error::LibraryError;

/// The library's name where no path is given: with its version, since nothing else is there without headers.
pub(crate) const DEFAULT_NAME: &str = "libibverbs.so.1";

/// A function, the version of it that the bindings describe, and the release of rdma-core that brought it; `None` for
/// what is always there, and whose absence makes the library unusable.
pub(super) struct Version {
    pub(super) name: &'static CStr,
    version: &'static CStr,
    since: Option<&'static str>,
}

const fn always(name: &'static CStr) -> Version {
    Version { name, version: c"IBVERBS_1.1", since: None }
}

const fn later(name: &'static CStr, version: &'static CStr, since: &'static str) -> Version {
    Version { name, version, since: Some(since) }
}

/// Versions as in libibverbs.map of rdma-core 44.
pub(super) const VERSIONS: [Version; 32] = [
    always(c"ibv_get_device_list"),
    always(c"ibv_free_device_list"),
    always(c"ibv_get_device_name"),
    always(c"ibv_get_device_guid"),
    always(c"ibv_open_device"),
    always(c"ibv_close_device"),
    always(c"ibv_query_device"),
    always(c"ibv_query_port"),
    always(c"ibv_query_pkey"),
    always(c"ibv_get_async_event"),
    always(c"ibv_ack_async_event"),
    always(c"ibv_alloc_pd"),
    always(c"ibv_dealloc_pd"),
    always(c"ibv_reg_mr"),
    always(c"ibv_dereg_mr"),
    Version { name: c"ibv_create_comp_channel", version: c"IBVERBS_1.0", since: None },
    Version { name: c"ibv_destroy_comp_channel", version: c"IBVERBS_1.0", since: None },
    always(c"ibv_create_cq"),
    always(c"ibv_destroy_cq"),
    always(c"ibv_get_cq_event"),
    always(c"ibv_ack_cq_events"),
    always(c"ibv_create_qp"),
    always(c"ibv_modify_qp"),
    always(c"ibv_query_qp"),
    always(c"ibv_destroy_qp"),
    always(c"ibv_fork_init"),
    later(c"ibv_reg_mr_iova2", c"IBVERBS_1.8", "28"),
    later(c"ibv_query_ece", c"IBVERBS_1.10", "31"),
    later(c"ibv_set_ece", c"IBVERBS_1.10", "31"),
    later(c"_ibv_query_gid_table", c"IBVERBS_1.11", "32"),
    later(c"ibv_reg_dmabuf_mr", c"IBVERBS_1.12", "34"),
    later(c"ibv_is_fork_initialized", c"IBVERBS_1.13", "35"),
];

/// An optional function that the library does not have.
pub(crate) type Error = LibraryError;

/// An open libibverbs. It is never closed: it keeps threads' data and the providers that it has loaded, and code that
/// is unmapped under them would crash the process.
pub(crate) struct Library {
    handle: NonNull<c_void>,
    path: PathBuf,
}

// SAFETY: the handle is a name for the loader, whose functions may be called from any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Opens the library and checks that everything that is always there is there.
    ///
    /// # Safety
    ///
    /// Opening runs the initialisers of the file, which must be harmless.
    pub(super) unsafe fn new(path: impl AsRef<OsStr>) -> Result<Library, LibraryError> {
        let path = PathBuf::from(path.as_ref());
        elf::check(&path)?;
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| LibraryError::Missing {
            path: path.clone(),
            detail: "the path holds a zero byte".into(),
        })?;
        // SAFETY: the name ends with a zero byte; the caller vouches for the initialisers.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let Some(handle) = NonNull::new(handle) else { return Err(refused(path)) };
        let library = Library { handle, path };
        match check(&library.path, |symbol| library.find(symbol).is_some()) {
            Ok(()) => Ok(library),
            Err(error) => {
                // SAFETY: the handle was just opened and nothing of it is in use.
                unsafe { libc::dlclose(handle.as_ptr()) };
                Err(error)
            }
        }
    }

    /// What the generated bindings call for each of their functions: its address, as a function of type `F`.
    ///
    /// # Safety
    ///
    /// `F` is the type of a pointer to that function.
    pub(super) unsafe fn get<F: Copy>(&self, name: &[u8]) -> Result<Symbol<F>, LibraryError> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        // A test holds this table against the bindings, so the name is there.
        let symbol = VERSIONS.iter().find(|symbol| symbol.name.to_bytes_with_nul() == name);
        let address = symbol.and_then(|symbol| self.find(symbol));
        let Some(address) = address else {
            return Err(LibraryError::MissingSymbol {
                path: self.path.clone(),
                symbol: String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned(),
                version: symbol.map_or("", |symbol| text(symbol.version)),
                since: symbol.and_then(|symbol| symbol.since),
            });
        };
        // SAFETY: a pointer to a function is as large as one to data (asserted above), and the caller says of which type.
        Ok(Symbol(unsafe { std::mem::transmute_copy(&address) }))
    }

    fn find(&self, symbol: &Version) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is open, and both strings end with a zero byte.
        #[cfg(target_env = "gnu")]
        let address =
            unsafe { libc::dlvsym(self.handle.as_ptr(), symbol.name.as_ptr(), symbol.version.as_ptr()) };
        // Other C libraries know no versions when they search; theirs is the only one there is.
        // SAFETY: the handle is open, and the name ends with a zero byte.
        #[cfg(not(target_env = "gnu"))]
        let address = unsafe { libc::dlsym(self.handle.as_ptr(), symbol.name.as_ptr()) };
        NonNull::new(address)
    }
}

/// What the generated bindings expect of a search: something that points at the function.
pub(super) struct Symbol<F>(F);

impl<F> Deref for Symbol<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.0
    }
}

/// Whether a library with these symbols is a libibverbs, and one that is new enough.
fn check(path: &Path, has: impl Fn(&Version) -> bool) -> Result<(), LibraryError> {
    let missing: Vec<&Version> =
        VERSIONS.iter().filter(|symbol| symbol.since.is_none() && !has(symbol)).collect();
    let needed = VERSIONS.iter().filter(|symbol| symbol.since.is_none()).count();
    match missing.first() {
        None => Ok(()),
        Some(_) if missing.len() == needed => Err(LibraryError::Foreign { path: path.into() }),
        Some(first) => Err(LibraryError::MissingSymbol {
            path: path.into(),
            symbol: text(first.name).into(),
            version: text(first.version),
            since: None,
        }),
    }
}

/// The reason why the loader opened nothing.
fn refused(path: PathBuf) -> LibraryError {
    // SAFETY: the answer is of this thread, and null or a string.
    let answer = unsafe { libc::dlerror() };
    let detail = if answer.is_null() {
        "the loader gave no reason".into()
    } else {
        // SAFETY: the loader's string ends with a zero byte and lives until the next call of this thread.
        unsafe { CStr::from_ptr(answer) }.to_string_lossy().into_owned()
    };
    // The loader starts with the file that it means: another name than ours is a library that ours needs.
    let ours = detail.strip_prefix(&*path.to_string_lossy()).is_some_and(|rest| rest.starts_with(':'));
    if ours && detail.contains("No such file") {
        LibraryError::Missing { path, detail }
    } else {
        LibraryError::Refused { path, detail }
    }
}

/// The names and versions above are ASCII.
const fn text(constant: &'static CStr) -> &'static str {
    match constant.to_str() {
        Ok(text) => text,
        Err(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bindings search for exactly the functions whose version is known.
    #[test]
    fn every_function_has_a_version() {
        let bindings = include_str!("bindings.rs");
        let mut searched: Vec<&str> =
            bindings.split(".get(b\"").skip(1).filter_map(|rest| rest.split("\\0").next()).collect();
        let mut known: Vec<&str> = VERSIONS.iter().map(|symbol| text(symbol.name)).collect();
        searched.sort_unstable();
        known.sort_unstable();
        assert_eq!(searched, known);
    }

    #[test]
    fn a_library_without_any_symbol_is_foreign() {
        let error = check(Path::new("/lib/libother.so"), |_| false).unwrap_err();
        assert!(matches!(error, LibraryError::Foreign { .. }), "{error}");
    }

    #[test]
    fn the_first_symbol_that_is_missing_is_named_with_its_version() {
        let error = check(Path::new("/lib/libibverbs.so.1"), |symbol| symbol.name != c"ibv_modify_qp");
        let message = error.unwrap_err().to_string();
        assert!(message.contains("ibv_modify_qp") && message.contains("IBVERBS_1.1"), "{message}");
    }

    #[test]
    fn what_came_later_may_be_missing() {
        check(Path::new("libibverbs.so.1"), |symbol| symbol.since.is_none()).unwrap();
    }
}
