//! The root's side of joining: wait until every rank has arrived, or tell everybody why not.

use super::frame::{self, Frame};
use super::handshake::Secret;
use super::host::Identity;
use super::layout;
use super::message::{Details, FromRoot, Joining, Silence};
use super::serving::{self, ConnectionId, Event, Outbox};
use super::unique_id::Listening;
use crate::bootstrap::processors::Processors;
use crate::control::root::Root;
use crate::error::{Error, Member, Result, remedy};
use crate::tuner::{Hosts, Path, Profile, Tuning};
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

/// How long the root stays after a failed join, to tell latecomers why it failed.
const LINGER: Duration = Duration::from_secs(3);
/// The root gives up this much before the least patient rank does, so that its answer arrives.
const AHEAD: Duration = Duration::from_millis(300);

/// A rank that has arrived.
#[derive(Debug)]
pub(crate) struct Seat {
    pub details: Details,
    pub connection: ConnectionId,
    /// `None` once the connection has ended.
    pub outbox: Option<Outbox>,
    pub silence: Silence,
    pub ring: Vec<u32>,
    pub profile: Profile,
}

/// Binds the listener that the ranks meet at; `port` `None` takes one from the range, or any.
///
/// One socket serves both families where the system has IPv6 and the family is not restricted.
///
/// # Errors
/// [`Error::System`] when no port can be bound.
pub(crate) fn bind(port: Option<u16>, listening: &Listening) -> Result<(std::net::TcpListener, u16)> {
    let ports = match (port, listening.ports) {
        (Some(port), _) => port..=port,
        (None, Some(range)) => range.first..=range.last,
        (None, None) => 0..=0,
    };
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for port in ports.clone() {
        match listen(port, listening) {
            Ok(listener) => {
                let port = listener.local_addr().map_or(port, |address| address.port());
                return Ok((listener, port));
            }
            Err(error) => refused = error,
        }
    }
    Err(Error::System {
        during: match (ports.start(), ports.end()) {
            (0, 0) => "listening on a TCP port".into(),
            (first, last) if first == last => format!("listening on TCP port {first}"),
            (first, last) => format!("listening on one of the TCP ports {first}-{last}"),
        },
        hint: remedy(&refused)
            .unwrap_or("end what holds the ports, or choose others (RCCL_COMM_ID, RCCL_PORT_RANGE)")
            .into(),
        source: Arc::new(refused),
    })
}

fn listen(port: u16, listening: &Listening) -> io::Result<std::net::TcpListener> {
    use crate::config::Family;
    let both = listening.choice.family != Some(Family::V4);
    let socket = match Socket::new(Domain::IPV6, Type::STREAM, None) {
        Ok(socket) if both => {
            socket.set_only_v6(false)?;
            socket.set_reuse_address(true)?;
            match socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()) {
                // IPv6 exists in the kernel but is switched off here.
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => listen_v4(port)?,
                bound => {
                    bound?;
                    socket
                }
            }
        }
        _ => listen_v4(port)?,
    };
    crate::fork::close_in_children(&socket);
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn listen_v4(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    Ok(socket)
}

/// Serves one communicator from the first arrival until its last rank has left. Runs on the control thread.
pub(crate) async fn serve(listener: std::net::TcpListener, secret: Secret, host: Identity) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the root cannot listen"),
    };
    crate::control::links::sweep();
    let (events, mut received) = unbounded_channel();
    let job = secret.job;
    let accepting = tokio::spawn(serving::accept(listener, secret, events));
    match gather(&mut received).await {
        Ok(seats) => {
            let silence = seats[0].silence;
            Root::new(seats, job, host, silence).run(received).await;
        }
        Err(refusal) => linger(received, &refusal).await,
    }
    accepting.abort();
}

