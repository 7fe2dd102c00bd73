//! Profiles of algorithms: rank 0's decides for all ranks, on its layout and no other, and results are right by it.

mod common;

use common::{config, on_ranks_with};
use rccl::tuner::{By, Profile};
use rccl::{Call, Collective, Communicator, Config, DataType, ReduceOp, UniqueId};

const PROFILE: &str = "[[layout]]\nranks = 3\nhosts = 1\npath = \"shm\"\n\
                       all_reduce = \"tree up to 64, ring\"\nbroadcast = \"chain\"\n\n\
                       [[layout]]\nranks = 2\nhosts = 1\npath = \"shm\"\nall_reduce = \"halving\"\n\n\
                       [[layout]]\nranks = 3\nhosts = 3\npath = \"tcp\"\nall_reduce = \"direct\"\n";

fn all_reduce(bytes: u64) -> Call {
    let op = Some(ReduceOp::Sum);
    Call { collective: Collective::AllReduce, dtype: DataType::F32, op, root: None, count: bytes / 4 }
}

fn naming(file: &std::path::Path) -> Config {
    let mut config = config("shm", "");
    config.tune_file = Some(file.to_owned());
    config
}

/// Three ranks, of which the first alone has the file.
fn configs(file: &std::path::Path) -> Vec<Config> {
    let usual = config("shm", "");
    vec![naming(file), usual.clone(), usual]
}

#[test]
fn the_profile_of_rank_0_decides_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profile.toml");
    std::fs::write(&file, PROFILE).unwrap();
    let seen = on_ranks_with(&configs(&file), |comm: Communicator| {
        let words = [8, 64, 68, 1 << 20].map(|bytes| comm.algorithm(&all_reduce(bytes)));
        let by = comm.decision(&all_reduce(8)).unwrap().by;
        // What the profile does not name is as ever.
        let gather = Call { collective: Collective::AllGather, op: None, ..all_reduce(64) };
        let other = comm.decision(&gather).unwrap().by;
        let sums = [1_usize, 17, 1 << 18].map(|count| {
            let mut x: Vec<f32> = (0..count).map(|i| ((i % 100) as u32 + comm.rank()) as f32).collect();
            comm.all_reduce(&mut x, ReduceOp::Sum).unwrap();
            x.iter().enumerate().all(|(i, &sum)| sum == (3 * (i % 100) + 3) as f32)
        });
        let mut root = [comm.rank(); 5];
        comm.broadcast(&mut root, 2).unwrap();
        // Two ranks are another layout, of which the profile knows something else.
        let half = comm.split((comm.rank() < 2).then_some(0), 0).unwrap();
        let half = half.map(|half| half.algorithm(&all_reduce(8)));
        comm.finish().unwrap();
        (words, by, other, sums, root, half)
    });
    for (rank, (words, by, other, sums, root, half)) in seen.into_iter().enumerate() {
        assert_eq!(words, ["tree", "tree", "ring", "ring"], "rank {rank}");
        assert_eq!((by, other), (By::Profile, By::Thresholds), "rank {rank}");
        assert_eq!((sums, root), ([true; 3], [2; 5]), "rank {rank}");
        assert_eq!(half, (rank < 2).then_some("halving"), "rank {rank}");
    }
}

