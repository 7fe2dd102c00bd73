//! The table of settings: the one place to add one.

use super::{
    Algorithms, Bytes, Family, Interfaces, Level, MeetingPlace, PortRange, Reproducible, Secret, Subsystems,
    Transports, Value,
};
use std::path::PathBuf;
use std::time::Duration;

/// One line of the table, as the code that reads settings sees it.
pub(super) struct Entry {
    /// `RCCL_X`.
    pub name: &'static str,
    /// `NCCL_X`, where that is read too.
    pub nccl: Option<&'static str>,
    /// What it does: the documentation of the field.
    pub meaning: &'static str,
    /// Sets the field from what a user wrote.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
    /// The field as a user would write it.
    pub show: fn(&Config) -> String,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:literal $(or $nccl:literal)? => $field:ident: $type:ty = $default:expr;)+) => {
        /// Every setting, with its default until something else is known.
        ///
        /// [`Config::from_env`] fills it from the environment and the configuration file; a program may change fields
        /// before it joins. New settings may appear in any version: start from `Config::default()`.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct Config {
            $(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nSetting: `", $name, "`", $(" (or `", $nccl, "`)",)? ".")]
                pub $field: $type,
            )+
        }

        impl Default for Config {
            fn default() -> Config {
                Config { $($field: $default,)+ }
            }
        }

        pub(super) static ENTRIES: &[Entry] = &[
            $(Entry {
                name: $name,
                nccl: first(&[$($nccl)?]),
                meaning: concat!($($doc),+),
                set: |config, text| {
                    config.$field = Value::parse(text)?;
                    Ok(())
                },
                show: |config| config.$field.show(),
            },)+
        ];
    };
}

const fn first(names: &[&'static str]) -> Option<&'static str> {
    names.first().copied()
}

settings! {
    /// How much is logged to standard error: `NONE`, `WARN`, `VERSION` (warnings and one line with the version),
    /// `INFO`, `DEBUG` or `TRACE`.
    "RCCL_DEBUG" or "NCCL_DEBUG" => debug: Level = Level::Warn;
    /// Which parts log at `INFO` and below, for example `INIT,NET` or `^ENV`. Warnings always appear.
    "RCCL_DEBUG_SUBSYS" or "NCCL_DEBUG_SUBSYS" => debug_subsys: Subsystems = Subsystems::default();
    /// A file that the log is appended to instead of standard error; `%h` stands for the host, `%p` for the process.
    "RCCL_DEBUG_FILE" => debug_file: Option<PathBuf> = None;
    /// The configuration file with lines `RCCL_X=value`. Only read from the environment.
    "RCCL_CONF_FILE" => conf_file: Option<PathBuf> = None;

    /// This process's rank, `0..RCCL_SIZE`; set by `rccl run`. It goes before every other launcher's variables.
    "RCCL_RANK" => rank: Option<u32> = None;
    /// How many processes the job has; goes with `RCCL_RANK`.
    "RCCL_SIZE" => size: Option<u32> = None;
    /// This process's number on its host, counted from 0. Used for nothing but reports and the choice of devices:
    /// what shares a host is found out, not believed.
    "RCCL_LOCAL_RANK" => local_rank: Option<u32> = None;
    /// Where the ranks meet: `host:port`, which rank 0 binds, or `file:///path` on a file system that all share.
    /// Overrides what the launcher offers.
    "RCCL_COMM_ID" => comm_id: Option<MeetingPlace> = None;
    /// The job's name: keeps apart jobs that meet at the same address or file and have no secret key.
    "RCCL_JOB_ID" => job_id: Option<String> = None;
    /// A file with the secret that all ranks share, read where only an address is known. Any content of at least 16
    /// bytes; keep it readable by its owner only.
    "RCCL_KEY_FILE" => key_file: Option<PathBuf> = None;
    /// The secret itself as 32 hexadecimal digits; `rccl run` passes it to its ranks. Never shown.
    "RCCL_KEY" => key: Option<Secret> = None;
    /// The host's identity: ranks with equal ids may share memory. By default the boot id.
    "RCCL_HOSTID" or "NCCL_HOSTID" => host_id: Option<String> = None;

    /// The PMIx library to open under `mpirun` and `srun --mpi=pmix`, instead of `libpmix.so.2`.
    "RCCL_PMIX_LIBRARY" => pmix_library: Option<PathBuf> = None;

    /// How long a process waits for all the others to join.
    "RCCL_INIT_TIMEOUT" => init_timeout: Duration = Duration::from_secs(5 * 60);
    /// How long a call may take before it fails on all ranks.
    "RCCL_TIMEOUT" => timeout: Duration = Duration::from_secs(10 * 60);
    /// After how long in one call a line names the ranks that are missing.
    "RCCL_LATE_WARN" => late_warn: Duration = Duration::from_secs(10);
    /// After how long a process that says nothing (stopped, swapping, in a debugger) is reported.
    "RCCL_SILENCE_WARN" => silence_warn: Duration = Duration::from_secs(5);
    /// After how long a process that says nothing is given up, which breaks the communicator.
    "RCCL_SILENCE_FATAL" => silence_fatal: Duration = Duration::from_secs(60);

    /// Network interfaces that may be used: a list of prefixes (`eth,ib`), of names (`=eth0`), or of either to leave
    /// out (`^docker,lo`, `^=eth1`). By default the route to the meeting place decides.
    "RCCL_SOCKET_IFNAME" or "NCCL_SOCKET_IFNAME" => socket_ifname: Option<Interfaces> = None;
    /// `AF_INET` or `AF_INET6`: use only addresses of this family.
    "RCCL_SOCKET_FAMILY" or "NCCL_SOCKET_FAMILY" => socket_family: Option<Family> = None;
    /// Ports that may be listened on, `first-last`, both included. By default the system chooses.
    "RCCL_PORT_RANGE" => port_range: Option<PortRange> = None;
    /// Sockets of one TCP link that large messages are spread over. More of them help where one stream does not fill
    /// the network: bonds, equal-cost paths, cloud limits per flow.
    "RCCL_NSOCKS" => nsocks: u32 = 1;

    /// Transports that may be used, a list of `shm` and `tcp`, or of those to leave out (`^shm`).
    "RCCL_TRANSPORT" => transport: Transports = Transports::default();
    /// Do not use shared memory between processes of a host.
    "RCCL_SHM_DISABLE" or "NCCL_SHM_DISABLE" => shm_disable: bool = false;
    /// Do not copy straight between the address spaces of processes (process_vm_readv and process_vm_writev).
    "RCCL_COPY_DISABLE" => copy_disable: bool = false;
    /// Bytes of staging memory that a link has in each direction.
    "RCCL_BUFFSIZE" => buffsize: Bytes = Bytes(128 << 10);

    /// Algorithms that may be used, NCCL's way: `ring,tree` for all collectives, `^tree` to leave some out,
    /// `ring;allreduce:^tree` to say more for one collective.
    "RCCL_ALGO" => algo: Algorithms = Algorithms::default();
    /// Which results of reductions are the same bits: `ranks`, those of one call on all ranks, always; `fixed`, also
    /// those of other message sizes, algorithms, transports, hosts and placements of the ranks, since every element is
    /// then reduced in order of rank.
    "RCCL_REPRODUCIBLE" => reproducible: Reproducible = Reproducible::Ranks;
    /// Count all CPUs of the host as usable, whatever the process's affinity says, when choosing how to wait.
    "RCCL_IGNORE_CPU_AFFINITY" => ignore_cpu_affinity: bool = false;
}
