//! How both ends of a new connection prove that they belong to the same job.
//!
//! ```text
//! caller                                             listener
//!   hello      "RCCL" wire purpose lane rank target job nonce communicator   ->
//!              <-   challenge  "RCCL" wire verdict job nonce
//!   proof      HMAC(key, "caller" hello challenge)              ->
//!              <-   answer     verdict HMAC(key, "listener" hello challenge)
//!
//! hello (64 bytes, little-endian)              challenge (48 bytes)
//!   0  magic "RCCL"                              0  magic "RCCL"
//!   4  wire version u16                          4  wire version u16
//!   6  purpose u8                                6  verdict u8
//!   7  lane u8                                   7  0
//!   8  rank u32                                  8  job u64
//!  12  target u32                               16  nonce [32]
//!  16  job u64
//!  24  nonce [32]
//!  56  communicator u64: whose link it is to be; 0 for the world, and where there is no question
//! ```
//!
//! Both nonces are fresh, so nothing that was recorded can be played again; the labels keep one side's proof from
//! being sent back as the other's. The key itself never travels. Every step is bounded by the caller of these
//! functions with one deadline for the whole exchange.

use crate::error::with_remedy;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Version of everything that processes say to each other, raised with any change. Processes of different versions
/// refuse each other with an error that names both.
pub const WIRE_VERSION: u16 = 8;

const MAGIC: [u8; 4] = *b"RCCL";
const HELLO: usize = 64;
const CHALLENGE: usize = 48;
const PROOF: usize = 32;

const WELCOME: u8 = 0;
const OTHER_VERSION: u8 = 1;
const OTHER_JOB: u8 = 2;
const OTHER_KEY: u8 = 3;

/// What the members of a job know and nobody else.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    /// Number of the job; no secret.
    pub job: u64,
    /// The key.
    pub key: [u8; 16],
}

/// Never prints the key.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret {{ job: {:016x} }}", self.job)
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Purpose {
    /// A rank's control connection to the root.
    Control = 1,
    /// Setting up a link through shared memory, over a path socket.
    Local = 2,
    /// One socket of a TCP link.
    Tcp = 3,
    /// Fetching the memory of registered regions, over a path socket.
    Regions = 4,
    /// Setting up a link over RDMA.
    Verbs = 5,
}

/// Who calls, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub purpose: Purpose,
    /// Which of several connections for the same purpose.
    pub lane: u8,
    /// The caller's rank in the job.
    pub rank: u32,
    /// The rank of the job that it wants to speak to.
    pub target: u32,
    /// The communicator whose link the connection is to be, 0 where it is for none.
    pub communicator: u64,
}

/// Why the other end did not become a partner.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it speaks wire version {theirs} and this process version {WIRE_VERSION}")]
    Version { theirs: u16 },
    #[error("it belongs to job {theirs:016x} and this process to job {ours:016x}")]
    Job { ours: u64, theirs: u64 },
    #[error("the key does not match")]
    Key,
    #[error("what is there does not speak rccl's protocol (it began with {began:?})")]
    Stranger { began: String },
    #[error("the connection broke during the handshake: {}", with_remedy(.0))]
    Io(#[from] io::Error),
    #[error("no answer to the handshake within {0:?}")]
    Late(std::time::Duration),
}

/// Introduces this process to the listener at the other end.
///
/// # Errors
/// A [`Refusal`] that says what the other end is.
pub(crate) async fn introduce<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    secret: &Secret,
    caller: Caller,
) -> Result<(), Refusal> {
    let mut hello = [0; HELLO];
    hello[..4].copy_from_slice(&MAGIC);
    hello[4..6].copy_from_slice(&WIRE_VERSION.to_le_bytes());
    hello[6] = caller.purpose as u8;
    hello[7] = caller.lane;
    hello[8..12].copy_from_slice(&caller.rank.to_le_bytes());
    hello[12..16].copy_from_slice(&caller.target.to_le_bytes());
    hello[16..24].copy_from_slice(&secret.job.to_le_bytes());
    hello[24..56].copy_from_slice(&rand::random::<[u8; 32]>());
    hello[56..64].copy_from_slice(&caller.communicator.to_le_bytes());
    stream.write_all(&hello).await?;

    let mut challenge = [0; CHALLENGE];
    read_after_magic(stream, &mut challenge).await?;
    let theirs = u16::from_le_bytes([challenge[4], challenge[5]]);
    if challenge[6] == OTHER_VERSION || theirs != WIRE_VERSION {
        return Err(Refusal::Version { theirs });
    }
    if challenge[6] == OTHER_JOB {
        let theirs = u64::from_le_bytes(std::array::from_fn(|i| challenge[8 + i]));
        return Err(Refusal::Job { ours: secret.job, theirs });
    }
    stream.write_all(&mac(secret, "caller", &hello, &challenge).finalize().into_bytes()).await?;

    let mut answer = [0; 1 + PROOF];
    stream.read_exact(&mut answer).await?;
    if answer[0] != WELCOME {
        return Err(Refusal::Key);
    }
    mac(secret, "listener", &hello, &challenge).verify_slice(&answer[1..]).map_err(|_| Refusal::Key)
}

