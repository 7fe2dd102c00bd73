//! Opening libibverbs.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::device::{self, Device};
use crate::error::{Error, LibraryError, Result, checked};
use crate::sys::loading::DEFAULT_NAME;
use crate::sys::{Functions, ibv_fork_status};
use crate::unusable::{self, UnusableDevice};

/// An open libibverbs. Cheap to clone; all clones are the same library, which stays loaded until the process ends.
#[derive(Clone)]
pub struct Library {
    pub(crate) functions: Arc<Functions>,
    path: Arc<Path>,
}

/// Whether this process may fork while it has registered memory (ibv_fork_init(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkSupport {
    /// Registered pages are kept out of children: a child that touches one of them dies. Registrations should begin and
    /// end at page boundaries, so that nothing else lies on such a page.
    Enabled,
    /// The kernel (5.12 or newer) copies registered pages for the child at once; nothing had to be done.
    Unneeded,
    /// Not protected: after a fork, writes of the parent may go to a copy of the page that the device does not see.
    Disabled,
}

impl Library {
    /// Opens `libibverbs.so.1` where the loader finds it, or the file at `path`.
    ///
    /// No environment is read, save that the loader's search path is followed to look at the file before it is mapped.
    ///
    /// # Errors
    ///
    /// [`LibraryError`], each with its cause and remedy: no such file, not a library of this machine or truncated,
    /// refused by the loader, another library, too old.
    pub fn open(path: Option<&Path>) -> Result<Library, LibraryError> {
        let name = path.unwrap_or(Path::new(DEFAULT_NAME));
        // SAFETY: libibverbs has no initialisers that need anything of the process; who names another file vouches for it
        // as with any library.
        let functions = unsafe { Functions::new(name) }?;
        Ok(Library { functions: Arc::new(functions), path: name.into() })
    }

    /// The path or name by which the library was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes forking safe while memory is registered. To be called before any memory is registered in this process;
    /// does nothing where the kernel needs nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_fork_init`: EINVAL if memory was registered before, ENOSYS if the kernel cannot.
    pub fn prepare_for_fork(&self) -> Result<ForkSupport> {
        // The function makes a table for the process, and two threads at once would make two.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the function takes nothing, and no other thread calls it now.
        let code = unsafe { self.functions.ibv_fork_init() };
        checked("ibv_fork_init", || self.path().display().to_string(), code)?;
        let Ok(initialized) = &self.functions.ibv_is_fork_initialized else {
            return Ok(ForkSupport::Enabled);
        };
        // SAFETY: the function takes nothing and may be called at any time.
        Ok(match unsafe { initialized() } {
            ibv_fork_status::IBV_FORK_UNNEEDED => ForkSupport::Unneeded,
            ibv_fork_status::IBV_FORK_DISABLED => ForkSupport::Disabled,
            _ => ForkSupport::Enabled,
        })
    }

    /// The devices that there are now, in the kernel's order: those that have a provider library too. Reads sysfs and
    /// netlink, so it takes up to milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_get_device_list`: no RDMA in the kernel, no permission, no memory. No device at all is
    /// an empty list.
    pub fn devices(&self) -> Result<Vec<Device>> {
        device::list(self)
    }

    /// The devices that the kernel has and that [`devices`](Library::devices) leaves out, with what is missing. Reads sysfs.
    ///
    /// # Errors
    ///
    /// As for [`devices`](Library::devices).
    pub fn unusable_devices(&self) -> Result<Vec<UnusableDevice>> {
        Ok(unusable::find(&self.devices()?))
    }

    /// The device of that name: "mlx5_0", "rxe0".
    ///
    /// # Errors
    ///
    /// As for [`devices`](Library::devices); [`Error::NoDevice`] with the names that there are, and with those that there
    /// would be.
    pub fn device(&self, name: &str) -> Result<Device> {
        let mut devices = self.devices()?;
        match devices.iter().position(|device| device.name() == name) {
            Some(found) => Ok(devices.swap_remove(found)),
            None => Err(Error::NoDevice {
                name: name.into(),
                unusable: unusable::find(&devices),
                present: devices.iter().map(|device| device.name().to_owned()).collect(),
            }),
        }
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Library").field(&self.path()).finish()
    }
}
