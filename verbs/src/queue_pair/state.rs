//! The states of a queue pair (InfiniBand Architecture, volume 1, section 10.3.1; ibv_modify_qp(3)).
//!
//! ```text
//!  Reset ──initialize──▶ Init ──ready_to_receive──▶ ReadyToReceive ──ready_to_send──▶ ReadyToSend
//!    ▲                    │                               │                               │
//!    └──reset── any       └───────────── fail, or a failure of its own ──────────────▶ Error
//! ```

use std::fmt;

use crate::sys::ibv_qp_state;

/// Where a queue pair stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Made, or emptied: nothing can be posted.
    Reset,
    /// It knows its port; receives may be posted and wait.
    Init,
    /// It knows its peer; what the peer sends arrives.
    ReadyToReceive,
    /// It works both ways.
    ReadyToSend,
    /// Its send queue is being drained; nothing here brings it there.
    SendQueueDrained,
    /// Its send queue has failed; not for reliable connections.
    SendQueueError,
    /// It has failed: everything posted completes as flushed.
    Error,
    /// The kernel does not know either.
    Unknown,
}

impl State {
    const ALL: [State; 8] = [
        State::Reset,
        State::Init,
        State::ReadyToReceive,
        State::ReadyToSend,
        State::SendQueueDrained,
        State::SendQueueError,
        State::Error,
        State::Unknown,
    ];

    pub(crate) fn from_raw(raw: ibv_qp_state) -> State {
        State::from_number(u8::try_from(raw.0).unwrap_or(u8::MAX))
    }

    pub(crate) fn from_number(number: u8) -> State {
        State::ALL.get(usize::from(number)).copied().unwrap_or(State::Unknown)
    }

    pub(crate) fn raw(self) -> ibv_qp_state {
        ibv_qp_state(self as u32)
    }

    /// The states from which a queue pair may be moved to this one, in words, if this is not one of them.
    pub(super) fn refuses_from(self, from: State) -> Option<&'static str> {
        let (allowed, words) = match self {
            State::Init => (from == State::Reset, "Reset"),
            State::ReadyToReceive => (from == State::Init, "Init"),
            State::ReadyToSend => (from == State::ReadyToReceive, "ReadyToReceive"),
            State::Error => (from != State::Reset, "any but Reset"),
            State::Reset => (true, "any"),
            State::SendQueueDrained | State::SendQueueError | State::Unknown => (false, "none"),
        };
        (!allowed).then_some(words)
    }

    /// Whether receive requests may be posted.
    pub(super) fn takes_receives(self) -> bool {
        self != State::Reset
    }

    /// Whether send requests may be posted; in the error state they are flushed, which is an answer too.
    pub(super) fn takes_sends(self) -> bool {
        !matches!(self, State::Reset | State::Init | State::ReadyToReceive)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_the_headers() {
        assert_eq!(State::Error.raw(), ibv_qp_state::IBV_QPS_ERR);
        assert_eq!(State::ReadyToReceive.raw(), ibv_qp_state::IBV_QPS_RTR);
        for state in State::ALL {
            assert_eq!(State::from_raw(state.raw()), state);
        }
        assert_eq!(State::from_raw(ibv_qp_state(300)), State::Unknown);
    }

    #[test]
    fn a_queue_pair_goes_up_step_by_step_and_down_from_anywhere() {
        let ladder = [State::Reset, State::Init, State::ReadyToReceive, State::ReadyToSend];
        for (at, &from) in ladder.iter().enumerate() {
            for (rung, &to) in ladder.iter().enumerate().skip(1) {
                assert_eq!(to.refuses_from(from).is_none(), rung == at + 1, "{from} to {to}");
            }
            assert_eq!(State::Error.refuses_from(from).is_none(), from != State::Reset);
            assert!(State::Reset.refuses_from(from).is_none());
        }
        assert!(State::Init.refuses_from(State::Error).is_some());
    }

    #[test]
    fn requests_are_taken_where_they_can_be_carried_out_or_flushed() {
        assert!(!State::Reset.takes_receives() && State::Init.takes_receives());
        assert!(!State::ReadyToReceive.takes_sends() && State::ReadyToSend.takes_sends());
        assert!(State::Error.takes_sends() && State::Error.takes_receives());
    }
}
