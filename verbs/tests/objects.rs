//! What can be asked of a device, and made on it. Needs one: see `bed`.

#[allow(dead_code)]
mod bed;

use std::os::fd::AsFd;
use std::process::Command;

use bed::{CAPACITY, bed};
use rccl_verbs::{Access, Capacity, Error, LinkLayer, Mtu, PortState, State};

#[test]
fn a_device_tells_what_it_is() {
    let Some(bed) = bed() else { return };
    let attributes = bed.context.attributes().unwrap();
    eprintln!("{attributes:?}\n{:?}\n{:?}", bed.port, bed.gid);
    assert!(attributes.ports >= 1 && attributes.max_queue_pairs > 1 && attributes.max_segments > 0);
    assert_eq!((bed.port.number, bed.port.state), (1, PortState::Active));
    assert!(bed.port.active_mtu <= bed.port.max_mtu && bed.port.max_message >= 1 << 20);
    assert!(matches!(bed.port.link_layer, LinkLayer::Ethernet | LinkLayer::InfiniBand));
    assert!(bed.context.completion_vectors() >= 1);
    assert_eq!(bed.context.partition_key(1, 0).unwrap(), 0xffff);
    let error = bed.context.port(200).unwrap_err().to_string();
    assert!(error.contains("ibv_query_port") && error.contains("port 200"), "{error}");
}

#[test]
fn a_device_is_found_by_name_and_in_sysfs() {
    let Some(bed) = bed() else { return };
    let library = bed.context.library();
    let device = library.device(bed.context.name()).unwrap();
    assert!(device.sysfs().join("ports/1").is_dir(), "{:?}", device.sysfs());
    assert!(device.file().exists(), "{:?}", device.file());
    let devices = library.devices().unwrap();
    let message = library.device("nosuch0").unwrap_err().to_string();
    assert!(devices.iter().all(|device| message.contains(device.name())), "{message}");
    // The list may go before its devices are used.
    drop(devices);
    assert_eq!(device.guid(), bed.context.attributes().unwrap().guid);
}

#[test]
fn the_table_of_gids_has_no_empty_entries() {
    let Some(bed) = bed() else { return };
    let gids = bed.context.gids(1).unwrap();
    assert!(!gids.is_empty());
    for pair in gids.windows(2) {
        assert!(pair[0].index < pair[1].index);
    }
    assert!(gids.iter().all(|entry| !entry.gid.is_zero() && entry.port == 1));
    if bed.port.link_layer == LinkLayer::Ethernet {
        assert!(gids.iter().all(|entry| entry.interface.is_some()), "{gids:?}");
    }
}

#[test]
fn memory_is_registered_and_cut_into_segments() {
    let Some(bed) = bed() else { return };
    let page = rustix::param::page_size();
    let own = bed.domain.allocate(page + 1, Access::REMOTE_WRITE).unwrap();
    assert_eq!((own.length(), own.as_ptr().addr() % page), (2 * page, 0));
    assert_eq!(own.segment(100..164).length(), 64);
    assert_eq!(own.remote(100), own.remote(0).offset(100));

    let mut callers = vec![0_u8; 10_000];
    // SAFETY: the vector outlives the region, and is not touched meanwhile.
    let region = unsafe { bed.domain.register(callers.as_mut_ptr(), callers.len(), Access::LOCAL) }.unwrap();
    assert_eq!((region.as_ptr().cast_const(), region.length()), (callers.as_ptr(), 10_000));
    assert_ne!(region.local_key(), own.local_key());
    drop(region);

    let relaxed = Access { relaxed_ordering: true, ..Access::REMOTE_WRITE };
    bed.domain.allocate(4096, relaxed).unwrap();
}

