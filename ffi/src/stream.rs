//! Streams: `rcclStream_t`.

use crate::config::UNDEFINED;
use crate::error::{Answer, Refusal, answer, answer_or, number, text};
use crate::group;
use crate::handle::Table;
use crate::out;
use rccl::Stream;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use std::time::Duration;

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

/// As rcclStreamSynchronize, for at most so many milliseconds: rcclInProgress if that is not enough.
///
/// # Safety
/// Any values are safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclStreamSynchronizeTimeout(stream: Handle, timeout_ms: c_int) -> Answer {
    answer_or(|| {
        group::refuse("rcclStreamSynchronizeTimeout")?;
        let ended = get(stream)?.synchronize_timeout(time(timeout_ms)?)?;
        Ok(if ended { Answer::Success } else { Answer::InProgress })
    })
}

/// How long each call may take that is made on it from now on.
///
/// # Safety
/// Any values are safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclStreamSetTimeout(stream: Handle, timeout_ms: c_int) -> Answer {
    answer(|| {
        let timeout = if timeout_ms == UNDEFINED { None } else { Some(time(timeout_ms)?) };
        get(stream)?.set_timeout(timeout);
        Ok(())
    })
}

/// Whether calls made on it from now on go on by themselves.
///
/// # Safety
/// Any values are safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclStreamSetBackground(stream: Handle, background: c_int) -> Answer {
    answer(|| Ok(get(stream)?.set_background(background != 0)?))
}

fn time(milliseconds: c_int) -> Result<Duration, Refusal> {
    let time = u64::try_from(milliseconds).map(Duration::from_millis);
    time.map_err(|_| Refusal::argument(format!("{milliseconds} milliseconds: a time is 0 or more")))
}

/// `rcclStreamCallback_t`.
pub type Callback =
    unsafe extern "C" fn(stream: Handle, result: Answer, words: *const c_char, argument: *mut c_void);

/// What a callback gets; the program promises that any thread may have it.
struct Argument(*mut c_void);

// SAFETY: the promise of whoever called rcclStreamAddCallback.
unsafe impl Send for Argument {}

/// # Safety
/// `callback` may be called with `argument` on any thread, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclStreamAddCallback(
    stream: Handle,
    callback: Option<Callback>,
    argument: *mut c_void,
) -> Answer {
    answer(|| {
        let callback = callback.ok_or_else(|| Refusal::argument("the callback is NULL"))?;
        let (on, argument) = (get(stream)?, Argument(argument));
        let handle = stream.addr();
        on.on_end(move |ended| {
            let Argument(argument) = { argument };
            let (result, words) = match &ended {
                Ok(()) => (Answer::Success, text("no error".into())),
                Err(error) => (number(error), text(Refusal::from(error.clone()).words)),
            };
            let stream = std::ptr::without_provenance_mut(handle);
            // Its calls are nobody's group, whoever sees the end.
            // SAFETY: the caller's promise; the words live until it has returned.
            group::outside(|| unsafe { callback(stream, result, words.as_ptr(), argument) });
        });
        Ok(())
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
