//! `rcclConfig_t`: what a program may say of a communicator besides the environment. New fields come at the end, and `size`
//! says how many a program knows.

use crate::error::Refusal;
use rccl::Reproducible;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::time::Duration;

/// `rcclConfig_t`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Config {
    /// Of the struct that the program knows, in bytes.
    pub size: usize,
    /// RCCL_CONFIG_MAGIC.
    pub magic: c_uint,
    /// Of the header that the program was compiled with.
    pub version: c_uint,
    /// 0: joining returns at once with rcclInProgress.
    pub blocking: c_int,
    /// How long a call may take, in milliseconds.
    pub timeout_ms: c_int,
    /// How long joining may take, in milliseconds.
    pub init_timeout_ms: c_int,
    /// 1: the same bits for any size, algorithm, transport and placement.
    pub reproducible: c_int,
    /// The name in errors and logs, or NULL.
    pub name: *const c_char,
}

/// What tells an initialised config from other memory: "rccl".
pub const MAGIC: c_uint = 0x7263_636c;
/// RCCL_CONFIG_UNDEF_INT.
pub const UNDEFINED: c_int = c_int::MIN;

/// How every config begins, of whatever version.
#[derive(Clone, Copy)]
#[repr(C)]
struct Head {
    size: usize,
    magic: c_uint,
    _version: c_uint,
}

/// What a config says.
pub(crate) struct Settings {
    pub config: rccl::Config,
    pub label: String,
    pub blocks: bool,
}

/// The settings of the environment.
pub(crate) fn environment() -> Result<rccl::Config, Refusal> {
    Ok(rccl::Config::from_env()?)
}

/// Reads a config; NULL says nothing.
///
/// # Safety
/// `config` is NULL, or has as many bytes as its first field says, and its name is NULL or a string.
pub(crate) unsafe fn read(config: *const Config) -> Result<Settings, Refusal> {
    let mut settings = Settings { config: environment()?, label: "world".into(), blocks: true };
    if config.is_null() {
        return Ok(settings);
    }
    if !config.is_aligned() {
        return Err(Refusal::argument("the config lies at an odd address: it is no rcclConfig_t"));
    }
    let head = config.cast::<Head>();
    // SAFETY: the caller's promise; every config begins with it.
    let Head { size, magic, .. } = unsafe { head.read() };
    if magic != MAGIC || size < size_of::<Head>() {
        return Err(Refusal::argument("the config was not initialised: begin with RCCL_CONFIG_INITIALIZER"));
    }
    let mut known = Config {
        size,
        magic: MAGIC,
        version: 0,
        blocking: UNDEFINED,
        timeout_ms: UNDEFINED,
        init_timeout_ms: UNDEFINED,
        reproducible: UNDEFINED,
        name: std::ptr::null(),
    };
    // What the program does not know stays undefined, and what only it knows is not asked for.
    let bytes = size.min(size_of::<Config>());
    // SAFETY: both have so many bytes, by the caller's promise and the line before.
    unsafe { std::ptr::copy_nonoverlapping(config.cast::<u8>(), (&raw mut known).cast(), bytes) };
    let flag = |name: &str, value: c_int| match value {
        UNDEFINED => Ok(None),
        0 | 1 => Ok(Some(value == 1)),
        _ => Err(Refusal::argument(format!("{name} is {value} in the config: 0 or 1"))),
    };
    let time = |name: &str, value: c_int| match value {
        UNDEFINED => Ok(None),
        1.. => Ok(Some(Duration::from_millis(value as u64))),
        _ => Err(Refusal::argument(format!("{name} is {value} in the config: milliseconds, 1 or more"))),
    };
    if let Some(timeout) = time("timeoutMs", known.timeout_ms)? {
        settings.config.timeout = timeout;
    }
    if let Some(timeout) = time("initTimeoutMs", known.init_timeout_ms)? {
        settings.config.init_timeout = timeout;
    }
    if let Some(fixed) = flag("reproducible", known.reproducible)? {
        settings.config.reproducible = if fixed { Reproducible::Fixed } else { Reproducible::Ranks };
    }
    settings.blocks = flag("blocking", known.blocking)?.unwrap_or(true);
    if !known.name.is_null() {
        // SAFETY: the caller's promise.
        settings.label = unsafe { CStr::from_ptr(known.name) }.to_string_lossy().into_owned();
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    fn initial() -> Config {
        Config {
            size: size_of::<Config>(),
            magic: MAGIC,
            version: 1,
            blocking: UNDEFINED,
            timeout_ms: UNDEFINED,
            init_timeout_ms: UNDEFINED,
            reproducible: UNDEFINED,
            name: std::ptr::null(),
        }
    }

    fn words(config: &Config) -> String {
        // SAFETY: a whole struct.
        unsafe { read(config) }.err().map_or(String::new(), |refusal| refusal.words)
    }

    #[test]
    fn what_is_said_counts_and_the_rest_is_as_ever() {
        let config = Config { blocking: 0, timeout_ms: 1500, name: c"rows".as_ptr(), ..initial() };
        // SAFETY: a whole struct.
        let settings = unsafe { read(&config) }.ok().unwrap();
        assert_eq!((settings.blocks, settings.label.as_str()), (false, "rows"));
        assert_eq!(settings.config.timeout, Duration::from_millis(1500));
        assert_eq!(settings.config.init_timeout, rccl::Config::from_env().unwrap().init_timeout);
        for (asked, as_told) in [(0, Reproducible::Ranks), (1, Reproducible::Fixed)] {
            let config = Config { reproducible: asked, ..initial() };
            // SAFETY: a whole struct.
            let settings = unsafe { read(&config) }.ok().unwrap();
            assert_eq!(settings.config.reproducible, as_told);
        }
        // A program that knows fewer fields: what is behind them is not read.
        let older = Config { size: size_of::<Head>() + 4, timeout_ms: -3, ..config };
        // SAFETY: a whole struct.
        let settings = unsafe { read(&older) }.ok().unwrap();
        assert_eq!((settings.blocks, settings.label.as_str()), (false, "world"));
    }

    #[test]
    fn what_is_no_config_is_refused() {
        assert_eq!(words(&initial()), "");
        assert!(words(&Config { magic: 0, ..initial() }).contains("RCCL_CONFIG_INITIALIZER"));
        assert!(words(&Config { size: 8, ..initial() }).contains("RCCL_CONFIG_INITIALIZER"));
        assert!(words(&Config { blocking: 7, ..initial() }).contains("blocking is 7"));
        assert!(words(&Config { timeout_ms: 0, ..initial() }).contains("timeoutMs is 0"));
        assert!(words(&Config { reproducible: 2, ..initial() }).contains("reproducible is 2"));
    }

    /// As ffi/tests/c/every.c has them of the header.
    #[cfg(target_pointer_width = "64")]
    #[test]
    fn it_lies_as_the_header_says() {
        assert_eq!(
            (offset_of!(Config, size), offset_of!(Config, magic), offset_of!(Config, version)),
            (0, 8, 12)
        );
        assert_eq!((offset_of!(Config, blocking), offset_of!(Config, timeout_ms)), (16, 20));
        assert_eq!((offset_of!(Config, init_timeout_ms), offset_of!(Config, reproducible)), (24, 28));
        assert_eq!((offset_of!(Config, name), size_of::<Config>()), (32, 40));
    }
}
