//! Programs for people to read.
//!
//! ```text
//! rank 0 of 4, 4 parts
//! #0  [1/4]  in -> send 1
//! #3  [0/4]  recv 1-3 + in -> out, send 1-3; finish
//! #4  [1/4]  recv 1 -> out
//! ```
//!
//! One line per operation: its number, the elements that it covers, its operands (joined by `+`, reduced in ascending
//! order of rank), `->`, where the value goes, and what it is after (`after #3*` waits for all of operation 3, `after
//! #3` chunk by chunk).

use std::fmt;

use crate::program::{Buffer, Extent, Op, Program, Rank};

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_program(f, self, None)
    }
}

/// A program as it is run for a number of elements: each line also says which elements those are.
///
/// What [`Program::explain`] returns; print it.
pub struct Explained<'a> {
    program: &'a Program,
    count: u64,
}

impl Program {
    /// Prints as the program itself does, with the element ranges of a call with `count` elements a block.
    pub fn explain(&self, count: u64) -> Explained<'_> {
        Explained { program: self, count }
    }
}

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_program(f, self.program, Some(self.count))
    }
}

fn write_program(f: &mut fmt::Formatter<'_>, program: &Program, count: Option<u64>) -> fmt::Result {
    let plural = |number: u32| if number == 1 { "" } else { "s" };
    write!(f, "rank {} of {}, {} part{}", program.rank, program.ranks, program.parts, plural(program.parts))?;
    if program.blocks > 1 {
        write!(f, " in each of {} blocks", program.blocks)?;
    }
    let scratch = program.windows.len() as u32 - 2;
    if scratch > 0 {
        write!(f, ", {scratch} scratch buffer{}", plural(scratch))?;
    }
    if program.snapshot {
        f.write_str(", sends are snapshots")?;
    }
    if let Some(count) = count {
        write!(f, ", {count} elements{}", if program.blocks > 1 { " a block" } else { "" })?;
    }
    writeln!(f)?;
    let width = program.ops.len().saturating_sub(1).to_string().len();
    let extents: Vec<String> = program
        .ops
        .iter()
        .map(|op| match count.map(|count| program.elements(&op.extent, &count)) {
            Some(elements) => format!("{} {}..{}", op.extent, elements.start, elements.end),
            None => op.extent.to_string(),
        })
        .collect();
    let extent_width = extents.iter().map(String::len).max().unwrap_or(0);
    for (number, (op, extent)) in program.ops.iter().zip(extents).enumerate() {
        writeln!(f, "#{number:<width$}  {extent:<extent_width$}  {}", Action(op))?;
    }
    Ok(())
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.extent, Action(self))
    }
}

/// An operation without its extent.
struct Action<'a>(&'a Op);

impl fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = self.0;
        let join = |parts: [Option<String>; 2], separator| {
            parts.into_iter().flatten().collect::<Vec<_>>().join(separator)
        };
        let peers = |verb, ranks: &[Rank]| (!ranks.is_empty()).then(|| format!("{verb} {}", Ranks(ranks)));
        let operands =
            join([peers("recv", op.recv.as_slice()), op.reduce_with.map(|b| b.to_string())], " + ");
        let targets = join([op.copy_to.map(|b| b.to_string()), peers("send", op.send.as_slice())], ", ");
        write!(f, "{operands} -> {targets}")?;
        if op.finish {
            f.write_str("; finish")?;
        }
        if op.channel > 0 {
            write!(f, "; channel {}", op.channel)?;
        }
        for (i, dep) in op.after.iter().enumerate() {
            let separator = if i == 0 { "; after" } else { "," };
            write!(f, "{separator} #{}{}", dep.op, if dep.whole { "*" } else { "" })?;
        }
        Ok(())
    }
}

/// Ranks with runs of three and more contracted, as `1,2` or `5-63,0-3`.
struct Ranks<'a>(&'a [Rank]);

impl fmt::Display for Ranks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for run in self.0.chunk_by(|a, b| a + 1 == *b) {
            match run {
                [first, _, .., last] => write!(f, "{separator}{first}-{last}")?,
                [first, second] => write!(f, "{separator}{first},{second}")?,
                _ => write!(f, "{separator}{}", run[0])?,
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Extent { lo: 0, hi, of } if hi == of => f.write_str("[all]"),
            Extent { lo, hi, of } if lo + 1 == hi => write!(f, "[{lo}/{of}]"),
            Extent { lo, hi, of } => write!(f, "[{lo}-{}/{of}]", hi - 1),
        }
    }
}

impl fmt::Display for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Buffer::INPUT => f.write_str("in"),
            Buffer::OUTPUT => f.write_str("out"),
            Buffer(other) => write!(f, "scratch{}", other - 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Algorithm, Collective, Layout, program};

    #[test]
    fn a_program_prints_one_line_per_operation() {
        let direct = program(Algorithm::Direct, &Collective::AllReduce, 0, &Layout::one_host(4), 1);
        let text = "rank 0 of 4, 4 parts\n\
                    #0  [1/4]  in -> send 1\n\
                    #1  [2/4]  in -> send 2\n\
                    #2  [3/4]  in -> send 3\n\
                    #3  [0/4]  recv 1-3 + in -> out, send 1-3; finish\n\
                    #4  [1/4]  recv 1 -> out\n\
                    #5  [2/4]  recv 2 -> out\n\
                    #6  [3/4]  recv 3 -> out\n";
        assert_eq!(direct.to_string(), text);
    }

    #[test]
    fn blocks_are_told_from_parts() {
        let ring = program(Algorithm::Ring, &Collective::ReduceScatter, 0, &Layout::one_host(3), 1);
        let text = "rank 0 of 3, 1 part in each of 3 blocks, 1 scratch buffer, 5 elements a block\n\
                    #0  [2/3] 10..15  in -> send 1\n\
                    #1  [1/3] 5..10   recv 2 + in -> scratch0, send 1\n\
                    #2  [0/3] 0..5    recv 2 + in -> out; finish\n";
        assert_eq!(ring.explain(5).to_string(), text);
    }

    #[test]
    fn dependencies_scratch_and_elements_are_printed() {
        let doubling =
            program(Algorithm::RecursiveDoubling, &Collective::AllReduce, 2, &Layout::one_host(4), 1);
        let text = "rank 2 of 4, 1 part, 1 scratch buffer, 10 elements\n\
                    #0  [all] 0..10  in -> send 3\n\
                    #1  [all] 0..10  recv 3 + in -> scratch0\n\
                    #2  [all] 0..10  scratch0 -> send 0; after #1\n\
                    #3  [all] 0..10  recv 0 + scratch0 -> out; finish; after #1, #0\n";
        assert_eq!(doubling.explain(10).to_string(), text);
    }
}
