//! The six functions of libpmix that a meeting needs, with our own declarations of what they take.
//!
//! The layouts are those of the PMIx standard 2 to 5, which keeps them for the library's soname: `pmix_proc_t` is a
//! 256-byte name and a rank; `pmix_value_t` is a 16-bit type and, from byte 8, a union; `pmix_info_t` is a 512-byte key,
//! flags and a value. The union grew over the versions, to 24 bytes so far; ours is larger than any, which is harmless
//! because no array of more than one is ever passed.

use libloading::Library;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::fmt;
use std::path::Path;
use std::ptr;
use std::time::Instant;

const SUCCESS: c_int = 0;
const RANK_WILDCARD: u32 = u32::MAX - 1;
const SCOPE_GLOBAL: u8 = 3;
const TYPE_STRING: u16 = 3;
const TYPE_INT: u16 = 6;
const TYPE_UINT32: u16 = 14;

#[repr(C)]
struct Proc {
    space: [c_char; 256],
    rank: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Value {
    kind: u16,
    data: Data,
}

#[repr(C)]
#[derive(Clone, Copy)]
union Data {
    integer: c_int,
    uint32: u32,
    string: *mut c_char,
    room: [u64; 8],
}

#[repr(C)]
struct Info {
    key: [c_char; 512],
    flags: u32,
    value: Value,
}

const _: () = {
    assert!(size_of::<Proc>() == 260);
    assert!(std::mem::offset_of!(Proc, rank) == 256);
    assert!(std::mem::offset_of!(Value, kind) == 0);
    assert!(std::mem::offset_of!(Value, data) == 8);
    assert!(std::mem::offset_of!(Info, flags) == 512);
    assert!(std::mem::offset_of!(Info, value) == 520);
};

type Init = unsafe extern "C" fn(*mut Proc, *mut Info, usize) -> c_int;
type Finalize = unsafe extern "C" fn(*const Info, usize) -> c_int;
type Put = unsafe extern "C" fn(u8, *const c_char, *mut Value) -> c_int;
type Commit = unsafe extern "C" fn() -> c_int;
type Fence = unsafe extern "C" fn(*const Proc, usize, *const Info, usize) -> c_int;
type Get = unsafe extern "C" fn(*const Proc, *const c_char, *const Info, usize, *mut *mut Value) -> c_int;
type ErrorString = unsafe extern "C" fn(c_int) -> *const c_char;

/// What a function of the library answered, other than success.
pub(super) struct Status {
    code: c_int,
    text: String,
}

/// `PMIx_Fence: TIMEOUT (-24)`
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.code)
    }
}

/// An initialised library.
pub(super) struct Session {
    library: &'static Library,
    /// This process, as the server named it.
    me: Proc,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session(rank {})", self.me.rank)
    }
}

impl Session {
    /// Opens the library and connects to the server. The error is the cause, as a sentence.
    pub(super) fn open(path: Option<&Path>) -> Result<Session, String> {
        let name = path.map_or(OsStr::new("libpmix.so.2"), Path::as_os_str);
        // SAFETY: opening runs the library's initialisers; the user's launcher told us that it is a PMIx client, which
        // has none that need anything of the process.
        let library = unsafe { Library::new(name) }.map_err(|error| error.to_string())?;
        // It starts a thread of its own, and a thread whose code is unmapped crashes: it stays for good.
        let library: &'static Library = Box::leak(Box::new(library));
        let mut session = Session { library, me: Proc { space: [0; 256], rank: 0 } };
        let init: Init = session.function(c"PMIx_Init").map_err(|status| status.to_string())?;
        // SAFETY: the signature is the standard's; `me` is a valid place for one process; no info is passed.
        let code = unsafe { init(&mut session.me, ptr::null_mut(), 0) };
        session.check("PMIx_Init", code).map_err(|status| status.to_string())?;
        Ok(session)
    }

    /// Ranks of the job.
    pub(super) fn size(&self) -> Result<u32, Status> {
        let value = self.get(RANK_WILDCARD, "pmix.job.size", None)?;
        match value.kind {
            // SAFETY: the type says which member of the union was written, and any bits are a number.
            TYPE_UINT32 => Ok(unsafe { value.data.uint32 }),
            other => Err(Status { code: 0, text: format!("pmix.job.size has type {other} instead of 14") }),
        }
    }

    /// Makes a text of this process visible to the others, from the next fence on.
    pub(super) fn put(&self, key: &str, text: &str) -> Result<(), Status> {
        let key = c_string(key);
        let text = c_string(text);
        let mut value = Value { kind: TYPE_STRING, data: Data { room: [0; 8] } };
        value.data.string = text.as_ptr().cast_mut();
        let put: Put = self.function(c"PMIx_Put")?;
        // SAFETY: key and text end with a zero byte and outlive the call, which copies both.
        let code = unsafe { put(SCOPE_GLOBAL, key.as_ptr(), &mut value) };
        self.check("PMIx_Put", code)?;
        let commit: Commit = self.function(c"PMIx_Commit")?;
        // SAFETY: the library is initialised as long as `self` lives.
        let code = unsafe { commit() };
        self.check("PMIx_Commit", code)
    }