#[test]
fn what_cannot_be_registered_is_an_error() {
    let Some(bed) = bed() else { return };
    assert!(matches!(bed.domain.allocate(0, Access::LOCAL), Err(Error::Argument { .. })));
    // SAFETY: nothing is mapped there, so that the kernel refuses.
    let error = unsafe { bed.domain.register(std::ptr::without_provenance_mut(4096), 8, Access::LOCAL) };
    let error = error.unwrap_err();
    // Hardware's drivers say EFAULT. Soft-RoCE says ENOMEM, as does what makes forking safe.
    assert!(matches!(error.raw_os_error(), Some(libc::EFAULT | libc::ENOMEM)), "{error}");
    assert!(error.to_string().contains("not all mapped"), "{error}");
    let file = tempfile::tempfile().unwrap();
    // SAFETY: the file is no dma-buf, so that the kernel refuses.
    let error = unsafe { bed.domain.register_dmabuf(file.as_fd(), 0, 4096, 0, Access::LOCAL) }.unwrap_err();
    eprintln!("{error}");
    assert!(error.to_string().contains("ibv_reg_dmabuf_mr"), "{error}");
}

#[test]
#[should_panic(expected = "of a memory region of")]
fn a_segment_lies_in_its_region() {
    // The panic that is wanted, where there is no device to cause it.
    let Some(bed) = bed() else { panic!("no bytes of a memory region of nothing") };
    let region = bed.memory(4096);
    let _ = region.segment(4000..region.length() + 1);
}

