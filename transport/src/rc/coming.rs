//! What comes: completions, and the frames and pieces that they announce.

use super::RcLink;
use super::failure::Failure;
use super::frame::{self, Arrival, ENTRY, Frame, HEADER};
use super::pairs::Arrived;
use super::receiving::Head;
use crate::link::WINDOW;

impl RcLink {
    /// Takes in all writes that are complete; `true` if there were any.
    pub(super) fn take_in(&mut self) -> Result<bool, Failure> {
        let mut news = false;
        while let Some(arrived) = self.pairs.next()? {
            match self.arrive(arrived) {
                Err(Failure::OutOfTurn { what }) => return Err(self.pairs.disordered(arrived.pair, &what)),
                done => done?,
            }
            news = true;
        }
        if news {
            self.pairs.post_again()?;
        }
        Ok(news)
    }

    /// Takes in what a write of the peer has brought; [`Failure::OutOfTurn`] if that is not what comes next.
    pub(super) fn arrive(&mut self, Arrived { immediate, bytes, .. }: Arrived) -> Result<(), Failure> {
        let (arrival, number) = frame::announced(immediate, |arrival| self.receiving.expected(arrival));
        match arrival {
            Arrival::Frame => {
                self.receiving.frame(number)?;
                let frame = self.read_frame(self.block.layout.frame(number), ENTRY)?;
                self.take_frame(&frame)
            }
            Arrival::Eager(message) => {
                self.receiving.frame(number)?;
                let frame = self.read_frame(self.block.layout.home(message as u64), HEADER)?;
                let fits =
                    frame.kind == frame::Kind::Eager && u64::from(bytes) == HEADER as u64 + frame.length;
                if !fits || frame.message % WINDOW as u64 != message as u64 {
                    let what =
                        format!("{bytes} bytes for message {message} of the window, which say {frame:?}");
                    return Err(Failure::Protocol { what });
                }
                self.take_frame(&frame)
            }
            Arrival::Slot(_) | Arrival::Landed(_) => {
                let staged = self.receiving.piece(arrival, number, bytes)?;
                if staged > 0 {
                    self.rails.count_staged(staged);
                }
                Ok(())
            }
        }
    }

    /// Reads the first `len` bytes of the frame at an offset of the receive area.
    fn read_frame(&self, offset: usize, len: usize) -> Result<Frame, Failure> {
        let mut bytes = [0; ENTRY];
        // SAFETY: an entry or a home has `len` bytes, at most those of an entry; the write that filled it is complete,
        // and the peer does not write there again before it is told that the frame was taken. Should it do so against
        // the protocol, the copy is of any bytes, which are checked.
        unsafe { std::ptr::copy_nonoverlapping(self.block.at(offset), bytes.as_mut_ptr(), len) };
        frame::decode(&bytes, self.options.eager).map_err(|what| Failure::Protocol { what })
    }

    fn take_frame(&mut self, frame: &Frame) -> Result<(), Failure> {
        let Frame { kind, message, tag, length, counts, target } = *frame;
        let pairs = &mut self.pairs;
        self.sending.confirm(counts, |pair| pairs.confirm(pair))?;
        match kind {
            frame::Kind::Eager => self.receiving.announce(message, tag, length, Head::Eager),
            frame::Kind::Open => self.receiving.announce(message, tag, length, Head::Open),
            frame::Kind::Grant => self.sending.grant(message, tag, length, target),
            frame::Kind::Credit => Ok(()),
        }
    }
}
