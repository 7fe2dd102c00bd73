//! The table of settings: the one place to add one.

use super::{
    Algorithms, Bytes, Chunks, Family, GidIndex, Interfaces, Level, MeetingPlace, Net, PortRange,
    RelaxedOrdering, Reproducible, Secret, Subsystems, Transports, Value, Within,
};
use rccl_topology::{DeviceList, Prefix, RoceVersion};
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

    /// Transports that may be used, a list of `shm`, `verbs` (RDMA) and `tcp`, or of those to leave out (`^shm`).
    "RCCL_TRANSPORT" => transport: Transports = Transports::default();
    /// Do not use shared memory between processes of a host.
    "RCCL_SHM_DISABLE" or "NCCL_SHM_DISABLE" => shm_disable: bool = false;
    /// Do not copy straight between the address spaces of processes (process_vm_readv and process_vm_writev).
    "RCCL_COPY_DISABLE" => copy_disable: bool = false;
    /// Bytes of staging memory that a link has in each direction; one over RDMA has four times as many. 0 leaves RDMA
    /// links without any: what is longer than an eager message must lie in memory of `Communicator::alloc` at both ends,
    /// and calls on other memory fail.
    "RCCL_BUFFSIZE" => buffsize: Bytes = Bytes(128 << 10);

    /// What carries data between hosts: `auto` takes RDMA where two hosts have it in common, else TCP, and says so;
    /// `verbs` (or `IB`) makes it an error where RDMA cannot be used; `tcp` (or `Socket`) never uses RDMA.
    "RCCL_NET" => net: Net = Net::Auto;
    /// The library that drives RDMA devices, by name or path, instead of `libibverbs.so.1`.
    "RCCL_IBVERBS" => ibverbs: Option<PathBuf> = None;
    /// Do not use RDMA.
    "RCCL_IB_DISABLE" or "NCCL_IB_DISABLE" => ib_disable: bool = false;
    /// RDMA devices and ports that may be used: a list of prefixes (`mlx5`), with ports (`mlx5_0:1,mlx5_1:2`), of names
    /// (`=mlx5_1`), or of either to leave out (`^rxe`, `^=mlx5_3`). By default all.
    "RCCL_IB_HCA" or "NCCL_IB_HCA" => ib_hca: DeviceList = DeviceList::default();
    /// The entry of each port's GID table to use, whatever its version, family and range; -1 leaves the choice to the
    /// rules that `rccl doctor` shows. Indices change when addresses come and go, so rather choose by the settings
    /// below.
    "RCCL_IB_GID_INDEX" or "NCCL_IB_GID_INDEX" => ib_gid_index: GidIndex = GidIndex(None);
    /// `AF_INET` or `AF_INET6`: use only RoCE addresses of this family. By default both, IPv4 first.
    "RCCL_IB_ADDR_FAMILY" or "NCCL_IB_ADDR_FAMILY" => ib_addr_family: Option<Family> = None;
    /// Use only RoCE addresses of this range, such as `10.7.0.0/16` or `fd07::/48`.
    "RCCL_IB_ADDR_RANGE" or "NCCL_IB_ADDR_RANGE" => ib_addr_range: Option<Prefix> = None;
    /// `1` or `2`: use only this version of RoCE. By default version 2, and 1 between hosts that have nothing else in
    /// common.
    "RCCL_IB_ROCE_VERSION_NUM" or "NCCL_IB_ROCE_VERSION_NUM" => ib_roce_version_num: Option<RoceVersion> = None;
    /// How long a queue pair waits for an acknowledgement before it sends again: 4.096 us doubled so many times, 1 to
    /// 31; 20 is 4.3 s.
    "RCCL_IB_TIMEOUT" or "NCCL_IB_TIMEOUT" => ib_timeout: Within<1, 31> = Within(20);
    /// How often a queue pair sends again before it fails, 0 to 7.
    "RCCL_IB_RETRY_CNT" or "NCCL_IB_RETRY_CNT" => ib_retry_cnt: Within<0, 7> = Within(7);
    /// Index in the ports' tables of partition keys (not the key itself).
    "RCCL_IB_PKEY" or "NCCL_IB_PKEY" => ib_pkey: u16 = 0;
    /// Service level, 0 to 15; on Ethernet the lower 3 bits are the VLAN's priority.
    "RCCL_IB_SL" or "NCCL_IB_SL" => ib_sl: Within<0, 15> = Within(0);
    /// Traffic class of all packets of all queue pairs: DSCP in the upper 6 bits, ECN in the lower 2, so DSCP 26 is 104.
    /// By default the one that the administrator set for the device, else 0.
    "RCCL_IB_TC" or "NCCL_IB_TC" => ib_tc: Option<Within<0, 255>> = None;
    /// Queue pairs of a link between two ranks on each pair of ports, 1 to 128, of which a link uses 16 at most. Long
    /// messages are split over all of them. More help where the network spreads traffic by UDP source port (ECMP).
    "RCCL_IB_QPS_PER_CONNECTION" or "NCCL_IB_QPS_PER_CONNECTION" => ib_qps_per_connection: Within<1, 128> = Within(1);
    /// Let devices write to memory in any order, which is faster on some machines: `0` no, `1` yes, `2` where the device
    /// knows it.
    "RCCL_IB_PCI_RELAXED_ORDERING" or "NCCL_IB_PCI_RELAXED_ORDERING" => ib_pci_relaxed_ordering: RelaxedOrdering =
        RelaxedOrdering::Auto;

    /// A topology file of NCCL's format, which says what this host consists of in place of what is found out. One that
    /// cannot be read keeps ranks from joining.
    "RCCL_TOPO_FILE" => topo_file: Option<PathBuf> = None;
    /// Where rank 0 writes what its host consists of, as a topology file of NCCL's format, when it joins.
    "RCCL_TOPO_DUMP_FILE" => topo_dump_file: Option<PathBuf> = None;
    /// A graph file of NCCL's format, whose first ring says in which order rings, trees and chains pass the ranks of a
    /// host that has as many as the ring has devices. Rank 0's holds for the job; one that cannot be read keeps it from
    /// joining.
    "RCCL_GRAPH_FILE" => graph_file: Option<PathBuf> = None;
    /// Where rank 0 writes, when it joins, the graphs of `RCCL_GRAPH_FILE`, or else those that are found for the ranks of
    /// its host.
    "RCCL_GRAPH_DUMP_FILE" => graph_dump_file: Option<PathBuf> = None;

    /// Algorithms that may be used, NCCL's way: `ring,tree` for all collectives, `^tree` to leave some out,
    /// `ring;allreduce:^tree` to say more for one collective.
    "RCCL_ALGO" => algo: Algorithms = Algorithms::default();
    /// Into how long chunks calls cut what they pass on, a power of two from 1K to 128K: short ones travel along a chain or
    /// tree of ranks sooner, long ones cost less each. Rank 0's counts for all ranks. By default what the profile or the class
    /// of machine says for the call, else `usual`: 32K, and 128K where bytes are fetched by system calls. Never more than a
    /// slot of staging memory, a fourth of `RCCL_BUFFSIZE` and at most 32K, where bytes go through that.
    "RCCL_CHUNK_SIZE" => chunk_size: Option<Chunks> = None;
    /// A profile that `rccl tune` wrote: which algorithms are best on which layouts. Rank 0's counts for all ranks. One that
    /// cannot be read keeps it from joining.
    "RCCL_TUNE_FILE" => tune_file: Option<PathBuf> = None;
    /// Which results of reductions are the same bits: `ranks`, those of one call on all ranks, always; `fixed`, also
    /// those of other message sizes, algorithms, transports, hosts and placements of the ranks, since every element is
    /// then reduced in order of rank.
    "RCCL_REPRODUCIBLE" => reproducible: Reproducible = Reproducible::Ranks;
    /// Count all CPUs of the host as usable, whatever the process's affinity says, when choosing how to wait.
    "RCCL_IGNORE_CPU_AFFINITY" => ignore_cpu_affinity: bool = false;
}
