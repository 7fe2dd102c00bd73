//! Starts a program on several ranks of this host.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a program on so many ranks and returns what rank 0 printed; all ranks must end well, and soon.
pub fn run(program: &str, ranks: u32, arguments: &[&str]) -> String {
    // Free when asked, and rank 0 takes it at once; the kernel hands out other ports first in between.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut children: Vec<Child> = (0..ranks)
        .map(|rank| {
            Command::new(program)
                .args(arguments)
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
        assert!(output.status.success(), "{program}, rank {rank} of {ranks}: {} {said}", output.status);
    }
    String::from_utf8_lossy(&outputs[0].stdout).into_owned()
}

/// Runs a training on so many ranks; what it printed must tell the same curve as `digits` on one rank.
pub fn learns_as_digits_does(program: &str, ranks: u32, options: &[&str], network: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("alone.svg");
    let alone = [network, &[picture.to_str().unwrap()]].concat();
    let alone = curve(&run(env!("CARGO_BIN_EXE_digits"), 1, &alone));
    assert!(!alone.is_empty(), "a line an epoch");
    let said = run(program, ranks, &[network, options].concat());
    let together = curve(&said);
    assert_eq!(together.len(), alone.len());
    for (epoch, (one, many)) in (1..).zip(alone.iter().zip(&together)) {
        let apart = (one.0 - many.0).abs();
        // Rounding alone was seen to move it by less than a millionth part; the program prints six decimals.
        let near = 2e-6 + 1e-5 * one.0;
        assert!(apart <= near, "epoch {epoch}, {ranks} ranks of {program}: loss {} not {}", many.0, one.0);
    }
    assert_eq!(together.last().unwrap().1, alone.last().unwrap().1, "accuracy, {ranks} ranks of {program}");
    said
}

/// Loss and accuracy (percent) of each epoch.
pub fn curve(said: &str) -> Vec<(f64, f64)> {
    said.lines().filter_map(epoch).collect()
}

/// Of `epoch  1  loss 1.234567  test accuracy 90.28 %`: the two figures.
fn epoch(line: &str) -> Option<(f64, f64)> {
    let rest = line.strip_prefix("epoch")?;
    let (_, rest) = rest.split_once("loss ")?;
    let (loss, rest) = rest.split_once("  test accuracy ")?;
    Some((loss.parse().ok()?, rest.strip_suffix(" %")?.parse().ok()?))
}
