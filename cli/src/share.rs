//! Ranks that tell each other something: what commands under a launcher have in common.

use rccl::config::{Net, Transports};
use rccl::launch::Launcher;
use rccl::{Communicator, Config, ReduceOp};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Joins the ranks that a launcher started, over TCP and shared memory only: so that the path beside RDMA is known to work
/// when RDMA does not. `None` where there is no launcher, or one rank only.
///
/// # Errors
/// As [`Communicator::from_env`].
pub fn join(config: &Config, label: &str) -> rccl::Result<Option<Communicator>> {
    if rccl::launch::detect(config)?.launcher == Launcher::None {
        return Ok(None);
    }
    let mut config = config.clone();
    (config.net, config.transport) = (Net::Tcp, Transports::default());
    let communicator = Communicator::builder()?.config(config).label(label).from_env()?;
    Ok((communicator.size() > 1).then_some(communicator))
}

/// Every rank's word, on every rank. Words may be of any length.
///
/// # Errors
/// A rank was lost, or reads the words otherwise: it runs another version.
pub fn share<T: Serialize + DeserializeOwned>(communicator: &Communicator, word: &T) -> rccl::Result<Vec<T>> {
    let mine = written(word);
    let mut lengths = vec![0_u64; communicator.size() as usize];
    communicator.all_gather_into(&[mine.len() as u64], &mut lengths)?;
    let counts: Vec<usize> = lengths.iter().map(|&length| length as usize).collect();
    let mut all = vec![0_u8; counts.iter().sum()];
    communicator.all_gather_v_into(&mine, &mut all, &counts)?;
    let words = read(&all, &counts);
    // All see the same bytes, but versions may read them differently; so all agree to give up.
    let mut unreadable = [u8::from(words.is_none())];
    communicator.all_reduce(&mut unreadable, ReduceOp::Max)?;
    match words.filter(|_| unreadable == [0]) {
        Some(words) => Ok(words),
        None => Err(give_up(communicator)),
    }
}

/// Every rank's word, on rank 0, which the others do not wait for. Theirs is `None`.
///
/// # Errors
/// A rank was lost, or, on rank 0, runs another version; the others meet that in their next call.
pub fn gather<T: Serialize + DeserializeOwned>(
    communicator: &Communicator,
    word: &T,
) -> rccl::Result<Option<Vec<T>>> {
    let mine = written(word);
    let is_root = communicator.rank() == 0;
    let mut lengths = vec![0_u64; if is_root { communicator.size() as usize } else { 0 }];
    communicator.gather_into(&[mine.len() as u64], &mut lengths, 0)?;
    let counts: Vec<usize> = lengths.iter().map(|&length| length as usize).collect();
    let mut all = vec![0_u8; counts.iter().sum()];
    communicator.gather_v_into(&mine, &mut all, &counts, 0)?;
    if !is_root {
        return Ok(None);
    }
    read(&all, &counts).map(Some).ok_or_else(|| give_up(communicator))
}

fn written(word: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(word).expect("words of strings, numbers and lists")
}

/// Words of these lengths.
fn read<T: DeserializeOwned>(mut all: &[u8], counts: &[usize]) -> Option<Vec<T>> {
    let mut next = |&count: &usize| {
        let (word, after) = all.split_at(count);
        all = after;
        serde_json::from_slice(word).ok()
    };
    counts.iter().map(&mut next).collect()
}

/// Ends the job for all ranks.
fn give_up(communicator: &Communicator) -> rccl::Error {
    communicator.abort("the ranks run different versions of rccl");
    loop {
        // An aborted communicator fails every call.
        if let Err(error) = communicator.barrier() {
            return error;
        }
    }
}
