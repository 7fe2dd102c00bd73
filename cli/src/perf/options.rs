//! The options of `rccl perf`: nccl-tests' letters and words, and what rccl adds.

use clap::{ArgAction, Args, ValueEnum};
use rccl::{Collective, Config, DataType, ReduceOp};
use std::path::PathBuf;
use std::str::FromStr;

use super::line::{self, KNOWN, SENDRECV};
use super::size::{Sizes, parse_size};

/// nccl-tests' name of [`ReduceOp::PreMulSum`], which fits its column.
const MULSUM: &str = "mulsum";

/// What the options' words mean, below them.
const SIZES: &str = "\
A size is that of a rank's data, as in nccl-tests; of reduce_scatter, all_gather, all_to_all, gather and scatter it is
that of all ranks' blocks together, and the table's count is that of one block. The forms with _v deal all elements
unevenly: of n ranks, rank r's block gets r in n(n-1)/2 parts of them, and the count is that of all blocks. sendrecv
sends to the next rank and receives from the one before, in one group. N/A stands where there is no form in place.
Every element is checked: what must be written, and what must be left alone. The exit status is 1 if one was wrong.";

/// Times a collective and checks its results; nccl-tests' options and table.
#[derive(Args, Clone, Debug)]
#[command(after_help = SIZES)]
pub struct Options {
    /// What to run (underscores may be left out): all_reduce, reduce, reduce_scatter, broadcast, scatter, gather,
    /// all_gather, all_to_all, sendrecv, barrier; reduce_scatter_v, scatter_v, gather_v, all_gather_v, all_to_all_v.
    #[arg(value_parser = parse_collective)]
    pub collective: Collective,

    /// Start this many processes on this host; without it, join the launcher (mpirun, torchrun, srun, rccl run …).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096), help_heading = "Ranks")]
    pub ranks: Option<u32>,
    /// Do not give each process of --ranks its share of the processors.
    #[arg(long, help_heading = "Ranks")]
    pub no_bind: bool,
    /// A process that `--ranks` started.
    #[arg(long, hide = true)]
    pub member: bool,

    /// Smallest size, in bytes; K, M and G are powers of 1024.
    #[arg(short = 'b', long = "minbytes", alias = "min-bytes", value_name = "SIZE", value_parser = parse_size,
          default_value = "8", help_heading = "Sizes")]
    pub begin: u64,
    /// Largest size [default: 32M, or -b where that is larger].
    #[arg(short = 'e', long = "maxbytes", alias = "max-bytes", value_name = "SIZE", value_parser = parse_size,
          help_heading = "Sizes")]
    pub end: Option<u64>,
    /// Add this much from one size to the next.
    #[arg(short = 'i', long = "stepbytes", alias = "step-bytes", value_name = "SIZE", value_parser = parse_size,
          help_heading = "Sizes")]
    pub step: Option<u64>,
    /// Multiply by this from one size to the next; goes before -i [default: 2 where there is no -i].
    #[arg(short = 'f', long = "stepfactor", alias = "step-factor", value_name = "FACTOR",
          value_parser = clap::value_parser!(u64).range(1..), help_heading = "Sizes")]
    pub factor: Option<u64>,

    /// Timed iterations of the table, back to back; given, also the number of the JSON's calls.
    #[arg(short = 'n', long = "iters", value_name = "N", value_parser = clap::value_parser!(u32).range(1..),
          help_heading = "Timing")]
    pub iterations: Option<u32>,
    /// Iterations before the timed ones.
    #[arg(
        short = 'w',
        long = "warmup_iters",
        alias = "warmup-iters",
        value_name = "N",
        default_value_t = 5,
        help_heading = "Timing"
    )]
    pub warm_up: u32,
    /// Calls of one iteration, submitted as one group, each with an output of its own; times are for one call.
    #[arg(short = 'm', long = "agg_iters", alias = "agg-iters", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..), help_heading = "Timing")]
    pub calls: u32,
    /// The table's time over the ranks: 0 rank 0's, 1 average, 2 least, 3 greatest.
    #[arg(short = 'a', long = "average", value_name = "0..3", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(0..=3), help_heading = "Timing")]
    pub average: u8,
    /// Start the calls of an iteration without blocking, and wait for all of them at its end.
    #[arg(long = "async", help_heading = "Timing")]
    pub asynchronous: bool,

    /// Check the results this many times a size, each with other data; 0: not at all.
    #[arg(short = 'c', long = "check", value_name = "N", default_value_t = 1, help_heading = "Work")]
    pub check: u32,
    /// The data that is checked; the same on all ranks, or results count as wrong.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Work")]
    pub seed: u64,
    /// Operator, or all: sum, prod, max, min, avg; of integers also band, bor, bxor; mulsum (every scalar being 1).
    #[arg(short = 'o', long = "op", value_name = "OP", default_value = "sum", value_parser = parse_op,
          help_heading = "Work")]
    pub op: Choice<ReduceOp>,
    /// Type of the elements, or all: float, half, bfloat16, int8 … or f32, f16, bf16, i8 …
    #[arg(short = 'd', long = "datatype", value_name = "TYPE", default_value = "float",
          value_parser = Choice::<DataType>::parse, help_heading = "Work")]
    pub data_type: Choice<DataType>,
    /// Root of collectives that have one, or all.
    #[arg(short = 'r', long = "root", value_name = "RANK", default_value = "0", value_parser = Choice::<Root>::parse,
          allow_hyphen_values = true, help_heading = "Work")]
    pub root: Choice<Root>,

    /// What links may use.
    #[arg(long, value_name = "WORD", default_value = "auto", help_heading = "How")]
    pub transport: Transport,
    /// Algorithm to use instead of the best (ring, tree, direct …), in the syntax of RCCL_ALGO.
    #[arg(long, value_name = "WORD", help_heading = "How")]
    pub algo: Option<String>,
    /// Where the buffers come from.
    #[arg(long, value_name = "WORD", default_value = "registered", help_heading = "How")]
    pub memory: Memory,
    /// How long one call may take before it fails on all ranks: seconds, or 500ms, 10m …
    #[arg(long, value_name = "TIME", help_heading = "How")]
    pub timeout: Option<String>,

    /// Write a JSON object per row: times of single calls, a barrier before each, the slowest rank's. `-` is standard
    /// output, and the table then goes to standard error.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,
    /// Time each of the JSON's calls together with a barrier behind it: how long until everybody has it.
    #[arg(long, help_heading = "Output")]
    pub closing_barrier: bool,
    /// Seconds that the JSON's calls of one size may take; fewer calls are made where they are slow.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = parse_seconds, help_heading = "Output")]
    pub budget: f64,
    /// Print the program that runs, for each size: of this rank (0 if none is named), or of all.
    #[arg(long, value_name = "RANK", num_args = 0..=1, require_equals = true, default_missing_value = "0",
          action = ArgAction::Set, value_parser = Choice::<Root>::parse, help_heading = "Output")]
    pub explain: Option<Choice<Root>>,
}

