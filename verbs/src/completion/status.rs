//! How a request went.

use std::fmt;

use crate::sys::ibv_wc_status;

/// The status of a completion (ibv_poll_cq(3); InfiniBand Architecture, volume 1, section 10.10.3). Printed, it says what
/// happened, what that commonly means and what to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Done.
    Success,
    /// A message was longer than the memory of the receive request, or than a message may be.
    LocalLength,
    /// The queue pair or the request is inconsistent. Soft-RoCE says so for [`LocalProtection`](Status::LocalProtection).
    LocalOperation,
    /// A segment of the request is not in a registered region, or that forbids the access.
    LocalProtection,
    /// The queue pair was in the error state, or went there: the request was not carried out, or not to its end.
    Flushed,
    /// The peer's answer made no sense.
    BadResponse,
    /// Memory of this side could not be written for the peer.
    LocalAccess,
    /// The peer found the request invalid.
    RemoteInvalidRequest,
    /// The peer's memory may not be reached so: wrong key, wrong range, or no permission.
    RemoteAccess,
    /// The peer could not carry out the request. Soft-RoCE says so for a message that is too long.
    RemoteOperation,
    /// The peer did not answer, time after time.
    RetriesExceeded,
    /// The peer had no receive request posted, time after time.
    ReceiverNotReady,
    /// The peer gave the request up.
    RemoteAborted,
    /// The device has failed.
    Fatal,
    /// A response was late.
    ResponseTimeout,
    /// The provider reports an error of its own kind.
    General,
    /// A number of `enum ibv_wc_status` that queue pairs of this crate do not get, or that is not known here.
    Other(u32),
}

impl Status {
    pub(crate) fn from_raw(raw: ibv_wc_status) -> Status {
        match raw {
            ibv_wc_status::IBV_WC_SUCCESS => Status::Success,
            ibv_wc_status::IBV_WC_LOC_LEN_ERR => Status::LocalLength,
            ibv_wc_status::IBV_WC_LOC_QP_OP_ERR => Status::LocalOperation,
            ibv_wc_status::IBV_WC_LOC_PROT_ERR => Status::LocalProtection,
            ibv_wc_status::IBV_WC_WR_FLUSH_ERR => Status::Flushed,
            ibv_wc_status::IBV_WC_BAD_RESP_ERR => Status::BadResponse,
            ibv_wc_status::IBV_WC_LOC_ACCESS_ERR => Status::LocalAccess,
            ibv_wc_status::IBV_WC_REM_INV_REQ_ERR => Status::RemoteInvalidRequest,
            ibv_wc_status::IBV_WC_REM_ACCESS_ERR => Status::RemoteAccess,
            ibv_wc_status::IBV_WC_REM_OP_ERR => Status::RemoteOperation,
            ibv_wc_status::IBV_WC_RETRY_EXC_ERR => Status::RetriesExceeded,
            ibv_wc_status::IBV_WC_RNR_RETRY_EXC_ERR => Status::ReceiverNotReady,
            ibv_wc_status::IBV_WC_REM_ABORT_ERR => Status::RemoteAborted,
            ibv_wc_status::IBV_WC_FATAL_ERR => Status::Fatal,
            ibv_wc_status::IBV_WC_RESP_TIMEOUT_ERR => Status::ResponseTimeout,
            ibv_wc_status::IBV_WC_GENERAL_ERR => Status::General,
            ibv_wc_status(other) => Status::Other(other),
        }
    }

    /// Whether it is the consequence of an earlier failure of the same queue pair, which is the one to report.
    pub fn is_consequence(self) -> bool {
        self == Status::Flushed
    }

