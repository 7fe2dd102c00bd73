//! Why a link stopped, kept so that every later call answers the same.

use rustix::io::Errno;

use crate::link::LinkError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Closed { during: &'static str },
    System { during: &'static str, errno: Errno },
    Protocol { what: String },
    Misuse { what: &'static str },
}

impl Failure {
    /// The answer of a system call on a socket. A pipe without a reader is a peer that has closed.
    pub(super) fn of_socket(during: &'static str, errno: Errno) -> Failure {
        match errno {
            Errno::PIPE => Failure::Closed { during },
            errno => Failure::System { during, errno },
        }
    }
}

impl From<Failure> for LinkError {
    fn from(failure: Failure) -> LinkError {
        match failure {
            Failure::Closed { during } => LinkError::Closed { during },
            Failure::System { during, errno } => LinkError::Io { during, source: errno.into() },
            Failure::Protocol { what } => LinkError::Protocol { what },
            Failure::Misuse { what } => LinkError::Io {
                during: "using a TCP link",
                source: std::io::Error::new(std::io::ErrorKind::InvalidInput, what),
            },
        }
    }
}

impl From<&Failure> for LinkError {
    fn from(failure: &Failure) -> LinkError {
        failure.clone().into()
    }
}

/// Whether a non-blocking call has to be tried again later.
pub(super) fn not_now(errno: Errno) -> bool {
    errno == Errno::AGAIN || errno == Errno::INTR
}
