//! A rank's side of joining: find the root, prove oneself, wait for the others.

use super::frame::{self, Frame};
use super::handshake::{self, Caller, Purpose, Refusal, Secret};
use super::interface;
use super::message::{FromRoot, Joining, ToRoot};
use super::unique_id::UniqueId;
use rand::Rng;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A root that was named by an id listens before the id exists; refusals for this long mean that it is gone.
const REFUSED: Duration = Duration::from_secs(3);
/// A rank that still looks for the root after this long says so, as its deadline may be minutes away.
const TELL: Duration = Duration::from_secs(10);
/// How long one address may take to answer before the next is tried.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How much longer than its own deadline a rank waits for the root's explanation.
const GRACE: Duration = Duration::from_secs(1);

/// Where the ranks meet.
#[derive(Clone, Debug)]
pub(crate) enum Meeting {
    /// In the process that made the id.
    Id(UniqueId),
    /// At an address that rank 0 binds.
    Address {
        /// Name or address of rank 0's host, as the other ranks reach it.
        host: String,
        port: u16,
        /// The job's number and key.
        secret: Secret,
    },
}

impl Meeting {
    pub(crate) fn secret(&self) -> Secret {
        match self {
            Meeting::Id(id) => id.secret(),
            Meeting::Address { secret, .. } => secret.clone(),
        }
    }
}

