//! The ranks' output, line by line.

use std::io::Write;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Where a rank's lines go.
#[derive(Clone, Copy)]
pub enum Target {
    Stdout,
    Stderr,
}

/// Copies lines until the pipe ends, each as one write with the prefix in front, so that ranks never share a line. A
/// last line without an end gets one. When nobody reads any more (`| head`), the pipe is closed, so that the rank that
/// writes to it learns it as it would in a pipeline of its own.
pub async fn copy_lines(source: impl AsyncRead + Unpin, target: Target, prefix: String) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    loop {
        line.clear();
        line.extend_from_slice(prefix.as_bytes());
        match source.read_until(b'\n', &mut line).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        let written = match target {
            Target::Stdout => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&line).and_then(|()| stdout.flush())
            }
            Target::Stderr => std::io::stderr().lock().write_all(&line),
        };
        if written.is_err() {
            return;
        }
    }
}