    /// Waits for all ranks of the job, and brings what they have put.
    pub(super) fn fence(&self, deadline: Instant) -> Result<(), Status> {
        // The standard wants collect and timeout in one array, whose stride depends on the library's version. One item
        // is all that is safe; without `collect` the values are fetched when they are asked for.
        let info = timeout(deadline);
        let fence: Fence = self.function(c"PMIx_Fence")?;
        // SAFETY: no processes means all of the job; one info follows, whose first fields have the library's layout.
        let code = unsafe { fence(ptr::null(), 0, &info, 1) };
        self.check("PMIx_Fence", code)
    }

    /// The text that a rank has put.
    pub(super) fn text(&self, rank: u32, key: &str, deadline: Instant) -> Result<String, Status> {
        let value = self.get(rank, key, Some(deadline))?;
        if value.kind != TYPE_STRING {
            return Err(Status { code: 0, text: format!("{key} has type {} instead of 3", value.kind) });
        }
        // SAFETY: the type says which member of the union was written.
        let string = unsafe { value.data.string };
        if string.is_null() {
            return Ok(String::new());
        }
        // SAFETY: the library made it a string that ends with a zero byte, and nobody else knows it.
        let text = unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned();
        // SAFETY: the caller of PMIx_Get owns the string, which came from malloc; it was copied above.
        unsafe { libc::free(string.cast::<c_void>()) };
        Ok(text)
    }

    fn get(&self, rank: u32, key: &str, deadline: Option<Instant>) -> Result<Value, Status> {
        let key_text = c_string(key);
        let who = Proc { space: self.me.space, rank };
        let info = deadline.map(timeout);
        let info_at = info.as_ref().map_or(ptr::null(), ptr::from_ref);
        let mut answer: *mut Value = ptr::null_mut();
        let get: Get = self.function(c"PMIx_Get")?;
        // SAFETY: process, key and at most one info outlive the call, which writes one pointer.
        let code = unsafe { get(&who, key_text.as_ptr(), info_at, info.iter().len(), &mut answer) };
        self.check(&format!("PMIx_Get {key}"), code)?;
        if answer.is_null() {
            return Err(Status { code, text: format!("PMIx_Get {key} answered nothing") });
        }
        // The library's value may be smaller than ours: only the head and one word are read, never our whole struct.
        // SAFETY: success means a valid value, whose first field is the type.
        let kind = unsafe { answer.cast::<u16>().read() };
        let data = answer.cast::<u8>().wrapping_add(std::mem::offset_of!(Value, data)).cast::<u64>();
        // SAFETY: every version's union starts at that offset, has at least one word, and is aligned for it.
        let word = unsafe { data.read() };
        // SAFETY: the caller of PMIx_Get owns the value, which came from malloc; nothing of it is used after this.
        unsafe { libc::free(answer.cast::<c_void>()) };
        Ok(Value { kind, data: Data { room: [word, 0, 0, 0, 0, 0, 0, 0] } })
    }

    /// Says goodbye to the server. The session is of no use any more.
    pub(super) fn finalize(&self) {
        if let Ok(finalize) = self.function::<Finalize>(c"PMIx_Finalize") {
            // SAFETY: pairs with the PMIx_Init of `open`; the library counts both, and knows calls that come too late.
            let _ = unsafe { finalize(ptr::null(), 0) };
        }
    }

    fn check(&self, function: &str, code: c_int) -> Result<(), Status> {
        if code == SUCCESS {
            return Ok(());
        }
        let text = self.function::<ErrorString>(c"PMIx_Error_string").map_or(ptr::null(), |text| {
            // SAFETY: the function takes any number and needs no initialisation.
            unsafe { text(code) }
        });
        let name = if text.is_null() {
            "unknown status".into()
        } else {
            // SAFETY: the library answers with a constant string.
            unsafe { CStr::from_ptr(text) }.to_string_lossy()
        };
        Err(Status { code, text: format!("{function}: {name}") })
    }

    /// A function of the library. `F` must be the type above that has its name.
    fn function<F: Copy + 'static>(&self, name: &CStr) -> Result<F, Status> {
        // SAFETY: every caller pairs the name with the type that the PMIx standard gives it.
        let symbol = unsafe { self.library.get::<F>(name.to_bytes_with_nul()) };
        symbol.map(|symbol| *symbol).map_err(|error| Status { code: 0, text: error.to_string() })
    }
}

/// Asks for a time-out. The library counts whole seconds, and 0 would mean none.
fn timeout(deadline: Instant) -> Info {
    let left = deadline.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
    let mut info =
        Info { key: [0; 512], flags: 0, value: Value { kind: TYPE_INT, data: Data { room: [0; 8] } } };
    for (place, &byte) in info.key.iter_mut().zip(b"pmix.timeout") {
        *place = byte as c_char;
    }
    info.value.data.integer = left.clamp(1.0, f64::from(c_int::MAX)) as c_int;
    info
}

/// Our keys and values are ASCII without zero bytes.
fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}
