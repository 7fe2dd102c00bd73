//! A rank's task on the control thread, from joining to the goodbye of its last communicator.

use super::JoinOptions;
use super::links::{self, Listeners};
use super::progress::before;
use super::shared::{Shared, WORLD};
use super::stall::Stall;
use super::station::Station;
use crate::bootstrap::frame;
use crate::bootstrap::group::Group;
use crate::bootstrap::message::{FromRoot, Named, Report, Silence, Standing, State, ToRoot};
use crate::bootstrap::serving::{how_it_ended, write_out};
use crate::error::Failure;
use rccl_transport::memory::PeerRegions;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// If the root has not decided by then, what this rank saw is its failure.
const DECISION: Duration = Duration::from_millis(2500);
/// How long a goodbye waits for its answer.
const GOODBYE: Duration = Duration::from_millis(800);
/// The longest reason or cause that is passed on, in bytes.
const LONGEST_TEXT: usize = 2000;

/// What the engine asks the session to do. Communicators are named by id: one that was left meanwhile needs nothing.
pub(crate) enum Command {
    /// Make links of the communicator to these of its ranks.
    Link(u64, Vec<u32>),
    /// Fetch these regions of a rank of the job.
    Regions(u32, Arc<PeerRegions>, Vec<u16>),
    /// A call of the communicator does not move.
    Stall(u64, Stall),
    /// Tell the root, even if the communicator was left meanwhile; the failure holds if it does not decide.
    Report { communicator: u64, group: Arc<Group>, report: Report, otherwise: Failure },
    /// The rank has left a communicator. If that was the last one, the session ends and answers.
    Leave { communicator: u64, last: Option<SyncSender<()>> },
    /// Die.
    #[cfg(test)]
    Vanish,
}

