//! Why a link stopped, kept so that every later call answers the same.

use std::fmt;

use crate::link::LinkError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Closed {
        during: &'static str,
    },
    System {
        during: &'static str,
        errno: rustix::io::Errno,
    },
    Verbs {
        during: &'static str,
        device: String,
        queue_pair: Option<u32>,
        what: String,
    },
    Protocol {
        what: String,
    },
    /// A frame or piece came twice, or one before it did not come.
    OutOfTurn {
        what: String,
    },
    Misuse {
        what: String,
    },
}

impl From<Failure> for LinkError {
    fn from(failure: Failure) -> LinkError {
        match failure {
            Failure::Closed { during } => LinkError::Closed { during },
            Failure::System { during, errno } => LinkError::Io { during, source: errno.into() },
            Failure::Verbs { during, device, queue_pair, what } => {
                LinkError::Verbs { during, device, queue_pair, what }
            }
            Failure::Protocol { what } | Failure::OutOfTurn { what } => LinkError::Protocol { what },
            Failure::Misuse { what } => LinkError::Io {
                during: "using a link over verbs",
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LinkError::from(self).fmt(f)
    }
}
