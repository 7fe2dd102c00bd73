//! The C interface, `libroceccl`; `include/roceccl.h` says what each function does.
//!
//! ```text
//! comm     communicators          call     collectives and messages     handle    what C holds of objects
//! stream   streams                group    calls that go together       error     numbers, words, panics
//! memory   memory for calls       op       operators                    config    rcclConfig_t
//! one_sided  windows, puts and signals
//! ```
//!
//! Nothing here is a copy of what the `rccl` crate does: functions turn C's arguments into those of the crate, and its errors
//! into numbers and words. No panic leaves a function. Handles, NULL where something must be, numbers of enums, sizes and
//! overlaps are checked; that memory is as long as a call says is the caller's promise.

#![allow(non_snake_case)] // the functions' names are C's
#![allow(clippy::missing_errors_doc)]

mod call;
mod comm;
mod config;
mod error;
mod group;
mod handle;
mod memory;
mod one_sided;
mod op;
mod stream;

use comm::Handle;
use error::{Refusal, answer};
use std::ffi::{c_char, c_int};

pub use call::*;
pub use comm::*;
pub use config::Config;
pub use error::{Answer, rcclRefuse};
pub use group::{rcclGroupEnd, rcclGroupStart};
pub use memory::*;
pub use one_sided::*;
pub use op::{rcclRedOpCreatePreMulSum, rcclRedOpDestroy};
pub use stream::*;

/// The version of the interface, as NCCL counts: major * 10000 + minor * 100 + patch.
const VERSION: c_int = 100;

/// # Safety
/// `version` is NULL or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclGetVersion(version: *mut c_int) -> Answer {
    answer(|| {
        let place = out(version, "version")?;
        // SAFETY: the caller's promise.
        unsafe { place.write(VERSION) };
        Ok(())
    })
}

/// # Safety
/// Always.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclGetErrorString(result: c_int) -> *const c_char {
    error::words(result).as_ptr()
}

/// What the last function that failed on this thread said. `comm` is not needed, as in NCCL.
///
/// # Safety
/// Any value is safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclGetLastError(comm: Handle) -> *const c_char {
    let _ = comm;
    error::last()
}

/// A place that something is written to.
#[inline]
fn out<T>(place: *mut T, name: &str) -> Result<*mut T, Refusal> {
    if place.is_null() || !place.is_aligned() {
        return Err(Refusal::argument(format!("{name} is {place:?}, where a result is to be written")));
    }
    Ok(place)
}

/// A list of `count` values.
///
/// # Safety
/// `list` is NULL or has so many.
unsafe fn list<'a, T>(list: *const T, count: c_int, name: &str) -> Result<&'a [T], Refusal> {
    let count =
        usize::try_from(count).map_err(|_| Refusal::argument(format!("{count} entries in {name}")))?;
    match count {
        0 => Ok(&[]),
        _ if list.is_null() || !list.is_aligned() => {
            Err(Refusal::argument(format!("{name} is {list:?}, where {count} numbers are to be read")))
        }
        // SAFETY: the caller's promise.
        _ => Ok(unsafe { std::slice::from_raw_parts(list, count) }),
    }
}
