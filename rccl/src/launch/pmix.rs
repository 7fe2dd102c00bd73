//! PMIx: Open MPI's `mpirun` and `srun --mpi=pmix`.
//!
//! `libpmix.so.2` is opened when its variables are seen and at no other time: nothing links it. Open MPI's environment
//! names the ranks but no address, so its server carries the unique id: rank 0 puts it, a fence tells all ranks, the
//! others get it. The session is kept for the process's further meetings and finalized at its exit, see
//! [`at_exit`](crate::at_exit): a fence after a finalize does not find the other ranks any more (tried).

mod library;

use super::vars::Vars;
use super::{Exchange, Launcher, Meeting, Placement, Seat, from_hex, next_meeting, to_hex};
use crate::at_exit::at_exit;
use crate::config::Config;
use crate::control::SignalsBlocked;
use crate::error::{Error, Result};
use library::{Session, Status};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

pub(super) fn detect(config: &Config, vars: &Vars) -> Result<Option<Placement>> {
    let (Some(rank), Some(space)) = (vars.number("PMIX_RANK")?, vars.text("PMIX_NAMESPACE")) else {
        return Ok(None);
    };
    let seat = |size, local: Option<u32>| {
        Seat::new(Launcher::Pmix, ["PMIX_RANK", "the job's size"], rank, size, config.local_rank.or(local))
    };
    let local = ["OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"].into_iter().find_map(|name| vars.hint(name));

    // With a size from the environment and a meeting place from the settings nobody needs the server.
    let known = vars.hint("OMPI_COMM_WORLD_SIZE").or_else(|| vars.hint("SLURM_STEP_NUM_TASKS"));
    if let (Some(size), true) = (known, config.comm_id.is_some()) {
        let unused = |seat: Seat| Err(seat.error("RCCL_COMM_ID", "it was lost", "set RCCL_COMM_ID"));
        return seat(size, local)?.meet(config, space, unused).map(Some);
    }

    let session = session(config.pmix_library.as_deref()).map_err(|cause| Error::Join {
        rank,
        size: known.unwrap_or(0),
        meeting: place(space),
        cause,
        hint: "install libpmix2 (or point RCCL_PMIX_LIBRARY at the launcher's own libpmix.so.2), or set \
               RCCL_COMM_ID=host:port with the host of rank 0 and a free port there"
            .into(),
    })?;
    let job_size = session.size().map_err(|status| Error::Join {
        rank,
        size: 0,
        meeting: place(space),
        cause: format!("asking for the size of the job: {status}"),
        hint: "set RCCL_RANK, RCCL_SIZE and RCCL_COMM_ID=host:port instead".into(),
    })?;
    let space = space.to_owned();
    let seat = seat(job_size, local)?;
    let exchange = |seat| {
        let server = Server { seat, session, space: space.clone() };
        Ok(Meeting::Exchange(Box::new(server)))
    };
    seat.meet(config, &space, exchange).map(Some)
}

/// The process's session. The error is the cause, as a sentence.
fn session(library: Option<&Path>) -> std::result::Result<&'static Session, String> {
    static SESSION: OnceLock<std::result::Result<Session, String>> = OnceLock::new();
    let open = || {
        let session = Session::open(library)?;
        at_exit(Box::new(|| {
            if let (Some(Ok(session)), false) = (SESSION.get(), ABANDONED.load(Ordering::Relaxed)) {
                session.finalize();
            }
        }));
        Ok(session)
    };
    SESSION.get_or_init(open).as_ref().map_err(Clone::clone)
}

/// Whether a thread of ours may still be inside of the library, which then cannot be finalized.
static ABANDONED: AtomicBool = AtomicBool::new(false);

fn place(space: &str) -> String {
    format!("the PMIx server of {space}")
}

#[derive(Debug)]
struct Server {
    seat: Seat,
    session: &'static Session,
    space: String,
}

impl Server {
    /// Runs a conversation with the server on a thread of its own, because servers are free to ignore time-outs
    /// (Open MPI's fence does). One that does not end is left behind, and the session with it: the job fails anyway.
    fn within<T: Send + 'static>(
        &self,
        doing: &str,
        deadline: Instant,
        conversation: impl FnOnce(&Session) -> std::result::Result<T, Status> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = mpsc::channel();
        let session = self.session;
        let blocked = SignalsBlocked::new();
        let thread = std::thread::Builder::new().name("rccl-pmix".into()).spawn(move || {
            // Nobody listens any more after the deadline.
            let _ = answer.send(conversation(session));
        });
        drop(blocked);
        thread.map_err(|error| self.failed(doing, &format!("no thread: {error}")))?;
        // The server's own answer to a time-out says more than ours: it may come a moment late.
        let patience = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1500);
        match answered.recv_timeout(patience) {
            Ok(result) => result.map_err(|status| self.failed(doing, &status)),
            Err(_) => {
                ABANDONED.store(true, Ordering::Relaxed);
                Err(self.failed(doing, &"not all ranks came before the deadline"))
            }
        }
    }

    fn failed(&self, doing: &str, cause: &dyn std::fmt::Display) -> Error {
        let hint = "all ranks of the job must join; or set RCCL_COMM_ID=host:port";
        self.seat.error(&self.place(), format!("{doing}: {cause}"), hint)
    }
}

impl Exchange for Server {
    fn publish(&mut self, id: &[u8; 128], deadline: Instant) -> Result<()> {
        let (key, text) = (format!("rccl.{}", next_meeting()), to_hex(id));
        self.within("publishing the unique id", deadline, move |session| {
            session.put(&key, &text)?;
            session.fence(deadline)
        })
    }
    fn fetch(&mut self, deadline: Instant) -> Result<[u8; 128]> {
        let key = format!("rccl.{}", next_meeting());
        let text = self.within("waiting for rank 0's unique id", deadline, move |session| {
            session.fence(deadline)?;
            session.text(0, &key, deadline)
        })?;
        from_hex(&text).ok_or_else(|| {
            let cause = format!("rank 0 put no unique id but `{text}`");
            self.seat.error(&self.place(), cause, "run the same version of rccl on all ranks")
        })
    }
    fn place(&self) -> String {
        place(&self.space)
    }
}