impl Options {
    /// The usual ones for a collective of this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(collective: &str) -> Options {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        <Line as clap::Parser>::parse_from(["perf", collective]).options
    }

    /// What one option's type cannot see. The error is a sentence for the user.
    pub fn validate(&self) -> Result<(), String> {
        if self.end.is_some_and(|end| end < self.begin) {
            return Err(format!(
                "-e {} is below -b {}: the largest size is at least the smallest",
                self.end.unwrap_or(0),
                self.begin
            ));
        }
        if self.step == Some(0) && self.factor.unwrap_or(1) == 1 {
            return Err("-i 0 never gets from -b to -e: give a step above 0, or a factor with -f".into());
        }
        if let (true, Choice::One(op), Choice::One(dtype)) =
            (line::reduces(self.collective), self.op, self.data_type)
            && !op.suits(dtype)
        {
            return Err(format!("-o {op}: it combines integers only, and -d {dtype} is a type of floats"));
        }
        if self.collective == SENDRECV && (self.algo.is_some() || self.explain.is_some()) {
            return Err("sendrecv runs no algorithm: leave out --algo and --explain".into());
        }
        if let Some(ranks) = self.ranks {
            self.validate_ranks(ranks)?;
        }
        self.configure(&mut Config::default()).map_err(|error| error.to_string())
    }

    /// Whether the ranks that options name exist, and there are enough.
    pub fn validate_ranks(&self, ranks: u32) -> Result<(), String> {
        if self.collective == SENDRECV && self.asynchronous && ranks == 1 {
            return Err(
                "sendrecv --async: a rank alone can send to itself in a group only; leave out --async, \
                        or take more ranks"
                    .into(),
            );
        }
        for (option, choice) in [("-r", Some(&self.root)), ("--explain", self.explain.as_ref())] {
            if let Some(Choice::One(Root(rank))) = choice
                && *rank >= ranks
            {
                return Err(format!("{option} {rank}: there are {ranks} ranks, counted from 0"));
            }
        }
        Ok(())
    }

    /// Puts the options that are settings into `config`.
    pub fn configure(&self, config: &mut Config) -> rccl::Result<()> {
        if let Some(word) = self.transport.setting() {
            config.set("RCCL_TRANSPORT", word)?;
        }
        if let Some(words) = &self.algo {
            // For this collective alone: a general rule gives way where it leaves nothing, and the calls that gather
            // the times shall not change.
            let all = words.contains([':', ';']) || self.collective == Collective::Barrier;
            let rule =
                if all { words.clone() } else { format!("{}:{words}", line::even(self.collective).name()) };
            config.set("RCCL_ALGO", &rule)?;
        }
        if let Some(time) = &self.timeout {
            config.set("RCCL_TIMEOUT", time)?;
        }
        Ok(())
    }

    /// The sizes of one rank's data, in bytes.
    pub fn sizes(&self) -> Sizes {
        let end = self.end.unwrap_or_else(|| self.begin.max(32 << 20));
        let factor = self.factor.unwrap_or(if self.step.is_some() { 1 } else { 2 });
        Sizes::new(self.begin, end, self.step.unwrap_or(1 << 20), factor)
    }

    /// The table's iterations; nccl-tests' default.
    pub fn table_iterations(&self) -> u32 {
        self.iterations.unwrap_or(20)
    }
}

