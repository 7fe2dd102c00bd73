//! Something that a user should know, and what to do about it.

use serde::{Deserialize, Serialize};

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A word for programs; stable.
    pub code: String,
    /// What it is about: a device, a port, the host, two hosts.
    pub subject: String,
    /// What was seen.
    pub seen: String,
    /// What that means.
    pub meaning: String,
    /// A command or setting; empty where there is nothing to do.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// RDMA does not work, or not between some hosts.
    Error,
    /// It works, but slower or less surely than it could.
    Warning,
    /// Good to know.
    Note,
}

impl Finding {
    pub fn new(
        severity: Severity,
        code: &str,
        subject: impl Into<String>,
        seen: impl Into<String>,
        meaning: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            severity,
            code: code.into(),
            subject: subject.into(),
            seen: seen.into(),
            meaning: meaning.into(),
            remedy: remedy.into(),
        }
    }
}

/// Whether one of them breaks RDMA.
pub fn any_error(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}