/// Text that fits in a message.
pub(crate) fn shorten(text: &str) -> String {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The report that the link to rank `peer` of the communicator broke.
/// `sequence`: of the collective call that needed it; `None`: it was never made, or messages did.
pub(crate) fn link_lost(
    shared: &Shared,
    peer: u32,
    transport: &str,
    sequence: Option<u32>,
    cause: &str,
) -> Command {
    let arrived = sequence.is_none();
    let sequence = sequence.unwrap_or(0);
    let (transport, cause) = (transport.to_owned(), shorten(cause));
    let failure = Failure::LinkLost {
        rank: shared.me.rank,
        peer,
        transport: transport.clone(),
        sequence,
        cause: cause.clone(),
    };
    shared.reporting(Report::LinkLost { peer, transport, sequence, cause, arrived }, failure)
}

/// A rank of the job on the control thread, with all its communicators.
pub(crate) struct Session {
    station: Arc<Station>,
    /// `None` once the root has gone.
    outbox: Option<UnboundedSender<frame::Frame>>,
    writer: tokio::task::JoinHandle<()>,
    hearing: UnboundedReceiver<io::Result<FromRoot>>,
    commanded: UnboundedReceiver<Command>,
    /// Connecting, accepting, reading; a task may end with a command to be done.
    tasks: JoinSet<Option<Command>>,
    /// By communicator, its ranks that a link was asked for to.
    linked: HashMap<u64, HashSet<u32>>,
    /// By communicator, the call that does not move.
    stalls: HashMap<u64, Stall>,
    /// By communicator, what was reported, and until when the root may decide.
    undecided: HashMap<u64, (Instant, Failure)>,
    /// Ranks of the job to be connected to as soon as the root has told their details, and for which communicators.
    wanted: HashMap<u32, Vec<u64>>,
    silence: Silence,
    late_warn: Duration,
    last_heard: Instant,
    silent: bool,
    ticked: Instant,
    /// The root's process has said goodbye, after entering these calls of the communicators that it was in.
    root_left: Option<HashMap<u64, u32>>,
    goodbye: Option<(Instant, SyncSender<()>)>,
}

impl Session {
    pub(crate) fn new(
        station: Arc<Station>,
        stream: TcpStream,
        commanded: UnboundedReceiver<Command>,
        listeners: Listeners,
        options: &JoinOptions,
    ) -> Session {
        let (from, to) = stream.into_split();
        let (outbox, inbox) = unbounded_channel();
        let (heard, hearing) = unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(read_all(from, heard));
        listeners.serve(&station, &mut tasks);
        Session {
            station,
            outbox: Some(outbox),
            writer: tokio::spawn(write_out(inbox, to)),
            hearing,
            commanded,
            tasks,
            linked: HashMap::new(),
            stalls: HashMap::new(),
            undecided: HashMap::new(),
            wanted: HashMap::new(),
            silence: options.silence,
            late_warn: options.late_warn,
            last_heard: Instant::now(),
            silent: false,
            ticked: Instant::now(),
            root_left: None,
            goodbye: None,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let due = self.due();
            let over = tokio::select! {
                Some(command) = self.commanded.recv() => self.obey(command),
                message = self.hearing.recv(), if self.outbox.is_some() => self.hear(message),
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Some(command)) => self.obey(command),
                    _ => false,
                },
                () = tokio::time::sleep_until(due) => false,
            };
            if over || self.act(Instant::now()) {
                break;
            }
        }
        // What was said last still goes out: the writer ends when its queue is empty.
        self.outbox = None;
        // Also removes the path socket.
        self.tasks.shutdown().await;
        let _ = tokio::time::timeout(Duration::from_millis(100), &mut self.writer).await;
        if let Some((_, said)) = self.goodbye.take() {
            let _ = said.try_send(());
        }
    }

    /// Does as the engine asks; `true` ends the session.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Link(communicator, peers) => {
                if let Some(shared) = self.station.find(communicator) {
                    self.link(&shared, peers);
                }
            }
            Command::Regions(rank, regions, numbers) => {
                self.tasks.spawn(links::fetch_regions(self.station.clone(), rank, regions, numbers));
            }
            Command::Stall(communicator, stall) => {
                let known = self.stalls.get_mut(&communicator);
                if !known.is_some_and(|known| known.said_again(&stall))
                    && let Some(shared) = self.station.find(communicator)
                {
                    shared.waiting().clear();
                    self.stalls.insert(communicator, stall);
                }
            }
            Command::Report { communicator, group, report, otherwise } => {
                let shared = self.station.find(communicator);
                if self.outbox.is_some() {
                    self.say(&ToRoot::Report { communicator: Named::new(communicator, &group), report });
                    if shared.is_some() {
                        let until = Instant::now() + DECISION;
                        self.undecided.entry(communicator).or_insert((until, otherwise));
                    }
                } else if let Some(shared) = shared {
                    shared.fail(otherwise);
                }
            }
            Command::Leave { communicator, last } => return self.leave(communicator, last),
            #[cfg(test)]
            Command::Vanish => {
                self.writer.abort();
                return true;
            }
        }
        false
    }

    /// Forgets a communicator that was left; `true` ends the session.
    fn leave(&mut self, communicator: u64, last: Option<SyncSender<()>>) -> bool {
        self.linked.remove(&communicator);
        self.stalls.remove(&communicator);
        self.undecided.remove(&communicator);
        if self.outbox.is_none() {
            let Some(said) = last else { return false };
            // Told when the session has ended.
            self.goodbye = Some((Instant::now(), said));
            return true;
        }
        if communicator == WORLD || last.is_some() {
            let state = match self.station.standing(WORLD) {
                Standing::In(state) | Standing::Left(state) => state,
                Standing::Absent => State::default(),
            };
            let last = last.is_some().then(|| self.station.calls_left());
            self.say(&ToRoot::Goodbye { state, last });
        }
        if let Some(said) = last {
            self.goodbye = Some((Instant::now() + GOODBYE, said));
        }
        false
    }

    fn link(&mut self, shared: &Arc<Shared>, peers: Vec<u32>) {
        for peer in peers {
            let Some(rank) = shared.group.outside(peer) else { continue };
            // Of a pair the lower rank of the job connects; the higher one's listener is always open.
            if self.station.me.rank >= rank || !self.linked.entry(shared.id).or_default().insert(peer) {
                continue;
            }
            if self.station.peer(rank).is_some() {
                self.tasks.spawn(links::connect(shared.clone(), peer));
            } else if self.outbox.is_none() {
                let cause = "the root has left, so the peer's address cannot be asked for";
                self.obey(link_lost(shared, peer, "control", None, cause));
            } else {
                let asking = self.wanted.entry(rank).or_default();
                asking.push(shared.id);
                if asking.len() == 1 {
                    self.say(&ToRoot::Ask { rank });
                }
            }
        }
    }

    /// Takes in what the root says, or that it says nothing more; `true` ends the session.
    fn hear(&mut self, message: Option<io::Result<FromRoot>>) -> bool {
        self.last_heard = Instant::now();
        if std::mem::take(&mut self.silent) {
            tracing::warn!("the root, {}, is back", self.station.root);
        }
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                self.outbox = None;
                return self.root_ended(how_it_ended(&error));
            }
            None => {
                self.outbox = None;
                return self.root_ended("exited without goodbye".into());
            }
        };
        match message {
            FromRoot::Ping => self.say(&ToRoot::Pong),
            FromRoot::Query { communicator, round } => {
                let standing = self.station.standing(communicator);
                self.say(&ToRoot::State { communicator, round, standing });
            }
            FromRoot::Details { rank, details } => {
                self.station.meet(rank, *details);
                for communicator in self.wanted.remove(&rank).unwrap_or_default() {
                    if let Some(shared) = self.station.find(communicator)
                        && let Some(peer) = shared.group.inside(rank)
                    {
                        self.tasks.spawn(links::connect(shared, peer));
                    }
                }
            }
            FromRoot::Waiting { communicator, sequence, missing } => {
                if let Some(stall) = self.stalls.get_mut(&communicator)
                    && stall.sequence == sequence
                    && let Some(shared) = self.station.find(communicator)
                {
                    *shared.waiting() = missing;
                    stall.log_if_late(&shared, self.late_warn);
                }
            }
            FromRoot::Failed { communicator, failure } => self.station.failed(communicator, failure),
            FromRoot::Lost { member, how } => self.station.lost(member, how),
            FromRoot::Leaving { entered, others } => {
                if self.goodbye.is_some() {
                    return true;
                }
                self.root_left = Some(others.into_iter().chain([(WORLD, entered)]).collect());
            }
            FromRoot::Refused { .. } | FromRoot::Welcome { .. } => {}
        }
        false
    }

    fn root_ended(&mut self, how: String) -> bool {
        if self.goodbye.is_some() {
            return true;
        }
        for (communicator, (_, failure)) in std::mem::take(&mut self.undecided) {
            // A link that broke, or a peer that gave up before this rank did, was the first sign of the root's death.
            let a_sign = matches!(failure, Failure::LinkLost { .. } | Failure::PeerLost { .. });
            if self.root_left.is_none() && a_sign {
                continue;
            }
            if let Some(shared) = self.station.find(communicator) {
                shared.fail(failure);
            }
        }
        if self.root_left.is_none() {
            self.station.root_lost(format!("(the root) {how}"));
            // It cannot remove its path socket any more, and no root is left to do it.
            let Station { root, layout, me, secret, .. } = &*self.station;
            let host = |rank: u32| layout.host.get(rank as usize);
            if host(root.rank).is_some() && host(root.rank) == host(me.rank) {
                links::forget_rank(secret.job, root.rank, root.pid);
            }
        }
        false
    }

    /// When something has to be done even if nothing happens.
    fn due(&self) -> Instant {
        let mut due = self.ticked + self.silence.pulse();
        due = self.stalls.values().map(|stall| stall.ask).fold(due, Instant::min);
        due = self.undecided.values().map(|(until, _)| *until).fold(due, Instant::min);
        if let Some((until, _)) = &self.goodbye {
            due = due.min(*until);
        }
        due
    }

    /// Does what is due; `true` ends the session.
    fn act(&mut self, now: Instant) -> bool {
        if now >= self.ticked + self.silence.pulse() {
            self.tick(now);
        }
        for (communicator, (_, failure)) in self.undecided.extract_if(|_, (until, _)| now >= *until) {
            if let Some(shared) = self.station.find(communicator) {
                shared.fail(failure);
            }
        }
        let asking = self.stalls.iter().filter(|(_, stall)| now >= stall.ask);
        for communicator in asking.map(|(&communicator, _)| communicator).collect::<Vec<_>>() {
            self.ask(communicator, now);
        }
        self.goodbye.as_ref().is_some_and(|(until, _)| now >= *until)
    }

    /// Asks the root, again and again in growing intervals, who is missing, while the call does not end.
    fn ask(&mut self, communicator: u64, now: Instant) {
        let Some(stall) = self.stalls.get_mut(&communicator) else { return };
        let Some(shared) = self.station.find(communicator) else {
            self.stalls.remove(&communicator);
            return;
        };
        let sequence = stall.sequence;
        let is_over = stall.awaited.is_empty() && shared.progress.inside() != sequence;
        if is_over || shared.failure().is_some() {
            self.stalls.remove(&communicator);
            shared.waiting().clear();
            return;
        }
        stall.asked(now, self.late_warn);
        let (awaited, arrived) = (stall.awaited.clone(), stall.arrived);
        let entered = self.root_left.as_ref().map(|entered| entered.get(&shared.id).copied());
        // A message may be on its way as long as there may be a link (Case::stalled).
        let before = std::mem::replace(&mut stall.in_vain, entered.is_some());
        let judged = entered.filter(|_| awaited.is_empty() || (arrived && before));
        match judged.and_then(|entered| self.needs_root(&shared, sequence, &awaited, entered)) {
            // It will never enter the call, and it needs no asking.
            Some(how) => shared.fail(super::directory::root_lost(&self.station.root, &shared, how, sequence)),
            None => {
                let communicator = Named::new(communicator, &shared.group);
                self.say(&ToRoot::Stalled { communicator, sequence, awaited, arrived });
            }
        }
    }

    /// How the root, which has left after entering call `entered` of this communicator, is missed in a call; `None`: it is
    /// not.
    fn needs_root(
        &self,
        shared: &Shared,
        sequence: u32,
        awaited: &[u32],
        entered: Option<u32>,
    ) -> Option<String> {
        let rank = shared.group.inside(self.station.root.rank)?;
        let needed = match awaited {
            [] => entered.is_none_or(|entered| before(entered, sequence)),
            awaited => awaited.contains(&rank),
        };
        needed.then(|| match entered {
            Some(entered) => format!("left the job after op #{entered}"),
            None => "left the job".into(),
        })
    }

    /// Looks whether the root lives.
    fn tick(&mut self, now: Instant) {
        // If this process was stopped, that says nothing about the root.
        let stopped = now.saturating_duration_since(self.ticked).saturating_sub(self.silence.pulse() * 2);
        self.last_heard += stopped;
        self.ticked = now;
        if self.outbox.is_none() || self.root_left.is_some() {
            return;
        }
        let silent = now.saturating_duration_since(self.last_heard);
        if silent >= self.silence.fatal + self.silence.pulse() * 2 {
            self.station.root_lost(format!("(the root) has been silent for {:.0} s", silent.as_secs_f64()));
        } else if silent >= self.silence.warn && !std::mem::replace(&mut self.silent, true) {
            tracing::warn!(
                "{}: the root, {}, has been silent for {:.1} s",
                self.station.me,
                self.station.root,
                silent.as_secs_f64()
            );
        }
    }

    fn say(&self, message: &ToRoot) {
        let Some(outbox) = &self.outbox else { return };
        match frame::encode(message) {
            Ok(frame) => {
                let _ = outbox.send(frame);
            }
            Err(error) => tracing::warn!(%error, "a message to the root was not sent"),
        }
    }
}

async fn read_all(
    mut from: tokio::net::tcp::OwnedReadHalf,
    heard: UnboundedSender<io::Result<FromRoot>>,
) -> Option<Command> {
    loop {
        let message = frame::read::<FromRoot>(&mut from).await;
        let ended = message.is_err();
        if heard.send(message).is_err() || ended {
            return None;
        }
    }
}
