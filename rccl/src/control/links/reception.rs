//! What the accepting end of a link's first connection says before anything else: whether its communicator is there.
//!
//! Members make a communicator at different times. One that is late is waited for here, on a connection of its own, so
//! that nobody else waits; who connects asks again for as long as its own call may wait.

use crate::bootstrap::frame;
use crate::bootstrap::handshake::Caller;
use crate::control::directory::Found;
use crate::control::shared::Shared;
use crate::control::station::Station;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// How long a communicator that is not there yet is waited for before the caller is asked to come again. Tests see that
/// it does.
const LATE: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(20) };

#[derive(Serialize, Deserialize)]
pub(super) enum Reception {
    /// Go on.
    Welcome,
    /// This rank has left the communicator, after completing this call.
    Left { last: u32 },
    /// This rank has not made the communicator yet.
    NotYet,
}

/// Finds the communicator that the caller wants a link of, and tells it. `None`: there is no link to be made.
pub(super) async fn receive(
    stream: &mut (impl AsyncWrite + Unpin),
    station: &Station,
    caller: Caller,
) -> Option<(Arc<Shared>, u32)> {
    let found = station.await_communicator(caller.communicator, Instant::now() + LATE).await;
    let (reception, entered) = match found {
        Found::Here(shared) => {
            let Some(peer) = shared.group.inside(caller.rank) else {
                tracing::warn!(?caller, "dropped a connection: its rank is not in that communicator");
                return None;
            };
            (Reception::Welcome, Some((shared, peer)))
        }
        Found::Left(state) => (Reception::Left { last: state.completed }, None),
        Found::Absent => (Reception::NotYet, None),
    };
    stream.write_all(&frame::encode(&reception).ok()?).await.ok()?;
    entered
}

/// Hears how a peer receives this rank.
pub(super) async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Reception> {
    frame::read(stream).await
}