impl std::fmt::Display for Meeting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Meeting::Id(id) => {
                let addresses: Vec<String> = id.addresses().iter().map(SocketAddr::to_string).collect();
                f.write_str(&addresses.join(" or "))
            }
            Meeting::Address { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

/// Why joining failed: cause and hint.
pub(crate) type Wrong = (String, String);

/// The control connection of a rank that has joined.
pub(crate) struct Joined {
    pub stream: TcpStream,
    pub welcome: FromRoot,
}

/// Connects to the root, trying again until `deadline`, and returns the authenticated connection.
///
/// # Errors
/// What the last attempt met, and what to do about it.
pub(crate) async fn reach(
    meeting: &Meeting,
    rank: u32,
    host_key: u64,
    deadline: Instant,
) -> Result<TcpStream, Wrong> {
    let secret = meeting.secret();
    let began = Instant::now();
    let mut pause = Duration::from_millis(10);
    let mut told = false;
    loop {
        let mut last = (format!("{meeting} does not resolve to an address"), "is the name right?".to_owned());
        let mut refused = true;
        for address in addresses(meeting, rank, host_key).await? {
            let tried = Instant::now();
            match timeout_at(deadline.min(tried + ATTEMPT), attempt(address, &secret, rank)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(refusal)) => {
                    refused &= matches!(&refusal, Refusal::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused);
                    let hint = hint(&refusal);
                    let cause = format!("{address}: {refusal}");
                    // An address may still be held by the job before; an id's cannot.
                    let fatal = match refusal {
                        Refusal::Version { .. } | Refusal::Key => true,
                        Refusal::Job { .. } => matches!(meeting, Meeting::Id(_)),
                        _ => false,
                    };
                    last = (cause, hint.into());
                    if fatal {
                        return Err(last);
                    }
                }
                Err(_) => {
                    refused = false;
                    last = (
                        format!("{address}: no answer within {:.1} s", tried.elapsed().as_secs_f64()),
                        "is the root's host reachable from here, and its port open in the firewall?".into(),
                    );
                }
            }
        }
        if refused && matches!(meeting, Meeting::Id(_)) && began.elapsed() > REFUSED {
            return Err((last.0, "the process that made the id has ended; make a new id".into()));
        }
        if !told && began.elapsed() > TELL {
            told = true;
            tracing::warn!(
                "rank {rank} has not reached rank 0 after {} s and tries on for {:.0} s: {}; {}",
                TELL.as_secs(),
                deadline.saturating_duration_since(Instant::now()).as_secs_f64(),
                last.0,
                last.1
            );
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        let wake = Instant::now() + pause.mul_f64(jitter);
        if wake >= deadline {
            return Err((
                format!(
                    "the root was not reached within {:.1} s; last: {}",
                    began.elapsed().as_secs_f64(),
                    last.0
                ),
                last.1,
            ));
        }
        tokio::time::sleep_until(wake).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// If `named` is an address that no interface of this host has: those that they have.
pub(crate) fn is_elsewhere(named: &str) -> Option<String> {
    let named: IpAddr = named.parse().ok()?;
    let local: Vec<IpAddr> = interface::addresses().ok()?.iter().map(|address| address.ip).collect();
    if named.is_unspecified() || named.is_loopback() || local.contains(&named) {
        return None;
    }
    let others: Vec<String> =
        local.iter().filter(|address| !address.is_loopback()).map(IpAddr::to_string).collect();
    Some(if others.is_empty() {
        "it has loopback only".into()
    } else {
        format!("it has {}", others.join(", "))
    })
}

/// Where to try, best first.
async fn addresses(meeting: &Meeting, rank: u32, host_key: u64) -> Result<Vec<SocketAddr>, Wrong> {
    match meeting {
        Meeting::Id(id) => {
            let mut addresses = id.addresses();
            let neighbour = id.host_key() == host_key;
            if !neighbour && addresses.iter().all(|address| address.ip().is_loopback()) {
                return Err((
                    "the root offers only a loopback address, and this process is on another host".into(),
                    "set RCCL_SOCKET_IFNAME on the root to an interface that the other hosts reach".into(),
                ));
            }
            if neighbour && let Some(port) = addresses.first().map(SocketAddr::port) {
                // Works even when the host's own address is filtered, or moves.
                addresses.insert(0, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
            }
            Ok(addresses)
        }
        Meeting::Address { port, .. } if rank == 0 => {
            // Rank 0 is there already, whatever its name resolves to.
            Ok(vec![SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), *port)])
        }
        Meeting::Address { host, port, .. } => match tokio::net::lookup_host((host.as_str(), *port)).await {
            Ok(found) => Ok(found.collect()),
            Err(error) => {
                // In a cluster that is starting, names appear late.
                tracing::debug!(%error, host, "the root's name does not resolve yet");
                Ok(Vec::new())
            }
        },
    }
}

async fn attempt(address: SocketAddr, secret: &Secret, rank: u32) -> Result<TcpStream, Refusal> {
    let mut stream = TcpStream::connect(address).await?;
    crate::fork::close_in_children(&stream);
    stream.set_nodelay(true)?;
    let caller = Caller { purpose: Purpose::Control, lane: 0, rank, target: u32::MAX, communicator: 0 };
    handshake::introduce(&mut stream, secret, caller).await?;
    Ok(stream)
}

fn hint(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Version { .. } => "run the same version of rccl everywhere",
        Refusal::Job { .. } => "another job uses this address: choose another port, or wait for it to end",
        Refusal::Key => {
            "give all ranks the same unique id or key (RCCL_KEY, RCCL_KEY_FILE), or, if this is another job, another port"
        }
        Refusal::Stranger { .. } => "another program listens there: choose another port",
        Refusal::Io(_) | Refusal::Late(_) => {
            "is the root running, reachable from here, and its port open in the firewall?"
        }
    }
}

/// Asks to join over the connection and waits for the others.
///
/// # Errors
/// The root's refusal, or that it went away or did not answer.
pub(crate) async fn join(
    mut stream: TcpStream,
    joining: Joining,
    deadline: Instant,
) -> Result<Joined, Wrong> {
    let broken = |error: std::io::Error| {
        (
            format!("the root ended while the ranks were joining ({error})"),
            "look at the root's (usually rank 0's) own output".to_owned(),
        )
    };
    let request: Frame = frame::encode(&ToRoot::Join(Box::new(joining))).map_err(broken)?;
    stream.write_all(&request).await.map_err(broken)?;
    loop {
        match timeout_at(deadline + GRACE, frame::read::<FromRoot>(&mut stream)).await {
            Err(_) => {
                return Err((
                    "the root did not say within the deadline that all ranks have arrived".into(),
                    "is the root stopped or overloaded?".into(),
                ));
            }
            Ok(Err(error)) => return Err(broken(error)),
            Ok(Ok(FromRoot::Refused { cause, hint })) => return Err((cause, hint)),
            Ok(Ok(welcome @ FromRoot::Welcome { .. })) => return Ok(Joined { stream, welcome }),
            Ok(Ok(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_elsewhere;

    #[test]
    fn only_foreign_addresses_are_elsewhere() {
        assert!(is_elsewhere("127.0.0.1").is_none() && is_elsewhere("::1").is_none());
        assert!(is_elsewhere("0.0.0.0").is_none() && is_elsewhere("localhost").is_none());
        // 203.0.113.0/24 is kept for documentation: no host has it.
        assert!(is_elsewhere("203.0.113.7").is_some_and(|local| local.starts_with("it has")));
    }
}
