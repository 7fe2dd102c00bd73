//! libibverbs as its C header declares it.
//!
//! * `bindings`: types, constants and signatures, generated once and committed (`verbs/regenerate.sh`);
//! * [`loading`]: opens the library and finds its functions by version;
//! * [`elf`]: looks at the file first, because the loader dies of a truncated one;
//! * [`inline`]: what the header has as inline functions, so that no symbol of the library stands for it.
//!
//! Every layout is asserted at compile time. Most hold on any 64-bit Linux; four structures embed pthread types, whose
//! size each architecture has its own, so theirs are asserted for each.

#[cfg(not(all(
    target_os = "linux",
    target_endian = "little",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!(
    "rccl-verbs knows the layouts of libibverbs on Linux for x86_64 and little-endian aarch64 only; for another \
     architecture check src/sys/bindings.rs against its headers and add assertions in src/sys/mod.rs"
);

#[allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unused_qualifications,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::missing_safety_doc,
    clippy::missing_errors_doc
)]
mod bindings;
pub(crate) mod elf;
pub(crate) mod inline;
pub(crate) mod loading;

pub(crate) use bindings::*;

/// The structures that embed pthread types, by the sizes of glibc for aarch64: 48 bytes for a mutex, where x86_64 has
/// 40, and 48 for a condition. The generated bindings assert those of x86_64.
#[cfg(target_arch = "aarch64")]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<libc::pthread_mutex_t>() == 48);
    assert!(size_of::<libc::pthread_cond_t>() == 48);
    assert!(offset_of!(ibv_context, ops) == 8);
    assert!(offset_of!(ibv_context, async_fd) == 268);
    assert!(offset_of!(ibv_context, num_comp_vectors) == 272);
    assert!(offset_of!(ibv_context, mutex) == 280);
    assert!(offset_of!(ibv_context, abi_compat) == 328);
    assert!(size_of::<ibv_context>() == 336);
    assert!(offset_of!(ibv_cq, cq_context) == 16);
    assert!(offset_of!(ibv_cq, mutex) == 32);
    assert!(offset_of!(ibv_cq, comp_events_completed) == 128);
    assert!(size_of::<ibv_cq>() == 136);
    assert!(offset_of!(ibv_qp, qp_num) == 52);
    assert!(offset_of!(ibv_qp, mutex) == 64);
    assert!(offset_of!(ibv_qp, events_completed) == 160);
    assert!(size_of::<ibv_qp>() == 168);
    assert!(offset_of!(verbs_context, sz) == 312);
    assert!(offset_of!(verbs_context, context) == 320);
    assert!(size_of::<verbs_context>() == 656);
};