/// One value or all that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<T> {
    /// This one.
    One(T),
    /// Every one.
    All,
}

impl<T: FromStr<Err: ToString>> Choice<T> {
    fn parse(text: &str) -> Result<Choice<T>, String> {
        // nccl-tests also takes -1, which is no root, for all of them.
        if text.eq_ignore_ascii_case("all") || text == "-1" {
            return Ok(Choice::All);
        }
        text.parse().map(Choice::One).map_err(|error: T::Err| error.to_string())
    }
}

impl<T: Copy> Choice<T> {
    /// The values that are meant, out of `all`.
    pub fn values(&self, all: impl IntoIterator<Item = T>) -> Vec<T> {
        match self {
            Choice::One(value) => vec![*value],
            Choice::All => all.into_iter().collect(),
        }
    }
}

/// A rank's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root(pub u32);

impl FromStr for Root {
    type Err = String;
    fn from_str(text: &str) -> Result<Root, String> {
        text.parse().map(Root).map_err(|_| "expected a rank, counted from 0, or all".into())
    }
}

/// What links may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// The best for each pair of ranks, within RCCL_TRANSPORT.
    Auto,
    /// Shared memory.
    Shm,
    /// RDMA: RoCE or InfiniBand, also between ranks of one host.
    Verbs,
    /// TCP.
    Tcp,
}

impl Transport {
    fn setting(self) -> Option<&'static str> {
        match self {
            Transport::Auto => None,
            Transport::Shm => Some("shm"),
            Transport::Verbs => Some("verbs"),
            Transport::Tcp => Some("tcp"),
        }
    }
}

/// Where buffers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Memory {
    /// Memory that the other ranks of the host can map (`Communicator::alloc`).
    Registered,
    /// The process's ordinary memory.
    Plain,
}

fn parse_collective(text: &str) -> Result<Collective, String> {
    let plain = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    KNOWN.into_iter().find(|&known| plain(line::name(known)) == plain(text)).ok_or_else(|| {
        let mut names: Vec<_> = KNOWN.map(line::name).into();
        if let Some(near) = rccl::config::nearest(text, names.iter().copied()) {
            return format!("no such collective; did you mean {near}?");
        }
        names.sort_unstable();
        format!("no such collective; there are {}", names.join(", "))
    })
}

/// An operator by the library's names, and by nccl-tests' where that is another.
fn parse_op(text: &str) -> Result<Choice<ReduceOp>, String> {
    if text.eq_ignore_ascii_case(MULSUM) { Ok(Choice::One(ReduceOp::PreMulSum)) } else { Choice::parse(text) }
}

/// An operator as the table names it.
pub fn op_word(op: ReduceOp) -> &'static str {
    if op == ReduceOp::PreMulSum { MULSUM } else { op.name() }
}

