//! Ranks that stand in plain variables: rccl's own and those that most training scripts know.

use super::vars::Vars;
use super::{Launcher, Placement, Seat};
use crate::config::Config;
use crate::error::{Error, Result};

/// `RCCL_RANK` and `RCCL_SIZE` with `RCCL_COMM_ID`.
pub(super) fn detect_rccl(config: &Config, _: &Vars) -> Result<Option<Placement>> {
    let (rank, size) = match (config.rank, config.size) {
        (Some(rank), Some(size)) => (rank, size),
        (Some(rank), None) => {
            return Err(Error::InvalidSetting {
                name: "RCCL_RANK".into(),
                value: rank.to_string(),
                expected: "RCCL_SIZE beside it: the number of ranks".into(),
            });
        }
        // A size alone is for a meeting file, or says nothing.
        (None, _) => return Ok(None),
    };
    let seat = Seat::new(Launcher::Rccl, ["RCCL_RANK", "RCCL_SIZE"], rank, size, config.local_rank)?;
    let placement = seat.meet(config, "", |seat| {
        Err(seat.error(
            "no meeting place",
            "RCCL_RANK and RCCL_SIZE are set, RCCL_COMM_ID is not",
            "set RCCL_COMM_ID=host:port with the host of rank 0 and a free port there, or use `rccl run`",
        ))
    });
    placement.map(Some)
}

/// `RANK` and `WORLD_SIZE` with `MASTER_ADDR` and `MASTER_PORT`, and no agent that holds the port: rank 0 binds it.
pub(super) fn detect_plain(config: &Config, vars: &Vars) -> Result<Option<Placement>> {
    let (Some(rank), Some(size)) = (vars.number("RANK")?, vars.number("WORLD_SIZE")?) else {
        return Ok(None);
    };
    let local_rank = config.local_rank.or_else(|| vars.hint("LOCAL_RANK"));
    let seat = Seat::new(Launcher::Variables, ["RANK", "WORLD_SIZE"], rank, size, local_rank)?;
    let placement = seat.meet(config, "", |seat| {
        let (host, port) = master(seat, vars)?;
        seat.address(config, host, port, config.job_id.as_deref().unwrap_or(""))
    });
    placement.map(Some)
}

/// `MASTER_ADDR` and `MASTER_PORT`.
pub(super) fn master(seat: Seat, vars: &Vars) -> Result<(&str, u16)> {
    let (Some(host), Some(port)) = (vars.text("MASTER_ADDR"), vars.text("MASTER_PORT")) else {
        return Err(seat.error(
            "no meeting place",
            "the launcher's ranks are set, MASTER_ADDR or MASTER_PORT is not",
            "set both, or RCCL_COMM_ID=host:port with the host of rank 0 and a free port there",
        ));
    };
    match port.parse() {
        Ok(number) if number != 0 => Ok((host, number)),
        _ => Err(Error::InvalidSetting {
            name: "MASTER_PORT".into(),
            value: port.into(),
            expected: "a port from 1 to 65535".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Meeting, detect_in};
    use super::*;

    fn detect(settings: &[(&str, &str)], vars: &[(&str, &str)]) -> Result<Placement> {
        detect_in(&Config::from_vars(settings.iter().copied())?, &Vars::of(vars))
    }

    #[test]
    fn our_own_variables_go_before_all_others() {
        let ours = [("RCCL_RANK", "1"), ("RCCL_SIZE", "4"), ("RCCL_COMM_ID", "node1:4000")];
        let others = [("RANK", "2"), ("WORLD_SIZE", "8"), ("MASTER_ADDR", "m"), ("MASTER_PORT", "5000")];
        let placement = detect(&ours, &others).unwrap();
        assert_eq!((placement.rank, placement.size, placement.launcher), (1, 4, Launcher::Rccl));
        assert_eq!(placement.meeting.to_string(), "node1:4000");

        let placement = detect(&[], &others).unwrap();
        assert_eq!((placement.rank, placement.size, placement.launcher), (2, 8, Launcher::Variables));
        assert_eq!(placement.meeting.to_string(), "m:5000");

        let overridden = detect(&[("RCCL_COMM_ID", "[::1]:9")], &others).unwrap();
        assert_eq!(overridden.meeting.to_string(), "[::1]:9");
    }

    #[test]
    fn nobody_means_one_rank() {
        let placement = detect(&[], &[("RANK", "0")]).unwrap();
        assert!(matches!(placement.meeting, Meeting::Alone));
        assert_eq!((placement.rank, placement.size, placement.launcher.word()), (0, 1, "none"));
        let one = detect(&[("RCCL_RANK", "0"), ("RCCL_SIZE", "1")], &[]).unwrap();
        assert!(matches!(one.meeting, Meeting::Alone));
    }

    #[test]
    fn senseless_variables_are_errors() {
        let cases: [(&[_], &[_], &str); 7] = [
            (&[("RCCL_RANK", "0"), ("RCCL_SIZE", "0")], &[], "RCCL_SIZE=0: expected the number of ranks"),
            (
                &[("RCCL_RANK", "4"), ("RCCL_SIZE", "4")],
                &[],
                "RCCL_RANK=4: expected a rank below RCCL_SIZE=4",
            ),
            (&[("RCCL_RANK", "0")], &[], "RCCL_SIZE beside it"),
            (&[("RCCL_RANK", "0"), ("RCCL_SIZE", "2")], &[], "set RCCL_COMM_ID=host:port"),
            (&[], &[("RANK", "x"), ("WORLD_SIZE", "2")], "RANK=x"),
            (&[], &[("RANK", "0"), ("WORLD_SIZE", "2")], "MASTER_ADDR or MASTER_PORT is not"),
            (
                &[],
                &[("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "0")],
                "MASTER_PORT=0",
            ),
        ];
        for (settings, vars, text) in cases {
            let error = detect(settings, vars).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
