//! All rows of a simulation.

use rccl_schedule::simulate::{Call, Cluster, How, Outcome, Unfit, formula, simulate};
use rccl_schedule::{Algorithm, Collective};

/// What was asked for and what came out.
pub struct Report {
    pub collective: Collective,
    pub ranks: u32,
    pub cluster: Cluster,
    pub rows: Vec<Row>,
}

/// A size and an algorithm.
pub struct Row {
    pub bytes: u64,
    pub algorithm: Algorithm,
    /// The error says why this is not to be had.
    pub outcome: Result<Outcome, Unfit>,
}

impl Report {
    /// Simulates every algorithm at every size; what has too many messages is computed where there is a formula.
    ///
    /// The error is a flaw of the cluster.
    pub fn of(
        collective: Collective,
        ranks: u32,
        sizes: &[u64],
        element: u32,
        algorithms: &[Algorithm],
        cluster: Cluster,
    ) -> Result<Report, String> {
        let mut rows = Vec::new();
        for &bytes in sizes {
            for &algorithm in algorithms {
                let call = Call { algorithm, collective, ranks, bytes, element };
                let outcome = match simulate(&call, &cluster) {
                    Err(Unfit::Cluster(flaw)) => return Err(format!("the cluster: {flaw}")),
                    Err(Unfit::TooManyMessages(many)) => {
                        formula(&call, &cluster).ok_or(Unfit::TooManyMessages(many))
                    }
                    other => other,
                };
                rows.push(Row { bytes, algorithm, outcome });
            }
        }
        Ok(Report { collective, ranks, cluster, rows })
    }

    /// What is simulated, in a line.
    pub fn title(&self) -> String {
        let Cluster { ranks_per_host, rails, spines, oversubscription, .. } = self.cluster;
        let hosts = self.cluster.hosts(self.ranks);
        let leaves = self.cluster.leaves(hosts);
        let mut title = format!(
            "{} of {} ranks, {ranks_per_host} a host, {rails} rails a host",
            self.collective, self.ranks
        );
        if leaves > 1 {
            title += &format!(", {leaves} leaves under {spines} spines, {oversubscription}:1");
        }
        title
    }
}

/// A word for how a result came about.
pub fn how(how: How) -> &'static str {
    match how {
        How::Simulated => "simulated",
        How::Extrapolated { .. } => "extrapolated",
        _ => "formula",
    }
}
