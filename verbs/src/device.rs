//! What devices there are.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::library::Library;
use crate::sys::{ibv_device, ibv_node_type, ibv_transport_type};

/// An RDMA device that can be opened. It may have been removed since it was listed.
pub struct Device {
    raw: NonNull<ibv_device>,
    list: Arc<List>,
}

/// The array that libibverbs gave out; its devices are valid as long as it is not freed.
struct List {
    library: Library,
    raw: *mut *mut ibv_device,
}

/// What kind of adapter a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeType {
    /// A channel adapter: InfiniBand or RoCE, soft-RoCE too.
    ChannelAdapter,
    /// An iWARP adapter: RDMA over TCP.
    Rnic,
    /// Another: a switch, a router, usNIC; the number of `enum ibv_node_type`.
    Other(i32),
}

/// What a device speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// InfiniBand's transport layer, over InfiniBand or Ethernet (RoCE).
    InfiniBand,
    /// iWARP.
    Iwarp,
    /// Another; the number of `enum ibv_transport_type`.
    Other(i32),
}

/// A device's identity, as printed in InfiniBand: `5054:00ff:fe12:3456`. 0 where the device has none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub u64);

impl Guid {
    pub(crate) fn from_network(bits: u64) -> Guid {
        Guid(u64::from_be(bits))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |shift: u32| (self.0 >> shift) as u16;
        write!(f, "{:04x}:{:04x}:{:04x}:{:04x}", part(48), part(32), part(16), part(0))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// SAFETY: nobody writes to a listed device, and libibverbs counts its references with atomics and locks.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}
// SAFETY: the array is only ever read, and freed by its last owner.
unsafe impl Send for List {}
// SAFETY: as above.
unsafe impl Sync for List {}

pub(crate) fn list(library: &Library) -> Result<Vec<Device>> {
    let mut count = 0;
    // SAFETY: the function writes the number of devices.
    let raw = unsafe { library.functions.ibv_get_device_list(&mut count) };
    if raw.is_null() {
        let source = std::io::Error::last_os_error();
        return Err(Error::call("ibv_get_device_list", library.path().display().to_string(), source));
    }
    let list = Arc::new(List { library: library.clone(), raw });
    let device = |index: i32| {
        let place = raw.wrapping_add(usize::try_from(index).ok()?);
        // SAFETY: the array has `count` devices, and is freed by the list only.
        let device = unsafe { place.read() };
        Some(Device { raw: NonNull::new(device)?, list: list.clone() })
    };
    Ok((0..count).filter_map(device).collect())
}

impl Device {
    /// The kernel's name: "mlx5_0", "rxe0".
    pub fn name(&self) -> &str {
        // SAFETY: the device is valid as long as its list.
        text(unsafe { &self.raw.as_ref().name })
    }

    /// The device's identity.
    pub fn guid(&self) -> Guid {
        // SAFETY: the device is valid as long as its list.
        Guid::from_network(unsafe { self.library().functions.ibv_get_device_guid(self.raw.as_ptr()) })
    }

    /// What kind of adapter it is.
    pub fn node_type(&self) -> NodeType {
        // SAFETY: the device is valid as long as its list.
        match unsafe { self.raw.as_ref() }.node_type {
            ibv_node_type::IBV_NODE_CA => NodeType::ChannelAdapter,
            ibv_node_type::IBV_NODE_RNIC => NodeType::Rnic,
            ibv_node_type(other) => NodeType::Other(other),
        }
    }

    /// What it speaks.
    pub fn transport(&self) -> Transport {
        // SAFETY: the device is valid as long as its list.
        match unsafe { self.raw.as_ref() }.transport_type {
            ibv_transport_type::IBV_TRANSPORT_IB => Transport::InfiniBand,
            ibv_transport_type::IBV_TRANSPORT_IWARP => Transport::Iwarp,
            ibv_transport_type(other) => Transport::Other(other),
        }
    }

    /// Its directory in sysfs: `/sys/class/infiniband/rxe0`.
    pub fn sysfs(&self) -> PathBuf {
        // SAFETY: the device is valid as long as its list.
        PathBuf::from(text(unsafe { &self.raw.as_ref().ibdev_path }))
    }

    /// The file that a process needs access to: `/dev/infiniband/uverbs0`.
    pub fn file(&self) -> PathBuf {
        // SAFETY: the device is valid as long as its list.
        Path::new("/dev/infiniband").join(text(unsafe { &self.raw.as_ref().dev_name }))
    }

    /// Opens the device for this process.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_open_device`: the device file is missing or not permitted, the device is gone, its
    /// provider library cannot be loaded, or too many files are open.
    pub fn open(&self) -> Result<Context> {
        // SAFETY: the device is valid as long as its list.
        let raw = unsafe { self.library().functions.ibv_open_device(self.raw.as_ptr()) };
        let Some(raw) = NonNull::new(raw) else {
            let answer = std::io::Error::last_os_error();
            // libibverbs tries other ways when it may not open the file, and answers with what the last of them met.
            let file = File::options().read(true).write(true).open(self.file());
            let source = file.err().unwrap_or(answer);
            let object = format!("{} ({})", self.name(), self.file().display());
            return Err(Error::call("ibv_open_device", object, source));
        };
        // SAFETY: the context was just opened by this library, and nobody else has it.
        unsafe { Context::new(self.library().clone(), raw, self.name().into(), self.sysfs()) }
    }

    fn library(&self) -> &Library {
        &self.list.library
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name()).field("guid", &self.guid()).finish()
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the array came from ibv_get_device_list, and with the list went its last device.
        unsafe { self.library.functions.ibv_free_device_list(self.raw) };
    }
}

/// A string in an array of fixed size. The kernel's names are ASCII.
pub(crate) fn text(array: &[c_char]) -> &str {
    // SAFETY: char and u8 have the same size and alignment, and any bits are valid for both.
    let bytes = unsafe { &*(std::ptr::from_ref(array) as *const [u8]) };
    CStr::from_bytes_until_nul(bytes).ok().and_then(|text| text.to_str().ok()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_prints_as_in_infiniband() {
        assert_eq!(Guid::from_network(0x5054_00ff_fe12_3456_u64.to_be()).to_string(), "5054:00ff:fe12:3456");
    }

    #[test]
    fn a_name_ends_at_its_first_zero() {
        assert_eq!(text(&b"rxe0\0mlx\0".map(|byte| byte as c_char)), "rxe0");
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[0xff_u8 as c_char, 0]), "");
    }
}