#[test]
fn chunks_are_as_long_as_rank_0_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profile.toml");
    std::fs::write(&file, PROFILE.replace("tree up to 64, ring", "tree in chunks of 4K up to 64K, ring"))
        .unwrap();
    let mut configs = configs(&file);
    let chunks = |configs: &[Config]| {
        let seen = on_ranks_with(configs, |comm: Communicator| {
            // Ranks that cut a call differently would read what is not there.
            for count in [16 << 10, 200_000, 1 << 20] {
                let mut x: Vec<f32> = (0..count).map(|i| ((i % 100) as u32 + comm.rank()) as f32).collect();
                comm.all_reduce(&mut x, ReduceOp::Sum).unwrap();
                assert!(x.iter().enumerate().all(|(i, &sum)| sum == (3 * (i % 100) + 3) as f32));
            }
            let chunk = |bytes| comm.decision(&all_reduce(bytes)).unwrap().chunk.map(|chunk| chunk.bytes());
            let chunks = [64 << 10, 1 << 20].map(chunk);
            comm.finish().unwrap();
            chunks
        });
        assert!(seen.iter().all(|chunks| *chunks == seen[0]), "{seen:?}");
        seen[0]
    };
    assert_eq!(chunks(&configs), [Some(4 << 10), None]);
    configs[1].set("RCCL_CHUNK_SIZE", "16K").unwrap();
    assert_eq!(chunks(&configs), [Some(4 << 10), None]);
    configs[0].set("RCCL_CHUNK_SIZE", "usual").unwrap();
    assert_eq!(chunks(&configs), [None; 2]);
    configs[0].set("RCCL_CHUNK_SIZE", "1K").unwrap();
    assert_eq!(chunks(&configs), [Some(1 << 10); 2]);
    // Long ones over sockets, and copies between processes.
    configs.iter_mut().for_each(|config| config.set("RCCL_TRANSPORT", "tcp").unwrap());
    configs[0].set("RCCL_CHUNK_SIZE", "128K").unwrap();
    assert_eq!(chunks(&configs), [Some(128 << 10); 2]);
}

#[test]
fn settings_go_before_the_profile() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profile.toml");
    std::fs::write(&file, PROFILE).unwrap();
    let mut configs = configs(&file);
    configs.iter_mut().for_each(|config| config.set("RCCL_ALGO", "all_reduce:halving").unwrap());
    let seen = on_ranks_with(&configs, |comm: Communicator| comm.decision(&all_reduce(8)).unwrap());
    for decision in seen {
        assert_eq!(decision.algorithm.word(), "halving");
        assert!(decision.by.to_string().ends_with("which leave out tree"), "{}", decision.by);
    }
    // In a fixed order neither tree nor ring will do; every rank says so of itself.
    configs.iter_mut().for_each(|config| config.set("RCCL_ALGO", "").unwrap());
    configs.iter_mut().for_each(|config| config.reproducible = rccl::Reproducible::Fixed);
    let seen = on_ranks_with(&configs, |comm: Communicator| comm.algorithm(&all_reduce(8)));
    assert_eq!(seen, ["exchange"; 3]);
}

#[test]
fn a_file_that_cannot_be_read_keeps_rank_0_from_joining() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profile.toml");
    let refused = |text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let config = naming(&file);
        let id = UniqueId::create(&config).unwrap();
        let error = Communicator::builder().unwrap().config(config).connect(&id, 0, 1).err().unwrap();
        assert_eq!(error.code(), "RCCL-1002");
        error.to_string()
    };
    let name = format!("RCCL_TUNE_FILE={0}: expected a profile: ", file.display());
    assert!(refused(None).starts_with(&format!("{name}cannot be read: ")), "{}", refused(None));
    let said = refused(Some(&PROFILE.replace("chain", "chin")));
    assert!(said.starts_with(&format!("{name}{}:6:13: no algorithm of broadcast", file.display())), "{said}");
    // Layouts of more ranks than the job has do not count, and so many of one rank cannot be written.
    let layouts = (1..=70).map(|ranks| format!("[[layout]]\nranks = {ranks}\nhosts = 1\npath = \"shm\"\n"));
    std::fs::write(&file, layouts.collect::<String>()).unwrap();
    let config = naming(&file);
    assert_eq!(rccl::tuner::load(&config, 64).unwrap().layouts.len(), Profile::MOST_LAYOUTS);
    let many = rccl::tuner::load(&config, 65).unwrap_err().to_string();
    assert!(many.contains("65 layouts of at most 65 ranks are more than 64"), "{many}");
}
