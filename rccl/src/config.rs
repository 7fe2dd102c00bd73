//! Every setting of rccl in one struct, and where their values come from.
//!
//! [`Config`] is the one list: its fields, the parsing of `RCCL_X`, `rccl env` and `docs/settings.md` are all made
//! from the table in `config/settings.rs`. A value is looked for in this order, and the first hit wins:
//!
//! 1. the environment variable `RCCL_X`;
//! 2. a line `RCCL_X=value` of the configuration file: `RCCL_CONF_FILE`, or else `~/.rccl.conf`, then
//!    `/etc/rccl.conf`;
//! 3. for the few settings that name one, the environment variable `NCCL_X`: a name that was meant for rccl always
//!    wins over one that was meant for NCCL;
//! 4. the default.
//!
//! An empty value counts as unset. A value that cannot be used is an [`Error::InvalidSetting`](crate::Error::InvalidSetting) in `RCCL_X`, and is
//! ignored with a debug line in `NCCL_X`, which somebody else may have set for somebody else.

mod algorithms;
mod logging;
mod nearest;
mod rdma;
mod scalar;
mod settings;
mod sources;
mod table;
mod words;

pub use algorithms::Algorithms;
pub use logging::init_logging;
pub(crate) use logging::set_rank;
pub use nearest::nearest;
pub use rdma::{GidIndex, Net, RelaxedOrdering};
pub use scalar::{Bytes, ChunkSize, Chunks, Secret, Within};
pub use settings::Config;
pub use sources::Source;
pub use table::{Setting, settings, settings_markdown};
pub use words::{
    Family, Interfaces, Level, MeetingPlace, PortRange, Reproducible, Subsystems, TRANSPORT_WORDS, Transports,
};

/// A type that a setting can have.
///
/// `parse` and `show` are inverse to each other: what `show` prints, `parse` accepts (but for secrets, which are
/// never shown).
pub(crate) trait Value: Sized {
    /// Reads a value that a user wrote. The error is what would have been accepted, as it follows "expected".
    fn parse(text: &str) -> Result<Self, String>;
    /// The value as a user would write it.
    fn show(&self) -> String;
}
