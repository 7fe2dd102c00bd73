//! Gathers the facts of this host: reads files, opens devices, and lets each rail write to itself.

use super::facts::{Facts, Library, OpenPort, Opened, SelfTest};
use super::system;
use super::write::{End, Failure, MEMORY, Manner};
use rccl::config::Net;
use rccl_topology::{Advert, Choice, Host, Network, choose, pair};
use rccl_verbs::{Context, Device, ForkSupport};
use std::path::Path;
use std::{fmt, slice};

/// The packets that the settings ask for, on one rail.
pub fn manner(config: &rccl::Config, choice: &Choice, rail: u16) -> Manner {
    let rail = choice.rails.iter().find(|known| known.number == rail);
    Manner {
        partition: config.ib_pkey,
        traffic_class: rail.map_or(0, |rail| rail.traffic_class.value()),
        service_level: config.ib_sl.0,
    }
}

/// What was gathered: the facts, what is chosen from them, and the devices that are open.
pub struct Gathered {
    pub facts: Facts,
    pub choice: Choice,
    pub contexts: Vec<Context>,
}

/// Gathers everything. Takes milliseconds where all is well; a write that nobody acknowledges takes up to 15 s a rail.
pub fn gather(config: &rccl::Config) -> Gathered {
    let root = Path::new("/");
    let host = Host::discover(root, Network::of_this_host().unwrap_or_default());
    let mut gathered =
        Gathered { choice: choose(&host, &config.rdma_wishes()), ..from_files(root, host, config) };
    gathered.facts.adverts = gathered.choice.adverts();
    gathered.ask_library(config);
    gathered
}

/// What files tell.
fn from_files(root: &Path, host: Host, config: &rccl::Config) -> Gathered {
    let is_software = |device: &rccl_topology::Device| device.pci.is_none();
    let facts = Facts {
        name: system::text(root, "proc/sys/kernel/hostname").unwrap_or_default(),
        identity: system::identity(root),
        pid: std::process::id(),
        kernel: system::text(root, "proc/sys/kernel/osrelease").unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").into(),
        net: match config.net {
            Net::Auto => "auto",
            Net::Verbs => "verbs",
            Net::Tcp => "tcp",
        }
        .into(),
        settings: changed_settings(),
        memory: system::locked(),
        container: system::container(root),
        namespaces: system::namespaces(root),
        cgroup: system::cgroup(root),
        filter: host.devices.iter().any(is_software).then(system::filter).flatten(),
        idle_hardware: system::idle_hardware(root, &host),
        host,
        ..Facts::default()
    };
    Gathered { facts, choice: Choice::default(), contexts: Vec::new() }
}

/// The settings of RDMA that are not at their defaults.
fn changed_settings() -> std::collections::BTreeMap<String, String> {
    let settings = rccl::config::settings().unwrap_or_default(); // a bad one was an error before
    let of_rdma = |name: &str| name.starts_with("RCCL_IB") || name == "RCCL_NET";
    let changed =
        settings.into_iter().filter(|setting| of_rdma(setting.name) && setting.value != setting.default);
    changed.map(|setting| (setting.name.to_owned(), setting.value)).collect()
}

impl Gathered {
    fn ask_library(&mut self, config: &rccl::Config) {
        let path = config.ibverbs.as_deref();
        let library = match rccl_verbs::Library::open(path) {
            Ok(library) => library,
            Err(error) => {
                self.facts.adverts.clear();
                let path = path.map_or_else(|| "libibverbs.so.1".into(), |path| path.display().to_string());
                self.facts.library = Library { path, error: Some(error.to_string()), ..Library::default() };
                return;
            }
        };
        let fork = match library.prepare_for_fork() {
            Ok(ForkSupport::Enabled) => "enabled".to_owned(),
            Ok(ForkSupport::Unneeded) => "unneeded".into(),
            Ok(ForkSupport::Disabled) => "disabled".into(),
            Err(error) => error.to_string(),
        };
        let path = library.path().display().to_string();
        self.facts.library = Library { path, fork: Some(fork), ..Library::default() };
        let (devices, unusable) = match library.devices().and_then(|d| Ok((d, library.unusable_devices()?))) {
            Ok(found) => found,
            Err(error) => {
                self.facts.adverts.clear();
                self.facts.library.list_error = Some(error.to_string());
                return;
            }
        };
        self.facts.unusable =
            unusable.into_iter().map(|device| (device.name.clone(), device.to_string())).collect();
        for device in devices {
            let opened = self.ask_device(&device);
            self.facts.devices.push(opened);
        }
        self.facts.devices.sort_by(|one, other| rccl_topology::natural_order(&one.name, &other.name));
        self.test_rails(config);
        // What cannot be opened is not offered to others.
        let works = |name: &str| {
            self.facts.devices.iter().any(|device| device.name == name && device.error.is_none())
        };
        let working: Vec<Advert> =
            self.facts.adverts.iter().filter(|advert| works(&advert.device)).cloned().collect();
        self.facts.adverts = working;
    }