    fn words(self) -> &'static str {
        match self {
            Status::Success => "success",
            Status::LocalLength => "local length error: the message is longer than the memory posted for it",
            Status::LocalOperation => {
                "local queue pair operation error: the request does not fit the queue pair, or, on soft-RoCE, a segment \
                 is in no memory region"
            }
            Status::LocalProtection => {
                "local protection error: a segment is not, or no longer, in a memory region of the same protection \
                 domain, or that may not be used so"
            }
            Status::Flushed => {
                "flushed: the queue pair had failed or was closed before; the first other status tells why"
            }
            Status::BadResponse => {
                "bad response: the peer answered with a packet that does not fit; are both ends' drivers and firmware \
                 sound?"
            }
            Status::LocalAccess => {
                "local access error: the peer wrote to memory of this side that may not be written"
            }
            Status::RemoteInvalidRequest => {
                "remote invalid request: the peer's queue pair does not accept this operation, or the message is \
                 longer than what it has posted or allows"
            }
            Status::RemoteAccess => {
                "remote access error: the key or address is not, or no longer, of a memory region of the peer that \
                 may be written"
            }
            Status::RemoteOperation => {
                "remote operation error: the peer's device could not carry it out; on soft-RoCE also: the message is \
                 longer than the memory posted for it"
            }
            Status::RetriesExceeded => {
                "transport retries exceeded: the peer did not answer. Commonly its process has ended, its port is \
                 down, the route or the GID is wrong (do both GIDs have the same type?), UDP port 4791 is blocked by \
                 a firewall, the path MTU exceeds what switches let through, or a congested network loses packets \
                 (is PFC or ECN set up?)"
            }
            Status::ReceiverNotReady => {
                "receiver-not-ready retries exceeded: the peer's queue pair has no receive request posted; its \
                 process is stuck, or its flow control is wrong"
            }
            Status::RemoteAborted => "remote aborted: the peer gave the request up",
            Status::Fatal => "fatal error: the device has failed; look at the kernel's log",
            Status::ResponseTimeout => "response timeout: the peer's answer did not come in time",
            Status::General => "general error of the device's provider; its vendor error says more",
            Status::Other(_) => "a status that reliable connections do not have",
        }
    }
}

/// `transport retries exceeded: the peer did not answer. Commonly … (12)`, the number being that of the header.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.words(), self.number())
    }
}

impl Status {
    /// Its number in `enum ibv_wc_status`, by which other tools report it.
    pub fn number(self) -> u32 {
        let raw = match self {
            Status::Success => ibv_wc_status::IBV_WC_SUCCESS,
            Status::LocalLength => ibv_wc_status::IBV_WC_LOC_LEN_ERR,
            Status::LocalOperation => ibv_wc_status::IBV_WC_LOC_QP_OP_ERR,
            Status::LocalProtection => ibv_wc_status::IBV_WC_LOC_PROT_ERR,
            Status::Flushed => ibv_wc_status::IBV_WC_WR_FLUSH_ERR,
            Status::BadResponse => ibv_wc_status::IBV_WC_BAD_RESP_ERR,
            Status::LocalAccess => ibv_wc_status::IBV_WC_LOC_ACCESS_ERR,
            Status::RemoteInvalidRequest => ibv_wc_status::IBV_WC_REM_INV_REQ_ERR,
            Status::RemoteAccess => ibv_wc_status::IBV_WC_REM_ACCESS_ERR,
            Status::RemoteOperation => ibv_wc_status::IBV_WC_REM_OP_ERR,
            Status::RetriesExceeded => ibv_wc_status::IBV_WC_RETRY_EXC_ERR,
            Status::ReceiverNotReady => ibv_wc_status::IBV_WC_RNR_RETRY_EXC_ERR,
            Status::RemoteAborted => ibv_wc_status::IBV_WC_REM_ABORT_ERR,
            Status::Fatal => ibv_wc_status::IBV_WC_FATAL_ERR,
            Status::ResponseTimeout => ibv_wc_status::IBV_WC_RESP_TIMEOUT_ERR,
            Status::General => ibv_wc_status::IBV_WC_GENERAL_ERR,
            Status::Other(number) => ibv_wc_status(number),
        };
        raw.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_status_and_words() {
        for number in 0..40 {
            let status = Status::from_raw(ibv_wc_status(number));
            assert_eq!(status.number(), number);
            assert!(status.to_string().ends_with(&format!("({number})")));
            assert_eq!(status == Status::Success, number == 0);
        }
        assert_eq!(Status::from_raw(ibv_wc_status(39)), Status::Other(39));
    }

    #[test]
    fn what_users_meet_most_says_what_to_look_at() {
        let words = Status::RetriesExceeded.to_string();
        assert!(words.contains("4791") && words.contains("(12)"), "{words}");
        assert!(Status::Flushed.is_consequence() && !Status::RetriesExceeded.is_consequence());
    }
}
