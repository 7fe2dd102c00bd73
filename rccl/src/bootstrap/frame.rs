//! Framing of control messages: a length, then the message in postcard's encoding.
//!
//! ```text
//! 0        4                 4 + length
//! +--------+------------------+
//! | length | message          |   length: u32, little-endian, 1..=65536
//! +--------+------------------+
//! ```
//!
//! The length is checked before a byte of the message is read, so nobody can make this process reserve memory.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest message in bytes.
pub(crate) const LONGEST: usize = 64 * 1024;

/// A message ready to be written, shared by all who get the same one.
pub(crate) type Frame = Arc<[u8]>;

/// The framed form of `message`.
///
/// # Errors
/// `InvalidData` when it is longer than [`LONGEST`].
pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Frame> {
    let framed = postcard::to_extend(message, vec![0; 4])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    let length = framed.len() - 4;
    if length > LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a control message of {length} bytes is longer than {LONGEST}"),
        ));
    }
    let mut framed = framed;
    framed[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(framed.into())
}

/// Decodes one message; every byte must be used.
///
/// # Errors
/// `InvalidData` for anything that [`encode`] does not write.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} bytes after the message", rest.len())))
        }
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("malformed message: {error}"))),
    }
}

/// Reads the next message. Not cancel-safe: a reader that gives up must close the stream.
///
/// # Errors
/// `UnexpectedEof` when the peer closed, `InvalidData` for a bad length or message, else the system's.
pub(crate) async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let length = stream.read_u32_le().await? as usize;
    if length == 0 || length > LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a control message of {length} bytes; 1..={LONGEST} are allowed"),
        ));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    decode(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::message::{FromRoot, ToRoot};
    use rand::{Rng, SeedableRng, rngs::StdRng};

    #[test]
    fn random_bytes_are_refused_or_decoded_but_never_panic() {
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.random_range(0..80)).map(|_| random.random()).collect();
            let _ = decode::<ToRoot>(&bytes);
            let _ = decode::<FromRoot>(&bytes);
        }
    }

    #[test]
    fn a_message_longer_than_allowed_is_refused_on_both_sides() {
        assert!(encode(&vec![1_u8; LONGEST + 1]).is_err());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut stream: &[u8] = &[0xff; 16];
        let error = runtime.block_on(read::<ToRoot>(&mut stream)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
