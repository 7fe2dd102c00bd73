//! A rank's task on the control thread, from joining to goodbye.

use super::JoinOptions;
use super::links::{self, Listeners};
use super::progress::before;
use super::shared::{Shared, Start};
use crate::bootstrap::connect::{self, Meeting, Wrong};
use crate::bootstrap::frame;
use crate::bootstrap::host::Identity;
use crate::bootstrap::layout;
use crate::bootstrap::message::{Details, FromRoot, Joining, Report, Silence, ToRoot};
use crate::bootstrap::rendezvous;
use crate::bootstrap::serving::{how_it_ended, write_out};
use crate::error::{Error, Failure, Member};
use rccl_transport::memory::PeerRegions;
use rccl_transport::shm::Doorbell;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// If the root has not decided by then, what this rank saw is its failure.
const DECISION: Duration = Duration::from_millis(2500);
/// How long a goodbye waits for its answer.
const GOODBYE: Duration = Duration::from_millis(800);
/// The longest pause between two questions about a call that does not move.
const ASK_AGAIN: Duration = Duration::from_secs(8);
/// The longest reason or cause that is passed on, in bytes.
const LONGEST_TEXT: usize = 2000;

/// What the engine asks the session to do.
pub(crate) enum Command {
    /// Make links to these peers.
    Link(Vec<u32>),
    /// Fetch these regions of a peer.
    Regions(u32, Arc<PeerRegions>, Vec<u16>),
    /// The call with this number does not move.
    Stall(u32),
    /// Tell the root; the failure holds if it does not decide.
    Report(Report, Failure),
    /// Leave, and answer when that is done.
    Goodbye(SyncSender<()>),
    /// Die.
    #[cfg(test)]
    Vanish,
}

/// Why a rank could not join.
pub(crate) enum Failed {
    Join(Wrong),
    Other(Error),
}

impl From<Wrong> for Failed {
    fn from(wrong: Wrong) -> Failed {
        Failed::Join(wrong)
    }
}

