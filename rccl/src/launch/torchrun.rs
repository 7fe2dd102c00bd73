//! torchrun: the ranks meet in the TCPStore of its agent.
//!
//! The agent holds `MASTER_PORT` itself, so that no rank can bind it. The id goes through its store, under a key that
//! names the run, the restart and the meeting: after a restart nobody reads what the ranks before it left.

use super::tcp_store::TcpStore;
use super::variables::master;
use super::vars::Vars;
use super::{Exchange, Launcher, Meeting, Placement, Seat, next_meeting};
use crate::config::Config;
use crate::error::{Error, Result};
use std::fmt;
use std::time::Instant;

pub(super) fn detect(config: &Config, vars: &Vars) -> Result<Option<Placement>> {
    let Some(run) = vars.text("TORCHELASTIC_RUN_ID") else { return Ok(None) };
    let (Some(rank), Some(size)) = (vars.number("RANK")?, vars.number("WORLD_SIZE")?) else {
        return Ok(None);
    };
    let local_rank = config.local_rank.or_else(|| vars.hint("LOCAL_RANK"));
    let seat = Seat::new(Launcher::Torchrun, ["RANK", "WORLD_SIZE"], rank, size, local_rank)?;
    let restart = vars.text("TORCHELASTIC_RESTART_COUNT").unwrap_or("0");
    let job = format!("{run}.{restart}");
    let placement = seat.meet(config, &job, |seat| {
        let (host, port) = master(seat, vars)?;
        // Without the agent's store torch's own rank 0 would bind the port, and so does ours.
        if vars.text("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|text| text.eq_ignore_ascii_case("false")) {
            return seat.address(config, host, port, config.job_id.as_deref().unwrap_or(&job));
        }
        let key = format!("rccl/{job}/{}", next_meeting());
        Ok(Meeting::Exchange(Box::new(AgentStore { seat, host: host.into(), port, key })))
    });
    placement.map(Some)
}

struct AgentStore {
    seat: Seat,
    host: String,
    port: u16,
    key: String,
}

impl fmt::Debug for AgentStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

impl AgentStore {
    fn failed(&self, doing: &str, error: &std::io::Error) -> Error {
        self.seat.error(
            &self.place(),
            format!("{doing}: {error}"),
            "check that torchrun's agent of the first host is alive and that MASTER_ADDR:MASTER_PORT can be reached",
        )
    }
}

impl Exchange for AgentStore {
    fn publish(&mut self, id: &[u8; 128], deadline: Instant) -> Result<()> {
        let set = |store: &mut TcpStore| store.set(&self.key, id);
        TcpStore::connect(&self.host, self.port, deadline)
            .and_then(|mut store| set(&mut store))
            .map_err(|error| self.failed("publishing the unique id", &error))
    }

    fn fetch(&mut self, deadline: Instant) -> Result<[u8; 128]> {
        let value = TcpStore::connect(&self.host, self.port, deadline)
            .and_then(|mut store| store.wait_and_get(&self.key, deadline))
            .map_err(|error| self.failed("waiting for rank 0's unique id", &error))?;
        value.try_into().map_err(|value: Vec<u8>| {
            let what = format!("the store's {} holds {} bytes instead of 128", self.key, value.len());
            self.failed("reading the unique id", &std::io::Error::other(what))
        })
    }

    fn place(&self) -> String {
        format!("torchrun's store at {}:{}", self.host, self.port)
    }
}
