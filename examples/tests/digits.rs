//! The training gives the same curve and the same accuracy on 1, 2 and 4 ranks.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn one_two_and_four_ranks_learn_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let alone = train(1, folder.path());
    assert_eq!(alone.len(), 30, "one line an epoch");
    let (_, accuracy) = alone[29];
    assert!(accuracy > 95.0, "one rank learns: {accuracy} %");

    for ranks in [2, 4] {
        let together = train(ranks, folder.path());
        assert_eq!(together.len(), alone.len());
        for (epoch, (one, many)) in alone.iter().zip(&together).enumerate() {
            let apart = (one.0 - many.0).abs();
            // Rounding alone was seen to move it by less than a millionth part; the program prints six decimals.
            let near = 2e-6 + 1e-5 * one.0;
            assert!(apart <= near, "epoch {epoch}, {ranks} ranks: loss {} not {}", many.0, one.0);
        }
        assert_eq!(together[29].1, accuracy, "test accuracy of {ranks} ranks");
        let picture = std::fs::read_to_string(folder.path().join(format!("{ranks}.svg"))).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    }
}

/// Runs the program on so many ranks and returns loss and accuracy (percent) of each epoch.
fn train(ranks: u32, folder: &Path) -> Vec<(f64, f64)> {
    // Free when asked, and rank 0 takes it at once; the kernel hands out other ports first in between.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut children: Vec<Child> = (0..ranks)
        .map(|rank| {
            Command::new(env!("CARGO_BIN_EXE_digits"))
                .arg(folder.join(format!("{ranks}.svg")))
                .env("RCCL_RANK", rank.to_string())
                .env("RCCL_SIZE", ranks.to_string())
                .env("RCCL_COMM_ID", format!("127.0.0.1:{port}"))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let deadline = Instant::now() + LIMIT;
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        if Instant::now() > deadline {
            children.iter_mut().for_each(|child| child.kill().unwrap());
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let outputs: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    for (rank, output) in outputs.iter().enumerate() {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rank {rank} of {ranks}: {} {said}", output.status);
    }
    String::from_utf8_lossy(&outputs[0].stdout).lines().filter_map(epoch).collect()
}

/// Of `epoch  1  loss 1.234567  test accuracy 90.28 %`: the two figures.
fn epoch(line: &str) -> Option<(f64, f64)> {
    let rest = line.strip_prefix("epoch")?;
    let (_, rest) = rest.split_once("loss ")?;
    let (loss, rest) = rest.split_once("  test accuracy ")?;
    Some((loss.parse().ok()?, rest.strip_suffix(" %")?.parse().ok()?))
}