    fn ask_device(&mut self, device: &Device) -> Opened {
        let file = device.file().display().to_string();
        let mut opened = Opened { name: device.name().to_owned(), file, ..Opened::default() };
        let context = match device.open() {
            Ok(context) => context,
            Err(error) => return Opened { error: Some(error.to_string()), ..opened },
        };
        let known = self.facts.host.devices.iter().find(|known| known.name == opened.name);
        for number in known.iter().flat_map(|device| &device.ports).map(|port| port.number) {
            match context.port(number) {
                Ok(port) => opened.ports.push(OpenPort {
                    number,
                    active_mtu: port.active_mtu.bytes(),
                    max_mtu: port.max_mtu.bytes(),
                }),
                Err(error) => return Opened { error: Some(error.to_string()), ..opened },
            }
        }
        for advert in self.facts.adverts.iter_mut().filter(|advert| advert.device == opened.name) {
            advert.mtu =
                opened.ports.iter().find(|port| port.number == advert.port).map(|port| port.active_mtu);
        }
        self.contexts.push(context);
        opened
    }

    /// Lets each rail write to itself, or, where the host's routes do not lead from an address to itself, to another.
    fn test_rails(&mut self, config: &rccl::Config) {
        let best = |rail: &rccl_topology::Rail| {
            Some(self.facts.adverts.iter().find(|advert| advert.rail == rail.number)?.clone())
        };
        let adverts: Vec<Advert> = self.choice.rails.iter().filter_map(best).collect();
        for own in &adverts {
            let Some(context) = self.context(&own.device) else { continue };
            let manner = manner(config, &self.choice, own.rail);
            let mut outcome = write_between((context, own), (context, own), manner);
            let mut to = None;
            let others = adverts.iter().filter(|other| other.rail != own.rail);
            for other in others.filter(|other| pair(slice::from_ref(own), slice::from_ref(other)).is_ok()) {
                if !outcome.as_ref().is_err_and(Trouble::is_unreachable) {
                    break;
                }
                let Some(there) = self.context(&other.device) else { continue };
                if let Ok(time) = write_between((context, own), (there, other), manner) {
                    to = Some(format!("{} port {}", other.device, other.port));
                    outcome = Ok(time);
                }
            }
            let outcome = outcome.map_err(|trouble| trouble.to_string());
            let test = SelfTest { port: own.port, index: own.index, to, outcome };
            if let Some(device) = self.facts.devices.iter_mut().find(|device| device.name == own.device) {
                device.tests.push(test);
            }
        }
    }

    /// The open device of that name.
    pub fn context(&self, name: &str) -> Option<&Context> {
        self.contexts.iter().find(|context| context.name() == name)
    }
}

/// Why a write did not come about.
enum Trouble {
    Verbs(rccl_verbs::Error),
    Write(Failure),
}

impl Trouble {
    /// Whether the kernel found no way to the address, which says nothing of the device.
    fn is_unreachable(&self) -> bool {
        use rustix::io::Errno;
        let Trouble::Verbs(error) = self else { return false };
        let unreachable = [Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::NETUNREACH];
        error.raw_os_error().is_some_and(|code| unreachable.iter().any(|errno| errno.raw_os_error() == code))
    }
}

impl From<rccl_verbs::Error> for Trouble {
    fn from(error: rccl_verbs::Error) -> Trouble {
        Trouble::Verbs(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Verbs(error) => error.fmt(f),
            Trouble::Write(failure) => failure.fmt(f),
        }
    }
}

/// Registers memory on both, connects a queue pair of each with the other's, and writes all of it. Microseconds, or
/// what failed.
fn write_between(one: (&Context, &Advert), two: (&Context, &Advert), manner: Manner) -> Result<u64, Trouble> {
    let own = End::new(one.0, one.1.port, manner)?;
    let other = End::new(two.0, two.1.port, manner)?;
    own.connect(one.1, two.1, &other.endpoint(), manner)?;
    other.connect(two.1, one.1, &own.endpoint(), manner)?;
    let time = own.write(MEMORY, &other.endpoint()).map_err(Trouble::Write)?;
    Ok(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
