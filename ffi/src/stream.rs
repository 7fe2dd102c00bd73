//! Streams: `rcclStream_t`.

use crate::error::{Answer, Refusal, answer, answer_or};
use crate::group;
use crate::handle::Table;
use crate::out;
use rccl::Stream;
use std::ffi::c_void;
use std::sync::Arc;

/// `rcclStream_t`.
pub(crate) type Handle = *mut c_void;

static STREAMS: Table<Stream> = Table::new(2);

/// The stream of a handle that is not NULL.
#[inline]
pub(crate) fn get(stream: Handle) -> Result<Arc<Stream>, Refusal> {
    STREAMS.get(stream).ok_or_else(|| {
        let made = "a stream comes from rcclStreamCreate and is good until rcclStreamDestroy; NULL is none, with which calls \
                    return when they have ended";
        Refusal::argument(format!("no stream has this handle: {made}"))
    })
}

/// # Safety
/// `stream` is NULL or has room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclStreamCreate(stream: *mut Handle) -> Answer {
    answer(|| {
        let place = out(stream, "stream")?;
        let handle = STREAMS.insert(Stream::new());
        let handle = handle.ok_or_else(|| Refusal::usage("there are 16 million streams already"))?;
        // SAFETY: the caller's promise.
        unsafe { place.write(handle) };
        Ok(())
    })
}

/// What was made on it goes on.
///
/// # Safety
/// Any value is safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclStreamDestroy(stream: Handle) -> Answer {
    answer(|| {
        get(stream)?;
        STREAMS.remove(stream);
        Ok(())
    })
}

/// # Safety
/// Any value is safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclStreamSynchronize(stream: Handle) -> Answer {
    answer(|| {
        group::refuse("rcclStreamSynchronize")?;
        Ok(get(stream)?.synchronize()?)
    })
}

/// # Safety
/// Any value is safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclStreamQuery(stream: Handle) -> Answer {
    answer_or(|| {
        let stream = get(stream)?;
        if !stream.is_idle() {
            return Ok(Answer::InProgress);
        }
        stream.synchronize()?;
        Ok(Answer::Success)
    })
}

/// # Safety
/// Any values are safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclStreamWait(stream: Handle, other: Handle) -> Answer {
    answer(|| {
        get(stream)?.wait_for(&*get(other)?);
        Ok(())
    })
}