/// A time in seconds, above 0.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds > 0.0 => Ok(seconds),
        _ => Err("expected a number of seconds above 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    impl Options {
        /// The options of a command line.
        pub fn parsed(line: &str) -> Result<Options, String> {
            let words = std::iter::once("perf").chain(line.split_whitespace());
            let options = Line::try_parse_from(words).map_err(|error| error.to_string())?.options;
            options.validate().map(|()| options)
        }
    }

    fn parse(line: &str) -> Result<Options, String> {
        Options::parsed(line)
    }

    #[test]
    fn nccl_tests_options_are_understood() {
        let options =
            parse("allreduce -b 8 -e 128M -f 4 -n 7 -w 2 -m 3 -c 0 -o all -d half -r 1 -a 3").unwrap();
        assert_eq!(options.collective, Collective::AllReduce);
        assert_eq!((options.begin, options.end, options.factor), (8, Some(128 << 20), Some(4)));
        assert_eq!((options.table_iterations(), options.warm_up, options.calls), (7, 2, 3));
        assert_eq!((options.check, options.op, options.average), (0, Choice::All, 3));
        assert_eq!(options.data_type, Choice::One(DataType::F16));
        assert_eq!(options.root, Choice::One(Root(1)));
        let long =
            parse("broadcast --minbytes 1K --maxbytes 2K --stepbytes 256 --iters 1 --root -1").unwrap();
        assert_eq!(long.sizes().collect::<Vec<_>>(), [1024, 1280, 1536, 1792, 2048]);
        assert_eq!(long.root, Choice::All);
        for (text, collective) in [
            ("alltoall", Collective::AllToAll),
            ("AllGather", Collective::AllGather),
            ("reduce-scatter-v", Collective::ReduceScatterV),
            ("sendrecv", SENDRECV),
        ] {
            assert_eq!(parse(text).unwrap().collective, collective);
        }
        assert_eq!(parse("reduce -o mulsum").unwrap().op, parse("reduce -o premulsum").unwrap().op);
        assert!(parse("gather --async --seed 7").unwrap().asynchronous);
        assert_eq!(parse("all_reduce -d bf16").unwrap().data_type, Choice::One(DataType::BF16));
    }

    #[test]
    fn the_largest_size_follows_the_smallest() {
        assert_eq!(parse("all_reduce -b 64M").unwrap().sizes().collect::<Vec<_>>(), [64 << 20]);
        assert_eq!(parse("all_reduce").unwrap().sizes().last(), Some(32 << 20));
    }

    #[test]
    fn explain_takes_a_rank_or_none() {
        assert_eq!(parse("all_reduce --explain").unwrap().explain, Some(Choice::One(Root(0))));
        assert_eq!(parse("all_reduce --explain=2").unwrap().explain, Some(Choice::One(Root(2))));
        assert_eq!(parse("--explain all_reduce").unwrap().explain, Some(Choice::One(Root(0))));
        assert_eq!(parse("all_reduce --explain=all").unwrap().explain, Some(Choice::All));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (line, says) in [
            ("all_reduc", "did you mean all_reduce"),
            ("all_reduce -b 9 -e 8", "-e 8 is below -b 9"),
            ("all_reduce -b 8 -e 9 -i 0", "-i 0 never"),
            ("all_reduce -b 12X", "a size such as"),
            ("all_reduce -d fp32", "unknown data type"),
            ("all_reduce -o mean", "unknown operator"),
            ("all_reduce -o bxor", "-o bxor: it combines integers only, and -d f32 is a type of floats"),
            ("reduce_scatter_v -o band -d half", "it combines integers only"),
            ("reduce --algo trea", "did you mean `tree`"),
            ("all_too_all", "did you mean all_to_all"),
            ("gossip", "there are all_gather, all_gather_v, all_reduce,"),
            ("sendrecv --algo ring", "sendrecv runs no algorithm"),
            ("sendrecv --explain", "sendrecv runs no algorithm"),
            ("sendrecv --async --ranks 1", "leave out --async"),
            ("gather -m 0", "0 is not in 1.."),
            ("gather --seed x", "invalid digit"),
            ("scatter --ranks 2 -r 2", "-r 2: there are 2 ranks"),
            ("all_reduce --algo trea", "did you mean `tree`"),
            ("all_reduce --transport ib", "[possible values: auto, shm, verbs, tcp]"),
            ("all_reduce --timeout soon", "RCCL_TIMEOUT=soon"),
            ("all_reduce --ranks 0", "0 is not in 1..=4096"),
            ("broadcast --ranks 2 -r 2", "-r 2: there are 2 ranks"),
            ("broadcast --ranks 2 --explain=7", "--explain 7: there are 2 ranks"),
            ("all_reduce --budget 0", "seconds above 0"),
            ("all_reduce -n 0", "0 is not in 1.."),
        ] {
            let error = parse(line).map(|_| ()).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }

    #[test]
    fn an_algorithm_is_asked_of_the_collective_alone() {
        let mut config = Config::default();
        parse("broadcast --algo chain").unwrap().configure(&mut config).unwrap();
        let rules = &config.algo;
        assert_eq!(rules.restrict("broadcast", &["binomial", "chain"]).unwrap(), ["chain"]);
        assert_eq!(rules.restrict("all_reduce", &["ring", "tree"]).unwrap(), ["ring", "tree"]);
        // The forms with blocks of different lengths run the algorithms of the others.
        let mut config = Config::default();
        parse("all_gather_v --algo ring").unwrap().configure(&mut config).unwrap();
        assert_eq!(config.algo.restrict("all_gather", &["direct", "ring"]).unwrap(), ["ring"]);
    }
}
