//! The contract of [`Link`] on top of windows, frames and pieces.

use std::os::fd::{AsFd, BorrowedFd};

use super::failure::Failure;
use super::frame::{self, Frame, HEADER};
use super::moving::Path;
use super::receiving::Head;
use super::sending::{Destination, Kept, Origin, Piece, Reserved, Way};
use super::{LOOK, RcLink, no_slots};
use crate::link::{Incoming, Kind, Limits, Link, MessageId, Place, Result, Sink, Source, Tag};

impl Link for RcLink {
    fn in_software(&self) -> bool {
        self.chosen.iter().any(|address| self.rails.of(address).software)
    }
    fn kind(&self) -> Kind {
        Kind::Verbs
    }

    fn limits(&self) -> Limits {
        Limits { eager: self.options.eager, unasked: self.options.eager, slot: self.options.slot }
    }

    fn poll(&mut self) -> Result<()> {
        if let Some(failure) = &self.failed {
            return Err(failure.into());
        }
        if self.receiving.is_due() {
            // Nobody flushed since: a caller that only receives need not.
            self.flush()?;
        }
        self.polls += 1;
        // What the peer had sent is complete here before its end is seen, so it is looked for after that.
        let looks = self.polls >= LOOK || !self.is_ready() || !matches!(self.path, Path::Pairs);
        if looks {
            if let Err(failure) = self.look() {
                return self.fail(failure);
            }
            if let Some(lost) = self.lost() {
                self.broken(lost)?;
            }
        }
        match self.take_in() {
            Ok(true) => {
                self.polls = 0;
                self.transmit_waiting();
                // What came may end what the caller waits for, who is to see that before the peer's end.
                return Ok(());
            }
            Ok(false) if looks && self.is_ready() => {
                if let Some(overdue) = self.pairs.overdue(self.patience) {
                    self.broken(overdue)?;
                }
            }
            Ok(false) => {}
            // The peer's queue pairs are gone with it; what had come before is still good.
            Err(Failure::Verbs { .. }) if self.ended.is_some() => {}
            Err(failure) => self.broken(failure)?,
        }
        self.transmit_waiting();
        self.check()
    }

    fn flush(&mut self) -> Result<()> {
        if self.failed.is_some() || self.ended.is_some() {
            return self.check();
        }
        if self.receiving.is_due() && self.takes_frame(true) {
            self.add_frame(frame::Kind::Credit, 0, Tag::default(), 0, None);
        }
        if matches!(self.path, Path::Pairs)
            && !self.is_ready()
            && let Err(failure) = self.look()
        {
            return self.fail(failure);
        }
        match self.path {
            Path::Pairs if self.is_ready() => {
                self.make_fault();
                if let Err(failure) = self.pairs.flush() {
                    return self.refused(failure);
                }
            }
            Path::Pairs | Path::Moving(_) => {}
            Path::Socket => {
                if let Err(failure) = self.flush_side() {
                    return self.fail(failure);
                }
            }
        }
        Ok(())
    }

    fn drained(&self) -> bool {
        let flushed = match self.path {
            Path::Pairs => self.pairs.is_flushed(),
            Path::Moving(_) => self.sending.is_confirmed(),
            Path::Socket => self.side.is_flushed(),
        };
        let nothing_waits = flushed && self.sending.next_waiting().is_none() && !self.receiving.is_due();
        self.failed.is_some() || self.ended.is_some() || nothing_waits
    }