/// Finds out who has connected, and tells an honest but wrong caller what is wrong.
///
/// # Errors
/// A [`Refusal`]; the connection is then of no use.
pub(crate) async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    secret: &Secret,
) -> Result<Caller, Refusal> {
    let mut hello = [0; HELLO];
    read_after_magic(stream, &mut hello).await?;
    let theirs = u16::from_le_bytes([hello[4], hello[5]]);
    let job = u64::from_le_bytes(std::array::from_fn(|i| hello[16 + i]));

    let mut challenge = [0; CHALLENGE];
    challenge[..4].copy_from_slice(&MAGIC);
    challenge[4..6].copy_from_slice(&WIRE_VERSION.to_le_bytes());
    challenge[8..16].copy_from_slice(&secret.job.to_le_bytes());
    challenge[16..48].copy_from_slice(&rand::random::<[u8; 32]>());
    challenge[6] = match () {
        () if theirs != WIRE_VERSION => OTHER_VERSION,
        () if job != secret.job => OTHER_JOB,
        () => WELCOME,
    };
    stream.write_all(&challenge).await?;
    match challenge[6] {
        OTHER_VERSION => return Err(Refusal::Version { theirs }),
        OTHER_JOB => return Err(Refusal::Job { ours: secret.job, theirs: job }),
        _ => {}
    }

    let mut proof = [0; PROOF];
    stream.read_exact(&mut proof).await?;
    let mut answer = [0; 1 + PROOF];
    if mac(secret, "caller", &hello, &challenge).verify_slice(&proof).is_err() {
        answer[0] = OTHER_KEY;
        stream.write_all(&answer).await?;
        return Err(Refusal::Key);
    }
    answer[1..].copy_from_slice(&mac(secret, "listener", &hello, &challenge).finalize().into_bytes());
    stream.write_all(&answer).await?;

    let purpose = [Purpose::Control, Purpose::Local, Purpose::Tcp, Purpose::Regions, Purpose::Verbs]
        .into_iter()
        .find(|&purpose| purpose as u8 == hello[6])
        .ok_or_else(|| Refusal::Stranger { began: format!("purpose {}", hello[6]) })?;
    Ok(Caller {
        purpose,
        lane: hello[7],
        rank: u32::from_le_bytes([hello[8], hello[9], hello[10], hello[11]]),
        target: u32::from_le_bytes([hello[12], hello[13], hello[14], hello[15]]),
        communicator: u64::from_le_bytes(std::array::from_fn(|i| hello[56 + i])),
    })
}

/// Fills `bytes`, but gives up after four bytes when they are not the magic: a stranger is not waited for.
async fn read_after_magic<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut [u8]) -> Result<(), Refusal> {
    stream.read_exact(&mut bytes[..4]).await?;
    if bytes[..4] != MAGIC {
        return Err(Refusal::Stranger { began: bytes[..4].escape_ascii().to_string() });
    }
    stream.read_exact(&mut bytes[4..]).await?;
    Ok(())
}

fn mac(secret: &Secret, side: &str, hello: &[u8; HELLO], challenge: &[u8; CHALLENGE]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&secret.key).expect("HMAC takes keys of any length");
    mac.update(side.as_bytes());
    mac.update(hello);
    mac.update(challenge);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: Caller =
        Caller { purpose: Purpose::Tcp, lane: 2, rank: 3, target: 9, communicator: 1 << 40 };

    fn meet(caller: &Secret, listener: &Secret) -> (Result<(), Refusal>, Result<Caller, Refusal>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut one, mut two) = tokio::io::duplex(256);
        runtime
            .block_on(async { tokio::join!(introduce(&mut one, caller, CALLER), admit(&mut two, listener)) })
    }

    #[test]
    fn members_of_one_job_meet() {
        let secret = Secret { job: 5, key: [7; 16] };
        let (called, admitted) = meet(&secret, &secret);
        assert!(called.is_ok());
        assert_eq!(admitted.unwrap(), CALLER);
    }

    #[test]
    fn another_key_or_job_is_told_so() {
        let secret = Secret { job: 5, key: [7; 16] };
        let (called, admitted) = meet(&secret, &Secret { job: 5, key: [8; 16] });
        assert!(matches!(called, Err(Refusal::Key)) && matches!(admitted, Err(Refusal::Key)));
        let (called, admitted) = meet(&secret, &Secret { job: 6, key: [7; 16] });
        assert!(matches!(called, Err(Refusal::Job { ours: 5, theirs: 6 })));
        assert!(matches!(admitted, Err(Refusal::Job { ours: 6, theirs: 5 })));
    }

    #[test]
    fn strangers_and_other_versions_are_recognised() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let secret = Secret { job: 5, key: [7; 16] };
        let (mut one, mut two) = tokio::io::duplex(256);
        let refusal = runtime.block_on(async {
            one.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            admit(&mut two, &secret).await.unwrap_err()
        });
        assert!(matches!(&refusal, Refusal::Stranger { began } if began == "GET "), "{refusal}");

        let (mut one, mut two) = tokio::io::duplex(256);
        let mut hello = [0; HELLO];
        hello[..4].copy_from_slice(&MAGIC);
        hello[4] = 99;
        let refusal = runtime.block_on(async {
            one.write_all(&hello).await.unwrap();
            admit(&mut two, &secret).await.unwrap_err()
        });
        assert!(matches!(refusal, Refusal::Version { theirs: 99 }), "{refusal}");
        let words = format!("it speaks wire version 99 and this process version {WIRE_VERSION}");
        assert_eq!(refusal.to_string(), words);
    }
}
