//! The RDMA ports of this process: found, chosen and opened once, and shared by all its links.

use crate::config::{Config, RelaxedOrdering};
use crate::fork::{self, Generation};
use rccl_topology::{Advert, Choice, Host, Network, Wishes, choose};
use rccl_transport::memory::RegionTable;
use rccl_transport::rc::{self, RailChoice, Rails};
use rccl_verbs::Library;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Open rails, and what peers are told of them.
pub(crate) struct Rdma {
    pub rails: Arc<Rails>,
    /// What peers are told: the addresses, in the order of [`Rails::describe`].
    pub adverts: Vec<Advert>,
    pub options: rc::Options,
}

impl fmt::Debug for Rdma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rdma").field(&self.rails).finish()
    }
}

/// Why this process has no RDMA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NoRdma {
    /// As it should be: there is no device, or the settings leave it out.
    Natural(String),
    /// There are devices, and they cannot be used.
    Unexpected(String),
}

/// What rails are opened by.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    wishes: Wishes,
    library: Option<PathBuf>,
    relaxed_ordering: bool,
}

/// The rails that are open, while a link or a communicator holds them.
static OPEN: Mutex<Vec<(Generation, Asked, Weak<Rdma>)>> = Mutex::new(Vec::new());

/// The rails that the settings ask for, with `regions` as the process's registered memory. Opens the devices if no
/// communicator has them open, which takes some milliseconds each.
///
/// # Errors
/// Why there is none.
pub(crate) fn open(config: &Config, regions: &Arc<RegionTable>) -> Result<Arc<Rdma>, NoRdma> {
    if !config.transport.allows("verbs") {
        return Err(NoRdma::Natural("RCCL_TRANSPORT leaves verbs out".into()));
    }
    let wishes = config.rdma_wishes();
    if wishes.disabled {
        let setting = if config.ib_disable { "RCCL_IB_DISABLE is set" } else { "RCCL_NET=tcp" };
        return Err(NoRdma::Natural(setting.into()));
    }
    let relaxed_ordering = config.ib_pci_relaxed_ordering != RelaxedOrdering::Off;
    let asked = Asked { wishes, library: config.ibverbs.clone(), relaxed_ordering };
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|(born, _, rdma)| born.check().is_ok() && rdma.strong_count() > 0);
    let options = options(config);
    for (_, known, rdma) in &*open {
        if let Some(rdma) = rdma.upgrade().filter(|rdma| *known == asked && rdma.options == options) {
            return Ok(rdma);
        }
    }
    let rdma = Arc::new(make(&asked, options, regions)?);
    open.push((Generation::now(), asked, Arc::downgrade(&rdma)));
    Ok(rdma)
}

fn make(asked: &Asked, options: rc::Options, regions: &Arc<RegionTable>) -> Result<Rdma, NoRdma> {
    // Most hosts have none, and need not be asked for their routes.
    if std::fs::read_dir("/sys/class/infiniband").map_or(true, |mut devices| devices.next().is_none()) {
        return Err(NoRdma::Natural("no RDMA device".into()));
    }
    let network = Network::of_this_host().unwrap_or_else(|error| {
        tracing::debug!(%error, "addresses and routes are not known, so RDMA addresses are taken for reachable");
        Network::default()
    });
    let choice = choose(&Host::discover(Path::new("/"), network), &asked.wishes);
    if choice.rails.is_empty() {
        return Err(NoRdma::Unexpected(format!("no RDMA port can be used: {}", rejections(&choice))));
    }
    let unexpected = |error: &dyn fmt::Display| NoRdma::Unexpected(error.to_string());
    let library = Library::open(asked.library.as_deref()).map_err(|error| unexpected(&error))?;
    if let Err(error) = library.prepare_for_fork() {
        tracing::debug!(%error, "a forked child may spoil registered memory");
    }
    let mut adverts = addresses(&choice);
    let rails = open_all(&library, &mut adverts, regions, asked.relaxed_ordering)?;
    for (advert, rail) in adverts.iter_mut().zip(rails.describe()) {
        advert.mtu = Some(rail.mtu);
    }
    rails.descriptors().for_each(fork::close_in_children);
    Ok(Rdma { rails, adverts, options })
}