    unsafe fn send_eager(&mut self, tag: Tag, bytes: *const u8, len: usize) -> Result<bool> {
        self.check_can_send()?;
        let m = self.sending.next;
        if len > self.options.eager {
            return self.misused("an eager message above the eager limit", m);
        }
        if !self.sending.window_is_open() || !self.sending.has_place() || !self.takes_frame(false) {
            return Ok(false);
        }
        let number = self.sending.next_frame(Kept { eager: Some(m), len: HEADER + len });
        self.sending.next += 1;
        let counts = self.receiving.tell();
        let length = len as u64;
        let head = Frame { kind: frame::Kind::Eager, message: m, tag, length, counts, target: None };
        let (head, _) = frame::encode(&head);
        let to = self.block.at(self.block.layout.sending(self.block.layout.home(m)));
        // SAFETY: a home holds the frame and an eager message; the peer is done with what was in it before, so the device
        // does not read it.
        unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), to, HEADER) };
        // SAFETY: as above; the caller vouches for `len` readable bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes, to.wrapping_add(HEADER), len) };
        self.transmit_frame(number);
        Ok(true)
    }

    fn open_send(&mut self, tag: Tag, len: u64, source: Option<Place>) -> Result<Option<MessageId>> {
        self.check_can_send()?;
        if !self.sending.window_is_open() || !self.sending.has_place() || !self.takes_frame(false) {
            return Ok(None);
        }
        let registered = self.registered(source, len).is_some();
        let m = self.sending.open(tag, len, registered);
        self.add_frame(frame::Kind::Open, m, tag, len, None);
        Ok(Some(m))
    }

    fn sink(&mut self, m: MessageId) -> Result<Sink> {
        self.check()?;
        match self.sending.sink(m) {
            Some(sink) => Ok(sink),
            None => self.misused("asked for the sink of a message that is not open", m),
        }
    }

    fn reserve(&mut self, m: MessageId, len: usize) -> Result<Option<*mut u8>> {
        self.check_can_send()?;
        let layout = self.block.layout;
        if len > self.options.slot {
            return self.misused("a slot is longer than the limit", m);
        }
        if self.sending.leaving(m, Way::Staged).is_none() {
            return self.misused("reserved a slot for a message that is not staged", m);
        }
        if layout.slots == 0 {
            return self.fail(no_slots(m, true));
        }
        let room = self.sending.reserved.is_none() && self.takes_piece();
        if !room || !self.sending.may_stage(m) || !self.sending.has_slot(&layout) {
            return Ok(None);
        }
        self.sending.reserved = Some(Reserved { message: m, len });
        Ok(Some(self.block.at(layout.sending(layout.slot(self.sending.slots)))))
    }

    fn commit(&mut self, m: MessageId, len: usize) -> Result<()> {
        self.check_can_send()?;
        let Some(Reserved { message, len: most }) = self.sending.reserved else {
            return self.misused("committed without a reservation", m);
        };
        if message != m || len > most {
            return self.misused("committed another message or more bytes than were reserved", m);
        }
        self.sending.reserved = None;
        if len == 0 {
            return Ok(());
        }
        let offset = self.block.layout.slot(self.sending.slots);
        let (origin, destination) =
            (Origin::Slot(self.block.layout.sending(offset)), Destination::Slot(offset));
        self.rails.count_staged(len);
        self.sending.add_piece(Piece { message: m, len: len as u32, origin, destination, pair: 0 });
        self.transmit_waiting();
        Ok(())
    }

    unsafe fn write(&mut self, m: MessageId, _at: u64, _bytes: *const u8, _len: usize) -> Result<usize> {
        self.misused("no message of a link over verbs is written while a call lasts", m)
    }

    fn wrote(&mut self, m: MessageId, _total: u64) -> Result<()> {
        self.misused("no message of a link over verbs is written in place by its caller", m)
    }

    unsafe fn post(&mut self, m: MessageId, at: u64, bytes: *const u8, len: usize) -> Result<usize> {
        self.check_can_send()?;
        let Some(message) = self.sending.leaving(m, Way::Posted) else {
            return self.misused("posted to a message whose sink is not posted", m);
        };
        if message.taken != at {
            return self.misused("posted bytes that went before, or left some out", m);
        }
        let len = (len as u64).min(message.len - at) as usize;
        let mut done = 0;
        while done < len {
            // SAFETY: passed on; the rest of the caller's bytes.
            let went = unsafe { self.add_piece(m, bytes.wrapping_add(done), len - done, message.target) };
            match went {
                Ok(0) => break,
                Ok(went) => done += went,
                Err(failure) => return self.fail(failure),
            }
        }
        Ok(done)
    }

    fn released(&mut self, m: MessageId) -> u64 {
        self.sending.released(m)
    }

    fn close_send(&mut self, m: MessageId) {
        self.sending.close(m);
    }

    fn open_recv(
        &mut self,
        tag: Tag,
        len: u64,
        eager: bool,
        target: Option<Place>,
    ) -> Result<Option<MessageId>> {
        self.check()?;
        let Some(m) = self.receiving.room() else { return Ok(None) };
        let granted = !eager && len > self.options.eager as u64;
        if !granted || self.ended.is_some() {
            self.receiving.open(len, granted, None);
            return Ok(Some(m));
        }
        if !self.takes_frame(false) {
            return Ok(None);
        }
        let target = self.registered(target, len);
        self.receiving.open(len, true, target.map(|target| target.address));
        self.add_frame(frame::Kind::Grant, m, tag, len, target);
        Ok(Some(m))
    }

    fn incoming(&mut self, m: MessageId) -> Result<Option<Incoming>> {
        if let Some(failure) = &self.failed {
            return Err(failure.into());
        }
        let Some(message) = self.receiving.message(m) else {
            return self.misused("asked for the head of a message that is not open", m);
        };
        if !self.receiving.is_announced(m) {
            return Ok(None);
        }
        let source = match message.head {
            Head::Eager => Source::Eager(self.block.at(self.block.layout.home(m) + HEADER)),
            _ if message.lands() => Source::Landing,
            _ => Source::Staged,
        };
        Ok(Some(Incoming { tag: message.tag, len: Some(message.announced), source }))
    }

    fn peek(&mut self, m: MessageId) -> Result<Option<(*const u8, usize)>> {
        if let Some(failure) = &self.failed {
            return Err(failure.into());
        }
        let layout = &self.block.layout;
        Ok(self.receiving.front(m).map(|(turn, used, left)| {
            let bytes = self.block.at(layout.slot(turn) + used as usize);
            (bytes.cast_const(), left as usize)
        }))
    }

    unsafe fn read(&mut self, m: MessageId, _at: u64, _bytes: *mut u8, _len: usize) -> Result<usize> {
        self.misused("no message of a link over verbs is read", m)
    }

    fn landed(&mut self, m: MessageId) -> u64 {
        self.receiving.landed(m)
    }

    fn release(&mut self, m: MessageId, total: u64) -> Result<()> {
        if !self.receiving.release(m, total) {
            return self.misused("released a message that is not open", m);
        }
        Ok(())
    }

    fn close_recv(&mut self, m: MessageId) {
        self.receiving.close(m);
    }

    fn arm(&mut self) -> bool {
        if self.failed.is_some() {
            return false;
        }
        match self.look() {
            Ok(false) if self.ended.is_none() => {}
            Ok(_) => return false,
            Err(failure) => {
                // The next poll says so.
                let _ = self.fail::<()>(failure);
                return false;
            }
        }
        // What fails here is reported by the next poll.
        self.pairs.arm().is_ok() && !self.pairs.has_news()
    }

    fn disarm(&mut self) {
        self.pairs.disarm();
        // Whoever slept may have been woken by the side socket.
        self.polls = LOOK;
    }

    fn watch(&self, add: &mut dyn FnMut(BorrowedFd<'_>, bool)) {
        for channel in self.pairs.channels() {
            add(channel.fd(), false);
        }
        add(self.side.socket().as_fd(), !self.side.is_flushed());
    }
}
