//! The root's side of its connections: who may speak, and one stream of events out of all of them.

use super::frame::{self, Frame};
use super::handshake::{self, Purpose, Refusal, Secret};
use super::message::{Joining, ToRoot};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A connection is dropped when it has not proved who it is within this time.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);

/// Number of a connection, never used twice.
pub(crate) type ConnectionId = u64;

/// Where frames for a connection are left; dropping it closes the connection after what was left is written.
pub(crate) type Outbox = UnboundedSender<Frame>;

/// What happens on the root's connections.
#[derive(Debug)]
pub(crate) enum Event {
    /// A member has proved itself and wants to join.
    Arrived { connection: ConnectionId, joining: Box<Joining>, outbox: Outbox },
    /// It says something.
    Said { connection: ConnectionId, message: ToRoot },
    /// Its connection has ended.
    Gone { connection: ConnectionId, how: String },
    /// Somebody knocked and could not be let in: this process has no descriptor left. Said once.
    Full,
}

/// Accepts connections for ever; what members say goes to `events`.
///
/// A stranger costs one line in the log and is forgotten. The future is dropped to stop listening; connections go on
/// until their outbox or `events` is closed.
pub(crate) async fn accept(listener: TcpListener, secret: Secret, events: UnboundedSender<Event>) {
    let strangers = Arc::new(AtomicU64::new(0));
    let mut next = 0;
    let mut full = false;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                crate::fork::close_in_children(&stream);
                next += 1;
                let serve = serve(stream, address, next, secret.clone(), events.clone(), strangers.clone());
                tokio::spawn(serve);
            }
            Err(error) => {
                // Out of descriptors (or the peer was quicker to leave): the backlog keeps the others.
                if !std::mem::replace(&mut full, true) {
                    tracing::warn!(%error, "the root cannot accept a connection; see `ulimit -n`");
                    let _ = events.send(Event::Full);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    address: SocketAddr,
    connection: ConnectionId,
    secret: Secret,
    events: UnboundedSender<Event>,
    strangers: Arc<AtomicU64>,
) {
    let joining = match tokio::time::timeout(HANDSHAKE, first_words(&mut stream, &secret)).await {
        Ok(Ok(joining)) => joining,
        Ok(Err(refusal)) => return turned_away(address, &refusal, &strangers),
        Err(_) => return turned_away(address, &Refusal::Late(HANDSHAKE), &strangers),
    };
    let (outbox, inbox) = unbounded_channel();
    if events.send(Event::Arrived { connection, joining, outbox }).is_err() {
        return;
    }
    let (mut from, to) = stream.into_split();
    tokio::spawn(write_out(inbox, to));
    let how = loop {
        match frame::read::<ToRoot>(&mut from).await {
            Ok(message) => {
                if events.send(Event::Said { connection, message }).is_err() {
                    return;
                }
            }
            Err(error) => break how_it_ended(&error),
        }
    };
    let _ = events.send(Event::Gone { connection, how });
}

async fn first_words(stream: &mut TcpStream, secret: &Secret) -> Result<Box<Joining>, Refusal> {
    stream.set_nodelay(true)?;
    let caller = handshake::admit(stream, secret).await?;
    if caller.purpose != Purpose::Control {
        return Err(Refusal::Stranger { began: format!("purpose {:?}", caller.purpose) });
    }
    match frame::read(stream).await? {
        ToRoot::Join(joining) if joining.rank == caller.rank => Ok(joining),
        _ => Err(Refusal::Stranger { began: "no request to join".into() }),
    }
}

fn turned_away(address: SocketAddr, refusal: &Refusal, strangers: &AtomicU64) {
    let count = strangers.fetch_add(1, Ordering::Relaxed) + 1;
    // An honest party in the wrong place deserves to be seen; scans and garbage do not.
    if matches!(refusal, Refusal::Version { .. } | Refusal::Job { .. } | Refusal::Key) {
        tracing::warn!(%address, count, "dropped a connection: {refusal}");
    } else {
        tracing::debug!(%address, count, "dropped a stranger's connection: {refusal}");
    }
}

/// Writes what is left in `inbox` until it is closed or the stream breaks (its reader sees that too).
pub(crate) async fn write_out(
    mut inbox: UnboundedReceiver<Frame>,
    mut to: impl tokio::io::AsyncWrite + Unpin,
) {
    while let Some(frame) = inbox.recv().await {
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// The end of a connection, as a predicate of the process at its other end.
pub(crate) fn how_it_ended(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "exited without goodbye".into(),
        io::ErrorKind::ConnectionReset => "exited without goodbye (its connection was reset)".into(),
        io::ErrorKind::InvalidData => format!("broke the control protocol ({error})"),
        _ => format!("was cut off ({error})"),
    }
}