/// The addresses of as many ports as a process can use: which of a port's leads to a peer depends on the peer.
fn addresses(choice: &Choice) -> Vec<Advert> {
    let mut adverts = choice.adverts();
    let used: Vec<u16> = choice.rails.iter().take(rc::MOST_RAILS).map(|rail| rail.number).collect();
    adverts.retain(|advert| {
        let is_used = used.contains(&advert.rail);
        if !is_used {
            tracing::debug!("{advert} is not used: {} ports are enough for a process", rc::MOST_RAILS);
        }
        is_used
    });
    adverts
}

/// Opens the ports of all addresses, or of those that can be used; the others leave `adverts`.
fn open_all(
    library: &Library,
    adverts: &mut Vec<Advert>,
    regions: &Arc<RegionTable>,
    relaxed_ordering: bool,
) -> Result<Arc<Rails>, NoRdma> {
    let open = |adverts: &[Advert]| {
        let choice = adverts.iter().map(|advert| RailChoice {
            device: advert.device.clone(),
            port: advert.port,
            gid_index: advert.index,
        });
        Rails::open(library, &choice.collect::<Vec<_>>(), regions.clone(), relaxed_ordering)
    };
    let first = match open(adverts) {
        Ok(rails) => return Ok(rails),
        Err(error) => NoRdma::Unexpected(error.to_string()),
    };
    let ports: Vec<Vec<Advert>> =
        adverts.chunk_by(|one, next| one.rail == next.rail).map(<[Advert]>::to_vec).collect();
    if ports.len() == 1 {
        return Err(first);
    }
    // One that does not work is told once, however many addresses it has.
    let works = |port: &Vec<Advert>| {
        open(port).inspect_err(|error| tracing::warn!("{} is not used: {error}", port[0])).is_ok()
    };
    *adverts = ports.into_iter().filter(works).flatten().collect();
    if adverts.is_empty() { Err(first) } else { open(adverts).map_err(|_| first) }
}

fn options(config: &Config) -> rc::Options {
    let defaults = rc::Options::default();
    let pairs = usize::from(config.ib_qps_per_connection.0);
    let queue_pairs = pairs.min(rc::MOST_PAIRS);
    if pairs > queue_pairs {
        tracing::warn!("RCCL_IB_QPS_PER_CONNECTION={pairs}: a link has at most {queue_pairs} queue pairs");
    }
    let bytes = config.buffsize.0.max(4096);
    let slot = (bytes / 4).next_power_of_two().min(defaults.slot);
    let slots = if config.buffsize.0 == 0 { 0 } else { (4 * bytes / slot).clamp(4, 1 << 10) };
    rc::Options {
        queue_pairs,
        slot,
        slots,
        timeout: config.ib_timeout.0,
        retries: config.ib_retry_cnt.0,
        service_level: config.ib_sl.0,
        traffic_class: config.ib_tc.map(|class| class.0),
        partition_key_index: config.ib_pkey,
        ..defaults
    }
}

/// The reasons of a choice that chose nothing, in one line.
fn rejections(choice: &Choice) -> String {
    let mut reasons: Vec<String> = choice
        .rejected
        .iter()
        .map(|rejected| {
            let port = rejected.port.map_or_else(String::new, |port| format!(" port {port}"));
            let gid = rejected.gid.map_or_else(String::new, |(index, gid)| format!(" GID {index} {gid}"));
            format!("{}{port}{gid}: {}", rejected.device, rejected.reason)
        })
        .collect();
    const MOST: usize = 6;
    let more = reasons.len().saturating_sub(MOST);
    reasons.truncate(MOST);
    if more > 0 {
        reasons.push(format!("{more} more (see `rccl doctor`)"));
    }
    reasons.join("; ")
}
