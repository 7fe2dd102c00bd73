//! Results as numbers, and the words that belong to them.

use crate::group;
use rccl::{Error, Failure};
use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a function answers: `rcclResult_t`, with NCCL's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Answer {
    /// `rcclSuccess`
    Success = 0,
    /// `rcclSystemError`: the operating system refused something.
    SystemError = 2,
    /// `rcclInternalError`: a fault of this library.
    InternalError = 3,
    /// `rcclInvalidArgument`: an argument is wrong by itself.
    InvalidArgument = 4,
    /// `rcclInvalidUsage`: the call does not fit what the program did before, here or on another rank.
    InvalidUsage = 5,
    /// `rcclRemoteError`: another process, or the way to it, failed.
    RemoteError = 6,
    /// `rcclInProgress`: not over yet.
    InProgress = 7,
    /// `rcclTimeout`: a call did not end within its deadline.
    Timeout = 8,
}

/// Why a function does not do what it was asked for.
#[derive(Clone)]
pub(crate) struct Refusal {
    pub answer: Answer,
    pub words: String,
}

impl Refusal {
    pub fn argument(words: impl Into<String>) -> Refusal {
        Refusal { answer: Answer::InvalidArgument, words: words.into() }
    }

    pub fn usage(words: impl Into<String>) -> Refusal {
        Refusal { answer: Answer::InvalidUsage, words: words.into() }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal { answer: number(&error), words: format!("{} {error}", error.code()) }
    }
}

/// The number of an error.
pub(crate) fn number(error: &Error) -> Answer {
    match error {
        Error::InvalidArgument { .. } | Error::InvalidSetting { .. } => Answer::InvalidArgument,
        Error::Finished { .. } | Error::Forked { .. } => Answer::InvalidUsage,
        Error::System { .. } => Answer::SystemError,
        Error::Join { .. } => Answer::RemoteError,
        Error::Failed { failure, .. } => match **failure {
            Failure::Mismatch { .. } => Answer::InvalidUsage,
            Failure::Timeout { .. } => Answer::Timeout,
            _ => Answer::RemoteError,
        },
        _ => Answer::InternalError,
    }
}

thread_local! {
    /// What the last function that failed on this thread said.
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs a function of the interface: what it refuses is told by number, its words are kept for this thread, and no panic
/// leaves it.
#[inline]
pub(crate) fn answer(function: impl FnOnce() -> Result<(), Refusal>) -> Answer {
    match catch_unwind(AssertUnwindSafe(function)) {
        Ok(Ok(())) => Answer::Success,
        Ok(Err(Refusal { answer, words })) => {
            keep(words);
            answer
        }
        Err(panic) => {
            let Refusal { answer, words } = fault(&*panic);
            keep(words);
            answer
        }
    }
}

/// What is told of a panic.
#[cold]
pub(crate) fn fault(panic: &(dyn Any + Send)) -> Refusal {
    let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
    let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Refusal { answer: Answer::InternalError, words: format!("a fault of rccl: {words}") }
}

/// As [`answer`], of a function that has nothing to say but whether it is over.
pub(crate) fn answer_or(function: impl FnOnce() -> Result<Answer, Refusal>) -> Answer {
    let mut said = Answer::Success;
    match answer(|| function().map(|one| said = one)) {
        Answer::Success => said,
        refused => refused,
    }
}

fn keep(words: String) {
    let words = text(words);
    // At a thread's end there may be nowhere to keep it.
    let _ = LAST.try_with(|last| *last.borrow_mut() = words);
}

/// Words for C.
pub(crate) fn text(words: String) -> CString {
    CString::new(words.replace('\0', " ")).unwrap_or_default()
}

/// What the last function that failed on this thread said; empty if none did. Valid until the next one fails.
pub(crate) fn last() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Refuses a call for an interface that is built over this one, so that both have one last error and spoil the same groups.
///
/// # Safety
/// `words` is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclRefuse(result: c_int, words: *const c_char, part: c_int) -> Answer {
    answer(|| {
        let refusal = if words.is_null() {
            Refusal::argument("a refusal's words are NULL")
        } else {
            // SAFETY: the caller's promise.
            let words = unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned();
            match failure(result) {
                Some(answer) => Refusal { answer, words },
                None => Refusal::argument(format!(
                    "result {result} is no failure, with which is refused: {words}"
                )),
            }
        };
        if part == 0 { Err(refusal) } else { group::part(Err(refusal)) }
    })
}

/// The failure of a number.
fn failure(number: c_int) -> Option<Answer> {
    use Answer::*;
    let all = [SystemError, InternalError, InvalidArgument, InvalidUsage, RemoteError, Timeout];
    all.into_iter().find(|answer| *answer as c_int == number)
}

/// A number in words.
pub(crate) fn words(number: i32) -> &'static CStr {
    match number {
        0 => c"no error",
        1 => c"unhandled cuda error",
        2 => c"the operating system refused something (rcclGetLastError has more)",
        3 => c"internal error (rcclGetLastError has more)",
        4 => c"invalid argument (rcclGetLastError has more)",
        5 => c"invalid usage (rcclGetLastError has more)",
        6 => c"another process, or the way to it, failed (rcclGetLastError has more)",
        7 => c"in progress",
        8 => c"a call did not end within its deadline (rcclGetLastError has more)",
        _ => c"no result has this number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_words() -> String {
        // SAFETY: a string of this thread, which nobody changes meanwhile.
        unsafe { CStr::from_ptr(last()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn panics_and_refusals_have_words() {
        assert_eq!(answer(|| Ok(())), Answer::Success);
        assert_eq!(answer(|| Err(Refusal::argument("a\0b"))), Answer::InvalidArgument);
        assert_eq!(last_words(), "a b");
        assert_eq!(answer(|| panic!("on purpose")), Answer::InternalError);
        assert_eq!(last_words(), "a fault of rccl: on purpose");
        assert_eq!(answer(|| Ok(())), Answer::Success);
        assert_eq!(last_words(), "a fault of rccl: on purpose", "a success changes nothing");
        assert_eq!(answer_or(|| Ok(Answer::InProgress)), Answer::InProgress);
        std::thread::spawn(|| assert_eq!(last_words(), "")).join().unwrap();
    }

    #[test]
    fn calls_at_the_end_of_a_thread_are_refused_like_others() {
        struct AtTheEnd(std::sync::mpsc::Sender<(Answer, String)>);
        impl Drop for AtTheEnd {
            fn drop(&mut self) {
                let refused = answer(|| Err(Refusal::argument("late")));
                self.0.send((refused, last_words())).unwrap();
            }
        }
        thread_local! {
            static END: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
        }
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(|| {
            // What is first used first goes last.
            END.set(Some(AtTheEnd(tell)));
            answer(|| Err(Refusal::argument("early")));
        });
        let (refused, words) = told.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        assert_eq!(refused, Answer::InvalidArgument);
        assert!(words.is_empty() || words == "late", "{words}");
    }
}
