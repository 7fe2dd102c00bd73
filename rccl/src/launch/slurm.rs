//! `srun` without a process manager: the ranks meet on the step's first host.
//!
//! Only a *step* has ranks: the size is `SLURM_STEP_NUM_TASKS`, never `SLURM_NTASKS`, which a batch script has too,
//! with the value of the whole job, although it is one process.

use super::vars::Vars;
use super::{Launcher, Placement, Seat};
use crate::config::Config;
use crate::error::Result;

pub(super) fn detect(config: &Config, vars: &Vars) -> Result<Option<Placement>> {
    let (Some(rank), Some(size)) = (vars.number("SLURM_PROCID")?, vars.number("SLURM_STEP_NUM_TASKS")?)
    else {
        return Ok(None);
    };
    let local_rank = config.local_rank.or_else(|| vars.hint("SLURM_LOCALID"));
    let seat = Seat::new(Launcher::Slurm, ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS"], rank, size, local_rank)?;
    let step = |name| vars.text(name).unwrap_or("0");
    let job = format!("slurm-{}.{}", step("SLURM_JOB_ID"), step("SLURM_STEP_ID"));
    let placement = seat.meet(config, &job, |seat| {
        let list = vars.text("SLURM_STEP_NODELIST").or_else(|| vars.text("SLURM_NODELIST"));
        let Some(host) = list.and_then(first_host) else {
            return Err(seat.error(
                "no meeting place",
                "SLURM_STEP_NODELIST names no host",
                "set RCCL_COMM_ID=host:port with the host of rank 0 and a free port there",
            ));
        };
        seat.address(config, &host, port(&job), config.job_id.as_deref().unwrap_or(&job))
    });
    placement.map(Some)
}

/// A port that the step's tasks agree on without a word: spread over 16384..32768, below the ports that Linux hands
/// out by itself, so that steps on one host rarely meet. (The hash is FNV-1a.)
fn port(job: &str) -> u16 {
    let hash =
        job.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    16384 + ((hash ^ hash >> 16) % 16384) as u16
}

/// The first host of Slurm's compressed list: `gpu[003-010,12],cpu1` starts with `gpu003`. Task 0 runs there with
/// every distribution but `arbitrary`.
fn first_host(list: &str) -> Option<String> {
    let end = list.find(['[', ',']).unwrap_or(list.len());
    let (prefix, rest) = list.split_at(end);
    let host = match rest.strip_prefix('[') {
        Some(ranges) => {
            let (ranges, after) = ranges.split_once(']')?;
            let number = ranges.split(['-', ',']).next()?;
            let suffix = after.split(',').next()?;
            // A second bracket after the first (`rack[1-2]node[1-4]`) starts with its first number again.
            format!("{prefix}{number}{}", first_host(suffix).unwrap_or_default())
        }
        None => prefix.to_owned(),
    };
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::super::detect_in;
    use super::*;

    #[test]
    fn host_lists_start_with_their_first_host() {
        let cases = [
            ("gpu[003-010,12],cpu1", "gpu003"),
            ("node1", "node1"),
            ("b,a", "b"),
            ("n[7]", "n7"),
            ("n[1-2]-ib,m", "n1-ib"),
            ("rack[1-2]node[04-05]", "rack1node04"),
        ];
        for (list, host) in cases {
            assert_eq!(first_host(list).as_deref(), Some(host), "{list}");
        }
        assert_eq!(first_host(""), None);
        assert_eq!(first_host("n[1-"), None);
    }

    #[test]
    fn a_step_has_ranks_and_a_batch_script_has_not() {
        let batch = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8"), ("SLURM_JOB_ID", "7")];
        assert_eq!(detect_in(&Config::default(), &Vars::of(&batch)).unwrap().size, 1);
        let step = [
            ("SLURM_PROCID", "3"),
            ("SLURM_NTASKS", "8"),
            ("SLURM_STEP_NUM_TASKS", "4"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_JOB_ID", "7"),
            ("SLURM_STEP_ID", "2"),
            ("SLURM_STEP_NODELIST", "n[1-2]"),
        ];
        let placement = detect_in(&Config::default(), &Vars::of(&step)).unwrap();
        assert_eq!((placement.rank, placement.size, placement.local_rank), (3, 4, Some(1)));
        let meeting = placement.meeting.to_string();
        let port: u16 = meeting.strip_prefix("n1:").unwrap().parse().unwrap();
        assert!((16384..32768).contains(&port));
    }
}
