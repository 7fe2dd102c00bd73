//! Communicators of the ranks of another one and of new ones.
//!
//! Unlike those of [`split`](super::split), which share what their parent has, they are a job of their own: the ranks that
//! are new have to meet the others first. All meet at a [`UniqueId`] anew; the parent says which.

use crate::bootstrap::{Meeting, UniqueId};
use crate::communicator::Communicator;
use crate::config::Config;
use crate::error::{Error, Result};

impl Communicator {
    /// An id for [`Communicator::grow`], made with this communicator's settings: this process serves the ranks that meet
    /// there, so it lives as long as the new communicator. Does not block.
    ///
    /// # Errors
    /// As [`UniqueId::create`]; [`Error::Forked`] in a forked child.
    pub fn unique_id(&self) -> Result<UniqueId> {
        self.shared().born.check()?;
        UniqueId::create(self.config())
    }

    /// A communicator of `size` ranks: those of this one, which keep their numbers, and new ones, which take the numbers
    /// from this one's size on and join by [`Communicator::new`] with the same id and size. Every rank of this one calls
    /// it with the same `size`; one of them, or several, pass the id, which they have made by [`Communicator::unique_id`]
    /// and handed to the new ranks. Afterwards this communicator is what it was; leave it if it is not needed.
    ///
    /// Where a rank was lost, [`Communicator::shrink`] comes first: those that are left grow by its successors.
    ///
    /// Blocks until all have joined, at most [`Config::timeout`](crate::Config::timeout) for the ranks of this one and
    /// [`Config::init_timeout`](crate::Config::init_timeout) for the new ones.
    ///
    /// # Errors
    /// As a collective call; [`Error::InvalidArgument`] on every rank when one asks for another size than the others or
    /// for no larger one than this one's, when none passes an id, or two different ones; [`Error::Join`] when the new ranks
    /// do not come, with who is missing.
    pub fn grow(&self, size: u32, id: Option<&UniqueId>) -> Result<Communicator> {
        self.growth(size, id)?.join()
    }

    /// The first half of [`Communicator::grow`], a collective call; the other half, which waits for the new ranks, may be on
    /// another thread, and this communicator is used meanwhile.
    ///
    /// # Errors
    /// As [`Communicator::grow`], but for [`Error::Join`].
    pub fn growth(&self, size: u32, id: Option<&UniqueId>) -> Result<Growth> {
        let mut mine = [0; RECORD];
        let (wanted, meeting) = mine.split_at_mut(SIZE);
        wanted.copy_from_slice(&size.to_le_bytes());
        if let Some(id) = id {
            meeting.copy_from_slice(&id.to_bytes());
        }
        let mut all = vec![0; RECORD * self.size() as usize];
        self.all_gather_into(&mine, &mut all)?;
        let id = agree(all.as_chunks().0)?;
        let label = format!("{}/grown", self.label());
        Ok(Growth { id, rank: self.rank(), size, config: self.config().clone(), label })
    }
}

/// What the ranks of a communicator that grows have agreed on; see [`Communicator::growth`].
#[derive(Clone, Debug)]
pub struct Growth {
    id: UniqueId,
    rank: u32,
    size: u32,
    config: Config,
    label: String,
}

impl Growth {
    /// Joins the new communicator. Blocks until all have, at most [`Config::init_timeout`].
    ///
    /// # Errors
    /// [`Error::Join`] when the new ranks do not come, with who is missing.
    pub fn join(self) -> Result<Communicator> {
        Communicator::join(&Meeting::Id(self.id), self.rank, self.size, &self.config, self.label)
    }
}

/// What each rank says: the size that it asks for, and the id, or zeros, which are none.
type Record = [u8; RECORD];
const SIZE: usize = size_of::<u32>();
const RECORD: usize = SIZE + UniqueId::BYTES;

/// Where all meet, by what each rank says; every rank finds the same.
fn agree(records: &[Record]) -> Result<UniqueId> {
    let refuse =
        |what: String, hint: &str| Err(Error::InvalidArgument { call: "grow", what, hint: hint.into() });
    let size = |record: &Record| u32::from_le_bytes(std::array::from_fn(|i| record[i]));
    let wanted = records.first().map_or(0, size);
    if let Some(other) = records.iter().position(|record| size(record) != wanted) {
        let what = format!("rank 0 asks for {wanted} ranks, rank {other} for {}", size(&records[other]));
        return refuse(what, "all ranks pass the size of the new communicator");
    }
    if wanted as usize <= records.len() {
        let what = format!("{wanted} ranks, where there are {}", records.len());
        return refuse(
            what,
            "pass the size of the new communicator, old and new ranks together; shrink makes smaller ones",
        );
    }
    let mut ids = (0..).zip(records).filter(|(_, record)| record[SIZE..].iter().any(|&byte| byte != 0));
    let Some((first, record)) = ids.next() else {
        return refuse(
            "no rank passes an id".into(),
            "one makes it by unique_id, hands it to the new ranks and passes it",
        );
    };
    if let Some((other, _)) = ids.find(|(_, other)| other[SIZE..] != record[SIZE..]) {
        let what = format!("ranks {first} and {other} pass different ids");
        return refuse(what, "one rank makes the id, and all that pass one pass this");
    }
    UniqueId::from_bytes(std::array::from_fn(|i| record[SIZE + i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(size: u32, id: Option<&UniqueId>) -> Record {
        let (size, id) = (size.to_le_bytes(), id.map_or([0; UniqueId::BYTES], UniqueId::to_bytes));
        std::array::from_fn(|i| if i < SIZE { size[i] } else { id[i - SIZE] })
    }

    #[test]
    fn ranks_agree_on_one_id_and_size() {
        let [one, other] = [(), ()].map(|()| UniqueId::create(&Config::default()).unwrap());
        let of = |records: &[Record]| agree(records).map_err(|error| error.to_string());
        assert_eq!(of(&[record(3, None), record(3, Some(&one))]), Ok(one));
        assert_eq!(of(&[record(3, Some(&one)), record(3, Some(&one))]), Ok(one));
        let refused = |records: &[Record], words: &str| {
            let text = of(records).expect_err("they do not agree");
            assert!(text.contains(words), "{text}");
        };
        refused(&[record(3, Some(&one)), record(4, None)], "rank 0 asks for 3 ranks, rank 1 for 4");
        refused(&[record(2, Some(&one)), record(2, None)], "2 ranks, where there are 2");
        refused(&[record(3, None), record(3, None)], "no rank passes an id");
        refused(
            &[record(4, None), record(4, Some(&one)), record(4, Some(&other))],
            "ranks 1 and 2 pass different ids",
        );
    }
}