/// Waits for all ranks.
async fn gather(events: &mut UnboundedReceiver<Event>) -> std::result::Result<Vec<Seat>, Frame> {
    let mut gathering = Gathering::default();
    loop {
        let deadline = gathering.deadline;
        let event = tokio::select! {
            event = events.recv() => event,
            () = expired(deadline) => None,
        };
        let failed = match event {
            Some(Event::Arrived { connection, joining, outbox }) => {
                gathering.seat(connection, *joining, outbox)
            }
            Some(Event::Gone { connection, .. }) => {
                gathering.seats.retain(|_, seat| seat.connection != connection);
                Ok(())
            }
            Some(Event::Said { .. }) => Ok(()),
            Some(Event::Full) => {
                gathering.full = true;
                Ok(())
            }
            None => Err(gathering.incomplete()),
        };
        if let Err((cause, hint)) = failed {
            let refusal = refusal(cause, hint);
            for seat in gathering.seats.values() {
                let _ = seat.outbox.as_ref().map(|outbox| outbox.send(refusal.clone()));
            }
            return Err(refusal);
        }
        if gathering.size.is_some_and(|size| gathering.seats.len() == size as usize) {
            return Ok(gathering.seats.into_values().collect());
        }
    }
}

async fn expired(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn linger(mut events: UnboundedReceiver<Event>, refusal: &Frame) {
    let end = Instant::now() + LINGER;
    while let Ok(Some(event)) = tokio::time::timeout_at(end, events.recv()).await {
        if let Event::Arrived { outbox, .. } = event {
            let _ = outbox.send(refusal.clone());
        }
    }
}

pub(crate) fn refusal(cause: String, hint: &str) -> Frame {
    frame::encode(&FromRoot::Refused { cause, hint: hint.into() }).unwrap_or_else(|_| Arc::from([]))
}

/// What is wrong, and what to do.
type Wrong = (String, &'static str);

#[derive(Default)]
struct Gathering {
    /// From the first arrival.
    size: Option<u32>,
    agreement: String,
    first: Option<Member>,
    deadline: Option<Instant>,
    seats: BTreeMap<u32, Seat>,
    /// The root had no descriptor for somebody.
    full: bool,
}

impl Gathering {
    /// Takes a rank in. An error is one of the whole job: everybody is told.
    fn seat(
        &mut self,
        connection: ConnectionId,
        joining: Joining,
        outbox: Outbox,
    ) -> std::result::Result<(), Wrong> {
        let Joining { rank, size, patience, agreement, silence, ring, profile, details } = joining;
        let member = details.member(rank);
        if rank >= size {
            // It has no place in this job; the others are not disturbed.
            let cause =
                format!("rank {rank} does not exist in a job of {size} ranks (0..={})", size.max(1) - 1);
            let _ = outbox.send(refusal(cause, "number the ranks from 0 to size - 1"));
            return Ok(());
        }
        let patience = Instant::now() + patience.saturating_sub(AHEAD).min(Duration::from_secs(1 << 30));
        self.deadline = Some(self.deadline.map_or(patience, |deadline| deadline.min(patience)));
        let wrong = if let (Some(expected), Some(first)) = (self.size, &self.first) {
            if size != expected {
                let cause = format!(
                    "the ranks disagree about the size: {first} says {expected}, {member} says {size}"
                );
                Some((cause, "start all ranks with the same size"))
            } else if agreement != self.agreement {
                let cause = format!(
                    "the ranks' settings disagree: {first} has {}, {member} has {}",
                    only(&self.agreement, &agreement),
                    only(&agreement, &self.agreement)
                );
                Some((cause, "give all ranks the same settings"))
            } else {
                None
            }
        } else {
            self.size = Some(size);
            self.agreement = agreement;
            self.first = Some(member.clone());
            None
        };
        let wrong = wrong.or_else(|| {
            let other = self.seats.get(&rank)?.details.member(rank);
            let cause = format!(
                "two processes with rank {rank}: {} pid {}, {} pid {}",
                other.host, other.pid, member.host, member.pid
            );
            Some((cause, "give every process a rank of its own"))
        });
        if let Some((cause, hint)) = wrong {
            let _ = outbox.send(refusal(cause.clone(), hint));
            return Err((cause, hint));
        }
        self.seats.insert(rank, Seat { details, connection, outbox: Some(outbox), silence, ring, profile });
        Ok(())
    }

    fn incomplete(&self) -> Wrong {
        let size = self.size.unwrap_or(0);
        let missing = (0..size).filter(|rank| !self.seats.contains_key(rank));
        let cause = format!("{} of {size} ranks arrived; missing {}", self.seats.len(), ranges(missing));
        if self.full {
            return (
                cause,
                "the root's process had no descriptor left to hear them: raise its limit (`ulimit -n`)",
            );
        }
        (cause, "look at those ranks' own output; a rank that starts late needs a longer RCCL_INIT_TIMEOUT")
    }
}

/// The lines of `one` that `other` does not have.
fn only(one: &str, other: &str) -> String {
    one.lines().filter(|line| !other.lines().any(|theirs| theirs == *line)).collect::<Vec<_>>().join(", ")
}

/// `3, 17, 22-30`; at most 16 entries, so that the text of a large job stays readable.
fn ranges(ranks: impl Iterator<Item = u32>) -> String {
    const SHOWN: usize = 16;
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for rank in ranks {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == rank => *last = rank,
            _ => runs.push((rank, rank)),
        }
    }
    let more: u32 = runs.iter().skip(SHOWN).map(|(first, last)| last - first + 1).sum();
    let mut words: Vec<String> = runs
        .iter()
        .take(SHOWN)
        .map(|&(first, last)| match last - first {
            0 => first.to_string(),
            1 => format!("{first}, {last}"),
            _ => format!("{first}-{last}"),
        })
        .collect();
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.join(", ")
}

/// The message that ends the rendezvous: the layout as seen by all.
pub(crate) fn welcome<'a>(seats: impl Iterator<Item = &'a Seat>, root: Member) -> io::Result<Frame> {
    let (mut verbs, mut profile) = (true, None);
    let mut indices: HashMap<u64, u32> = HashMap::new();
    let mut on_host: Vec<Vec<&Processors>> = Vec::new();
    let mut seats = seats.peekable();
    let ring = seats.peek().map_or_else(Vec::new, |zero| zero.ring.clone());
    let hosts: Vec<u32> = seats
        .map(|seat| {
            verbs &= seat.details.rdma.is_ok();
            profile.get_or_insert_with(|| seat.profile.clone());
            let next = indices.len() as u32;
            let host = *indices.entry(seat.details.host.key).or_insert(next);
            on_host.resize(indices.len(), Vec::new());
            on_host[host as usize].push(&seat.details.processors);
            host
        })
        .collect();
    let mut crowded = false;
    let mut processors: Vec<u32> = on_host
        .into_iter()
        .map(|ranks| {
            let processors = Processors::together(ranks.iter().copied());
            crowded |= ranks.len() as u64 > u64::from(processors);
            processors
        })
        .collect();
    // Hosts are mostly alike.
    while let [.., before, last] = processors[..]
        && before == last
    {
        processors.pop();
    }
    let network = if verbs { Path::Verbs } else { Path::Tcp };
    let hosts_are = Hosts { network, crowded };
    let tuning = Tuning { hosts: hosts_are, profile: profile.unwrap_or_default() };
    frame::encode(&FromRoot::Welcome { root, runs: layout::runs(&hosts), processors, ring, tuning })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_ranks_are_named_in_few_words() {
        assert_eq!(ranges([3, 17, 22].into_iter()), "3, 17, 22");
        assert_eq!(ranges([1, 2, 4, 5, 6, 9].into_iter()), "1, 2, 4-6, 9");
        assert!(ranges((0..4096).step_by(2)).ends_with("30, and 2032 more"));
    }
}