/// In a process of its own, because the limit and the capability are the process's.
#[test]
fn a_limit_on_locked_memory_is_found_out_before_the_device_is_asked() {
    const CHILD: &str = "RCCL_TEST_MEMLOCK";
    let Some(bed) = bed() else { return };
    if std::env::var_os(CHILD).is_some() {
        let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
        // SAFETY: the limit is a whole structure.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }, 0);
        rustix::thread::set_capabilities(
            None,
            rustix::thread::CapabilitySets {
                effective: rustix::thread::CapabilitySet::empty(),
                permitted: rustix::thread::CapabilitySet::empty(),
                inheritable: rustix::thread::CapabilitySet::empty(),
            },
        )
        .unwrap();
        let error = bed.domain.allocate(1 << 20, Access::LOCAL).unwrap_err();
        assert!(matches!(error, Error::LockedMemory { bytes: 0x10_0000, .. }), "{error}");
        eprintln!("{error}");
        bed.domain.allocate(16 << 10, Access::LOCAL).unwrap();
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_limit_on_locked_memory_is_found_out_before_the_device_is_asked", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("64 KiB"), "{:?}: {text}", output.status);
}

#[test]
fn a_queue_pair_tells_its_capacity_and_gives_less_inline_data_where_there_is_less() {
    let Some(bed) = bed() else { return };
    let queue = bed.context.completion_queue(64).unwrap();
    assert!(queue.entries() >= 64);
    let modest = bed.domain.queue_pair(&queue, &queue, CAPACITY).unwrap().capacity();
    eprintln!("wanted {CAPACITY:?}, got {modest:?}");
    assert!(modest.sends >= CAPACITY.sends && modest.inline_bytes >= 64);
    let greedy = Capacity { inline_bytes: 1 << 20, ..CAPACITY };
    let got = bed.domain.queue_pair(&queue, &queue, greedy).unwrap().capacity();
    assert!(got.inline_bytes >= 64 && got.inline_bytes < 1 << 20, "{got:?}");
    let impossible = Capacity { sends: 1 << 30, ..CAPACITY };
    let error = bed.domain.queue_pair(&queue, &queue, impossible).unwrap_err();
    assert!(error.to_string().contains("ibv_create_qp"), "{error}");
}

#[test]
fn objects_of_separate_contexts_are_not_mixed() {
    let Some(bed) = bed() else { return };
    let other = bed.context.library().device(bed.context.name()).unwrap().open().unwrap();
    let queue = other.completion_queue(8).unwrap();
    let error = bed.domain.queue_pair(&queue, &queue, CAPACITY).unwrap_err();
    assert!(matches!(error, Error::Argument { .. }), "{error}");
    let channel = bed.context.completion_channel().unwrap();
    assert!(matches!(channel.completion_queue(8, 0, 1 << 20), Err(Error::Argument { .. })));
    assert!(matches!(queue.arm(), Err(Error::Argument { .. })));
}

#[test]
fn steps_out_of_order_are_refused_with_the_state() {
    let Some(bed) = bed() else { return };
    let queue = bed.context.completion_queue(64).unwrap();
    let pair = bed.domain.queue_pair(&queue, &queue, CAPACITY).unwrap();
    let connection = bed.connection(pair.number(), 0, 0);
    let message = pair.ready_to_send(&connection).unwrap_err().to_string();
    assert!(message.contains("state Reset, needed is ReadyToReceive"), "{message}");
    pair.initialize(1, 0, Access::REMOTE_WRITE).unwrap();
    assert!(matches!(pair.initialize(1, 0, Access::LOCAL), Err(Error::State { .. })));
    assert_eq!(pair.query_state().unwrap(), State::Init);
    let wrong = bed.connection(pair.number(), 0, 0);
    let mut too_large = wrong.clone();
    too_large.retries = 9;
    assert!(matches!(pair.ready_to_receive(&too_large), Err(Error::Argument { .. })));
    assert_eq!(pair.state(), State::Init);
    pair.ready_to_receive(&connection).unwrap();
    pair.ready_to_send(&connection).unwrap();
    assert_eq!(pair.query_state().unwrap(), State::ReadyToSend);
    pair.fail().unwrap();
    assert_eq!(pair.query_state().unwrap(), State::Error);
    pair.reset().unwrap();
    pair.initialize(1, 0, Access::REMOTE_WRITE).unwrap();
}

#[test]
fn an_empty_gid_index_is_refused_with_a_hint() {
    let Some(bed) = bed() else { return };
    let end = bed.end();
    let mut connection = bed.connection(end.pair.number(), 0, 0);
    let filled: Vec<u32> = bed.context.gids(1).unwrap().iter().map(|entry| entry.index).collect();
    let last = bed.port.gids.min(256) - 1;
    assert!(!filled.contains(&last), "every index is filled");
    connection.gid_index = last as u8;
    let message = end.pair.ready_to_receive(&connection).unwrap_err().to_string();
    eprintln!("{message}");
    assert!(message.contains("ibv_modify_qp") && message.contains("ReadyToReceive"), "{message}");
    assert!(message.contains("GID index"), "{message}");
    // The step can be tried again with what is right.
    end.pair.ready_to_receive(&bed.connection(end.pair.number(), 0, 0)).unwrap();
    assert_eq!(Mtu::from_bytes(bed.port.active_mtu.bytes()), Some(bed.port.active_mtu));
}

#[test]
fn extensions_of_a_provider_are_told_or_refused() {
    let Some(bed) = bed() else { return };
    let end = bed.end();
    match end.pair.ece() {
        Ok(ece) => eprintln!("{ece:?}"),
        Err(error) => assert!(error.to_string().contains("ibv_query_ece"), "{error}"),
    }
}

#[test]
fn objects_may_be_dropped_in_any_order_and_leave_nothing() {
    let Some(bed) = bed() else { return };
    for round in 0..32 {
        let context = bed.context.library().device(bed.context.name()).unwrap().open().unwrap();
        let domain = context.protection_domain().unwrap();
        let channel = context.completion_channel().unwrap();
        let queue = channel.completion_queue(16, 1, 0).unwrap();
        let pair = domain.queue_pair(&queue, &queue, CAPACITY).unwrap();
        let region = domain.allocate(8192, Access::REMOTE_WRITE).unwrap();
        if round % 2 == 0 {
            drop((context, domain, channel, queue, pair, region));
        } else {
            drop((pair, region, queue, channel, domain, context));
        }
    }
}