/// Text that fits in a message.
pub(crate) fn shorten(text: &str) -> String {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The report that the link to `peer` broke.
pub(crate) fn link_lost(shared: &Shared, peer: u32, transport: &str, sequence: u32, cause: &str) -> Command {
    let (transport, cause) = (transport.to_owned(), shorten(cause));
    let failure = Failure::LinkLost {
        rank: shared.me.rank,
        peer,
        transport: transport.clone(),
        sequence,
        cause: cause.clone(),
    };
    Command::Report(Report::LinkLost { peer, transport, sequence, cause }, failure)
}

/// Joins, tells `result`, and then serves until goodbye.
pub(crate) async fn begin(
    meeting: Meeting,
    rank: u32,
    size: u32,
    options: JoinOptions,
    result: SyncSender<Result<Arc<Shared>, Failed>>,
) {
    match join(meeting, rank, size, options).await {
        Ok(session) => {
            if result.send(Ok(session.shared.clone())).is_ok() {
                session.run().await;
            }
        }
        Err(failed) => {
            let _ = result.send(Err(failed));
        }
    }
}

async fn join(meeting: Meeting, rank: u32, size: u32, options: JoinOptions) -> Result<Session, Failed> {
    let deadline = Instant::now() + options.patience;
    let host = Identity::here(options.listening.host_id.as_deref());
    let mut twin = None;
    if let Meeting::Address { host: named, port, secret } = &meeting
        && rank == 0
    {
        if let Some(local) = connect::is_elsewhere(named) {
            // Not an error: containers publish ports under other hosts' addresses.
            tracing::warn!(
                "rank 0 waits at {meeting}, but no interface of this host has that address ({local}): start rank 0 on \
                 the host that has it, or name this one's"
            );
        }
        // The job before may hold the port for a moment. If it is held for longer, another rank 0 may be there: then
        // its root says so to both.
        const MOMENT: Duration = Duration::from_secs(1);
        let began = Instant::now();
        loop {
            match rendezvous::bind(Some(*port), &options.listening) {
                Ok((listener, _)) => {
                    tokio::spawn(rendezvous::serve(listener, secret.clone(), host.clone()));
                    break;
                }
                Err(error) if Instant::now() >= deadline => return Err(Failed::Other(error)),
                Err(_) if began.elapsed() > MOMENT => {
                    let soon = deadline.min(Instant::now() + MOMENT);
                    if let Ok(stream) = connect::reach(&meeting, rank, host.key, soon).await {
                        twin = Some(stream);
                        break;
                    }
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
    let stream = match twin {
        Some(stream) => stream,
        None => connect::reach(&meeting, rank, host.key, deadline).await?,
    };

    let pid = std::process::id();
    let secret = meeting.secret();
    let own = stream.local_addr().ok().map(|address| address.ip().to_canonical());
    let listeners = Listeners::open(&options, &secret, rank).map_err(Failed::Other)?;
    let details = Details {
        host,
        pid,
        path: listeners.path(),
        addresses: listeners.addresses(&options.listening, own),
        port: listeners.port(),
    };
    let joining = Joining {
        rank,
        size,
        patience: deadline.saturating_duration_since(Instant::now()),
        agreement: options.agreement.clone(),
        silence: options.silence,
        details: details.clone(),
    };
    let joined = connect::join(stream, joining, deadline).await?;

    let FromRoot::Welcome { root, runs } = joined.welcome else {
        return Err(Failed::Join(("the root's answer makes no sense".into(), String::new())));
    };
    let hosts = layout::hosts(&runs, size)
        .ok_or_else(|| Failed::Join(("the root described another number of ranks".into(), String::new())))?;
    let bell = Doorbell::new().map_err(|source| {
        Failed::Other(Error::System {
            during: "making an eventfd".into(),
            source: Arc::new(source),
            hint: "raise the limit of open files (`ulimit -n`)".into(),
        })
    })?;
    let (commands, commanded) = unbounded_channel();
    let shared = Arc::new(Shared::new(Start {
        job: secret.job,
        me: details.member(rank),
        hosts: hosts.into(),
        details,
        root,
        links: options.links.clone(),
        regions: options.regions.clone(),
        bell: Arc::new(bell),
        commands,
    }));
    let (from, to) = joined.stream.into_split();
    let (outbox, inbox) = unbounded_channel();
    let (heard, hearing) = unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(read_all(from, heard));
    listeners.serve(&shared, &secret, &mut tasks);
    Ok(Session {
        shared,
        secret,
        outbox: Some(outbox),
        writer: tokio::spawn(write_out(inbox, to)),
        hearing,
        commanded,
        tasks,
        linked: HashSet::new(),
        wanted: HashSet::new(),
        silence: options.silence,
        late_warn: options.late_warn,
        last_heard: Instant::now(),
        silent: false,
        ticked: Instant::now(),
        root_left: None,
        stall: None,
        undecided: None,
        goodbye: None,
    })
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

struct Session {
    shared: Arc<Shared>,
    secret: crate::bootstrap::handshake::Secret,
    /// `None` once the root has gone.
    outbox: Option<UnboundedSender<frame::Frame>>,
    writer: tokio::task::JoinHandle<()>,
    hearing: UnboundedReceiver<io::Result<FromRoot>>,
    commanded: UnboundedReceiver<Command>,
    /// Connecting, accepting, reading; a task may end with a command to be done.
    tasks: JoinSet<Option<Command>>,
    /// Peers whose link was asked for.
    linked: HashSet<u32>,
    /// Peers to be connected to as soon as the root has told their details.
    wanted: HashSet<u32>,
    silence: Silence,
    late_warn: Duration,
    last_heard: Instant,
    silent: bool,
    ticked: Instant,
    /// The root's process has said goodbye, after entering this call.
    root_left: Option<u32>,
    stall: Option<Stall>,
    /// What was reported, and until when the root may decide.
    undecided: Option<(Instant, Failure)>,
    goodbye: Option<(Instant, SyncSender<()>)>,
}

/// A call that does not move.
struct Stall {
    sequence: u32,
    began: Instant,
    ask: Instant,
    pause: Duration,
    logged: bool,
}

impl Session {
    async fn run(mut self) {
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
            Command::Link(peers) => self.link(peers),
            Command::Regions(peer, regions, numbers) => {
                let fetch =
                    links::fetch_regions(self.shared.clone(), self.secret.clone(), peer, regions, numbers);
                self.tasks.spawn(fetch);
            }
            Command::Stall(sequence) => {
                let now = Instant::now();
                self.shared.waiting().clear();
                let pause = Duration::from_millis(500);
                self.stall = Some(Stall { sequence, began: now, ask: now, pause, logged: false });
            }
            Command::Report(report, otherwise) => {
                if self.outbox.is_none() {
                    self.shared.fail(otherwise);
                } else {
                    self.say(&ToRoot::Report(report));
                    self.undecided.get_or_insert((Instant::now() + DECISION, otherwise));
                }
            }
            Command::Goodbye(said) => {
                if self.outbox.is_none() {
                    let _ = said.try_send(());
                    return true;
                }
                self.say(&ToRoot::Goodbye { state: self.shared.progress.state() });
                self.goodbye = Some((Instant::now() + GOODBYE, said));
            }
            #[cfg(test)]
            Command::Vanish => {
                self.writer.abort();
                return true;
            }
        }
        false
    }

    fn link(&mut self, peers: Vec<u32>) {
        for peer in peers {
            // The lower rank of a pair connects; the higher one's listener is always open.
            let connects = self.shared.me.rank < peer && (peer as usize) < self.shared.hosts.len();
            if connects && self.linked.insert(peer) {
                let details = self.shared.peers().get(&peer).cloned();
                match details {
                    Some(details) => self.connect(peer, details),
                    None if self.outbox.is_none() => {
                        let cause = "the root has left, so the peer's address cannot be asked for";
                        self.obey(link_lost(&self.shared, peer, "control", 0, cause));
                    }
                    None => {
                        self.wanted.insert(peer);
                        self.say(&ToRoot::Ask { rank: peer });
                    }
                }
            }
        }
    }

    fn connect(&mut self, peer: u32, details: Details) {
        self.tasks.spawn(links::connect(self.shared.clone(), self.secret.clone(), peer, details));
    }

    /// Takes in what the root says, or that it says nothing more; `true` ends the session.
    fn hear(&mut self, message: Option<io::Result<FromRoot>>) -> bool {
        self.last_heard = Instant::now();
        if std::mem::take(&mut self.silent) {
            tracing::warn!("the root, {}, is back", self.shared.root);
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
            FromRoot::Query { round } => {
                self.say(&ToRoot::State { round, state: self.shared.progress.state() });
            }
            FromRoot::Details { rank, details } => {
                self.shared.peers().insert(rank, (*details).clone());
                if self.wanted.remove(&rank) {
                    self.connect(rank, *details);
                }
            }
            FromRoot::Waiting { sequence, missing } => {
                if self.stall.as_ref().is_some_and(|stall| stall.sequence == sequence) {
                    *self.shared.waiting() = missing;
                    self.log_if_late();
                }
            }
            FromRoot::Failed(failure) => self.shared.fail(failure),
            FromRoot::Leaving { entered } => {
                if self.goodbye.is_some() {
                    return true;
                }
                self.root_left = Some(entered);
            }
            FromRoot::Refused { .. } | FromRoot::Welcome { .. } => {}
        }
        false
    }

    fn root_ended(&mut self, how: String) -> bool {
        if self.goodbye.is_some() {
            return true;
        }
        match self.undecided.take() {
            // A link that broke was the first sign of the root's death.
            Some((_, Failure::LinkLost { .. })) if self.root_left.is_none() => {}
            Some((_, failure)) => self.shared.fail(failure),
            None => {}
        }
        if self.root_left.is_none() {
            self.root_lost(format!("(the root) {how}"));
            // It cannot remove its path socket any more, and no root is left to do it.
            let Shared { root, job, .. } = &*self.shared;
            let host = |rank: u32| self.shared.hosts.get(rank as usize);
            if host(root.rank).is_some() && host(root.rank) == host(self.shared.me.rank) {
                links::forget_rank(*job, root.rank, root.pid);
            }
        }
        false
    }

    /// Every rank finds this out for itself, in the same words.
    fn root_lost(&self, how: String) {
        self.shared.fail(Failure::PeerLost {
            member: self.shared.root.clone(),
            how,
            sequence: self.shared.progress.inside(),
            seen_by: "every rank".into(),
        });
    }

    /// When something has to be done even if nothing happens.
    fn due(&self) -> Instant {
        let mut due = self.ticked + self.silence.pulse();
        if let Some(stall) = &self.stall {
            due = due.min(stall.ask);
        }
        if let Some((until, _)) = &self.undecided {
            due = due.min(*until);
        }
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
        if self.undecided.as_ref().is_some_and(|(until, _)| now >= *until)
            && let Some((_, failure)) = self.undecided.take()
        {
            self.shared.fail(failure);
        }
        if self.stall.as_ref().is_some_and(|stall| now >= stall.ask) {
            self.ask(now);
        }
        self.goodbye.as_ref().is_some_and(|(until, _)| now >= *until)
    }

    /// Asks the root, again and again in growing intervals, who is missing, while the call does not end.
    fn ask(&mut self, now: Instant) {
        let Some(stall) = &mut self.stall else { return };
        let sequence = stall.sequence;
        if self.shared.progress.inside() != sequence || self.shared.failure().is_some() {
            self.stall = None;
            self.shared.waiting().clear();
            return;
        }
        stall.ask = now + stall.pause;
        stall.pause = (stall.pause * 2).min(ASK_AGAIN);
        // One question falls on the moment at which the missing are to be named.
        let late = stall.began + self.late_warn;
        if now < late && late < stall.ask {
            stall.ask = late;
        }
        match self.root_left {
            // It will never enter the call, and it needs no asking.
            Some(entered) if before(entered, sequence) => self.shared.fail(Failure::PeerLost {
                member: self.shared.root.clone(),
                how: format!("left the job after op #{entered}"),
                sequence,
                seen_by: "every rank".into(),
            }),
            _ => self.say(&ToRoot::Stalled { sequence }),
        }
    }

    fn log_if_late(&mut self) {
        let Some(stall) = &mut self.stall else { return };
        let waited = stall.began.elapsed();
        if stall.logged || waited < self.late_warn {
            return;
        }
        stall.logged = true;
        let missing = self.shared.waiting();
        let names: Vec<String> = missing.iter().map(|(member, of)| late(member, of)).collect();
        let names = if names.is_empty() {
            "all ranks have entered it".into()
        } else {
            format!("missing: {}", names.join("; "))
        };
        tracing::warn!(
            "{}: {:.0} s in op #{}; {names}",
            self.shared.me,
            waited.as_secs_f64(),
            stall.sequence
        );
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
            self.root_lost(format!("(the root) has been silent for {:.0} s", silent.as_secs_f64()));
        } else if silent >= self.silence.warn && !std::mem::replace(&mut self.silent, true) {
            tracing::warn!(
                "{}: the root, {}, has been silent for {:.1} s",
                self.shared.me,
                self.shared.root,
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

fn late(member: &Member, of: &crate::error::CallOf) -> String {
    match &of.call {
        Some(call) => format!("{member}, which is in {call} (it completed #{})", of.sequence),
        None => format!("{member}, which is in no call (it completed #{})", of.sequence),
    }
}
