//! One rank's part in a call: its memory, the ways to make the call, and the comparison afterwards.

use super::arrays::{Array, Arrays};
use super::awaiting::block_on;
use super::call::Call;
use super::sample::Sample;
use super::stream::Stream;
use half::{bf16, f16};
use rccl::{
    Buffer, Collective, Communicator, DataType, F8E4M3, F8E5M2, Group, Op, OwnedBuf, ReduceOp, Result, Scope,
    Work,
};
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Longer than any call's own deadline.
const DEADLINE: Duration = Duration::from_secs(60);
/// Fills what lies around an array.
const GUARD: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// A call that can be made, of elements of any type.
pub trait Operation {
    fn blocking(&mut self) -> Result<()>;
    fn in_scope<'s, 'e>(&'e mut self, calls: &'s Scope<'s, 'e>) -> Work<()>;
    fn in_group<'e>(&'e mut self, calls: &mut Group<'e>);
    fn started(self: Box<Self>) -> Box<dyn Pending>;
    /// On raw memory, if the call can be made so.
    fn raw(&mut self) -> Result<()>;
    /// Compares what lies in memory with what must.
    ///
    /// # Panics
    /// When they differ.
    fn check(&mut self);
    /// What the call has given this rank, if it gives it anything: the bytes of the output, or of its part of the one
    /// array.
    fn result(&mut self) -> Vec<u8>;
    /// What its arrays have together.
    fn bytes(&self) -> usize;
}

/// A call under way.
pub trait Pending {
    /// Waits for it, in one of some ways, and compares.
    ///
    /// # Panics
    /// When it fails or gives something else.
    fn settle(self: Box<Self>, way: usize) {
        self.settled(way);
    }
    /// As [`Pending::settle`]; gives back what was started.
    fn settled(self: Box<Self>, way: usize) -> Box<dyn Operation>;
    fn bytes(&self) -> usize;
}

/// What is to be called, by whom and on what.
pub struct Part<'a> {
    pub comm: &'a Communicator,
    pub call: &'a Rc<Call>,
    /// Of a message, whether this rank sends it.
    pub sends: bool,
    /// What errors say.
    pub what: String,
}

impl Part<'_> {
    /// With memory of its own.
    pub fn operation(self, own: &mut Stream) -> Box<dyn Operation> {
        match self.call.dtype {
            DataType::I8 => Box::new(Typed::<i8>::new(self, own)),
            DataType::U8 => Box::new(Typed::<u8>::new(self, own)),
            DataType::I32 => Box::new(Typed::<i32>::new(self, own)),
            DataType::U32 => Box::new(Typed::<u32>::new(self, own)),
            DataType::I64 => Box::new(Typed::<i64>::new(self, own)),
            DataType::U64 => Box::new(Typed::<u64>::new(self, own)),
            DataType::F16 => Box::new(Typed::<f16>::new(self, own)),
            DataType::BF16 => Box::new(Typed::<bf16>::new(self, own)),
            DataType::F32 => Box::new(Typed::<f32>::new(self, own)),
            DataType::F64 => Box::new(Typed::<f64>::new(self, own)),
            DataType::F8E4M3 => Box::new(Typed::<F8E4M3>::new(self, own)),
            DataType::F8E5M2 => Box::new(Typed::<F8E5M2>::new(self, own)),
            other => unreachable!("{other}"),
        }
    }
}

/// Registered or plain memory, of which a part that may begin anywhere is used.
pub struct Memory<T: Sample> {
    store: Store<T>,
    used: Range<usize>,
}

enum Store<T: Sample> {
    Plain(Vec<T>),
    Registered(Buffer<T>),
}

// SAFETY: the elements are where their vector or buffer has them, which owns them.
unsafe impl<T: Sample> OwnedBuf for Memory<T> {
    type Item = T;
    fn elements(&mut self) -> &mut [T] {
        let used = self.used.clone();
        &mut self.all()[used]
    }
}

impl<T: Sample> Memory<T> {
    fn new(comm: &Communicator, array: &Array<T>, own: &mut Stream) -> Memory<T> {
        let before = own.below(2) * own.below(70);
        let len = before + array.len() + 3;
        let store = if own.once_in(2) {
            Store::Plain(vec![T::of_bits(GUARD); len])
        } else {
            let mut buffer = comm.alloc(len).expect("registered memory");
            buffer.fill(T::of_bits(GUARD));
            Store::Registered(buffer)
        };
        let mut memory = Memory { store, used: before..before + array.len() };
        array.write(memory.elements());
        memory
    }

    fn all(&mut self) -> &mut [T] {
        match &mut self.store {
            Store::Plain(memory) => memory,
            Store::Registered(memory) => memory,
        }
    }

    fn compare(&mut self, array: &Array<T>) -> std::result::Result<(), String> {
        array.compare(self.elements())?;
        let Range { start, end } = self.used;
        let all = self.all();
        let guarded =
            |part: &[T]| bytemuck::cast_slice::<T, u8>(part).iter().all(|&byte| byte == GUARD as u8);
        if guarded(&all[..start]) && guarded(&all[end..]) {
            Ok(())
        } else {
            Err("written outside of it".into())
        }
    }
}

/// A call of elements of one type.
struct Typed<T: Sample> {
    asked: Asked,
    /// Gone while the call is under way by itself.
    memory: Option<(Memory<T>, Memory<T>)>,
    after: [Array<T>; 2],
}

/// What a call needs beside its memory.
struct Asked {
    comm: Communicator,
    call: Rc<Call>,
    sends: bool,
    in_place: bool,
    what: String,
}

impl Asked {
    fn op<T: Sample>(&self) -> Op<T> {
        let scalar = T::scalar(self.call.scalar_bits(self.comm.rank() as usize));
        match self.call.op.expect("an operator") {
            ReduceOp::PreMulSum => Op::pre_mul_sum(scalar),
            op => op.into(),
        }
    }

    /// Counts that only the root has to know.
    fn of_root(&self) -> Vec<usize> {
        if self.comm.rank() as usize == self.call.root { self.call.row(self.call.root) } else { Vec::new() }
    }
}

/// Expands to the methods' calls on one array: in place, and messages. Names of methods that start with something else
/// than the blocking ones' are given.
macro_rules! on_one {
    ($asked:ident, $on:expr, ($($first:expr,)?), $x:expr,
     $all_reduce:ident $reduce:ident $reduce_scatter:ident $broadcast:ident $scatter:ident $gather:ident
     $all_gather:ident $send:ident $recv:ident) => {{
        let call = &*$asked.call;
        let root = call.root as u32;
        match call.collective {
            Collective::AllReduce => $on.$all_reduce($($first,)? $x, $asked.op()),
            Collective::Reduce => $on.$reduce($($first,)? $x, $asked.op(), root),
            Collective::ReduceScatter => $on.$reduce_scatter($($first,)? $x, $asked.op()),
            Collective::Broadcast => $on.$broadcast($($first,)? $x, root),
            Collective::Scatter => $on.$scatter($($first,)? $x, root),
            Collective::Gather => $on.$gather($($first,)? $x, root),
            Collective::AllGather => $on.$all_gather($($first,)? $x),
            Collective::Send if $asked.sends => $on.$send($($first,)? $x, root),
            Collective::Send => $on.$recv($($first,)? $x, call.from as u32),
            other => unreachable!("{} in place", other.name()),
        }
    }};
}

/// As `on_one`, from one array to another.
macro_rules! on_two {
    ($asked:ident, $on:expr, ($($first:expr,)?), $x:expr, $out:expr,
     $all_reduce:ident $reduce:ident $reduce_scatter:ident $reduce_scatter_v:ident $broadcast:ident $scatter:ident
     $scatter_v:ident $gather:ident $gather_v:ident $all_gather:ident $all_gather_v:ident $all_to_all:ident
     $all_to_all_v:ident) => {{
        let call = &*$asked.call;
        let (root, rank) = (call.root as u32, $asked.comm.rank() as usize);
        match call.collective {
            Collective::AllReduce => $on.$all_reduce($($first,)? $x, $out, $asked.op()),
            Collective::Reduce => $on.$reduce($($first,)? $x, $out, $asked.op(), root),
            Collective::ReduceScatter => $on.$reduce_scatter($($first,)? $x, $out, $asked.op()),
            Collective::ReduceScatterV => {
                $on.$reduce_scatter_v($($first,)? $x, $out, &call.row(rank), $asked.op())
            }
            Collective::Broadcast => $on.$broadcast($($first,)? $x, $out, root),
            Collective::Scatter => $on.$scatter($($first,)? $x, $out, root),
            Collective::ScatterV => $on.$scatter_v($($first,)? $x, &$asked.of_root(), $out, root),
            Collective::Gather => $on.$gather($($first,)? $x, $out, root),
            Collective::GatherV => $on.$gather_v($($first,)? $x, $out, &$asked.of_root(), root),
            Collective::AllGather => $on.$all_gather($($first,)? $x, $out),
            Collective::AllGatherV => $on.$all_gather_v($($first,)? $x, $out, &call.row(rank)),
            Collective::AllToAll => $on.$all_to_all($($first,)? $x, $out),
            Collective::AllToAllV => {
                $on.$all_to_all_v($($first,)? $x, &call.row(rank), $out, &call.column(rank))
            }
            other => unreachable!("{} from one array to another", other.name()),
        }
    }};
}

/// Both, for methods that are named as the blocking ones and borrow.
macro_rules! on_borrowed {
    ($typed:expr, $on:expr, ($($first:expr,)?)) => {{
        let Typed { asked, memory: Some((x, out)), .. } = $typed else { unreachable!("it is under way") };
        if asked.call.collective == Collective::Barrier {
            $on.barrier($($first)?)
        } else if asked.call.collective == Collective::Send || asked.in_place {
            let memory = if asked.call.collective == Collective::Send && !asked.sends { out } else { x };
            on_one!(asked, $on, ($(&$first,)?), memory.elements(),
                all_reduce reduce reduce_scatter broadcast scatter gather all_gather send recv)
        } else {
            on_two!(asked, $on, ($(&$first,)?), x.elements(), out.elements(),
                all_reduce_into reduce_into reduce_scatter_into reduce_scatter_v_into broadcast_into scatter_into
                scatter_v_into gather_into gather_v_into all_gather_into all_gather_v_into all_to_all_into
                all_to_all_v_into)
        }
    }};
}

impl<T: Sample> Typed<T> {
    fn new(part: Part<'_>, own: &mut Stream) -> Typed<T> {
        let Part { comm, call, sends, what } = part;
        let rank = comm.rank() as usize;
        let in_place = call.has_place() && own.once_in(2);
        let mut arrays = call.arrays(rank, in_place, own);
        if call.collective == Collective::Send {
            // Of a message to itself a rank has both ends, each with its own memory.
            let unused = if sends {
                [&mut arrays.out, &mut arrays.out_after]
            } else {
                [&mut arrays.x, &mut arrays.x_after]
            };
            unused.into_iter().for_each(|array| *array = Array::none());
        }
        let Arrays { x, out, x_after, out_after } = arrays;
        let what = format!("{what}: {call}, rank {rank}{}", if in_place { ", in place" } else { "" });
        let memory = Some((Memory::new(comm, &x, own), Memory::new(comm, &out, own)));
        let asked = Asked { comm: comm.clone(), call: call.clone(), sends, in_place, what };
        Typed { asked, memory, after: [x_after, out_after] }
    }
}

impl<T: Sample> Operation for Typed<T> {
    fn blocking(&mut self) -> Result<()> {
        let comm = self.asked.comm.clone();
        on_borrowed!(self, comm, ())
    }

    fn in_scope<'s, 'e>(&'e mut self, calls: &'s Scope<'s, 'e>) -> Work<()> {
        on_borrowed!(self, calls, ())
    }

    fn in_group<'e>(&'e mut self, calls: &mut Group<'e>) {
        let comm = self.asked.comm.clone();
        on_borrowed!(self, calls, (&comm,))
    }

    fn started(mut self: Box<Self>) -> Box<dyn Pending> {
        let bytes = self.bytes();
        let Some((x, out)) = self.memory.take() else { unreachable!("it is under way") };
        let (asked, comm) = (&self.asked, &self.asked.comm);
        let work = if asked.call.collective == Collective::Barrier {
            self.memory = Some((x, out));
            Under::Neither(comm.start_barrier())
        } else if asked.call.collective == Collective::Send && !asked.sends {
            let work = on_one!(asked, comm, (), out,
                start_all_reduce start_reduce start_reduce_scatter start_broadcast start_scatter start_gather
                start_all_gather start_send start_recv);
            Under::Output(work, x)
        } else if asked.call.collective == Collective::Send || asked.in_place {
            let work = on_one!(asked, comm, (), x,
                start_all_reduce start_reduce start_reduce_scatter start_broadcast start_scatter start_gather
                start_all_gather start_send start_recv);
            Under::Input(work, out)
        } else {
            Under::Both(on_two!(asked, comm, (), x, out,
                start_all_reduce_into start_reduce_into start_reduce_scatter_into start_reduce_scatter_v_into
                start_broadcast_into start_scatter_into start_scatter_v_into start_gather_into start_gather_v_into
                start_all_gather_into start_all_gather_v_into start_all_to_all_into start_all_to_all_v_into))
        };
        Box::new(Started { typed: *self, work, bytes })
    }

    fn raw(&mut self) -> Result<()> {
        let Typed { asked: Asked { comm, call, in_place, .. }, memory: Some((x, out)), .. } = self else {
            unreachable!("it is under way")
        };
        let own = if *in_place { comm.rank() as usize * call.count } else { 0 };
        let first = x.elements().as_mut_ptr();
        let (input, output) = match (call.collective, *in_place) {
            (_, false) => (first, out.elements().as_mut_ptr()),
            (Collective::ReduceScatter | Collective::Scatter, true) => (first, first.wrapping_add(own)),
            (Collective::Gather | Collective::AllGather, true) => (first.wrapping_add(own), first),
            (_, true) => (first, first),
        };
        let rooted = matches!(
            call.collective,
            Collective::Reduce | Collective::Broadcast | Collective::Scatter | Collective::Gather
        );
        let call = rccl::Call {
            collective: call.collective,
            dtype: call.dtype,
            op: call.op,
            root: rooted.then_some(call.root as u32),
            count: call.count as u64,
        };
        let raw = comm.raw(&call, rccl::RawSizes::Equal, None, input.cast(), output.cast())?;
        // SAFETY: both arrays have the blocks of the call, and are borrowed until it returns.
        unsafe { comm.run_raw(raw) }
    }

    fn check(&mut self) {
        let Typed { asked, memory: Some((x, out)), after } = self else { unreachable!("it is under way") };
        let results = [("first", x.compare(&after[0])), ("second", out.compare(&after[1]))];
        for (array, result) in results {
            if let Err(wrong) = result {
                panic!("{}: the {array} array: {wrong}", asked.what);
            }
        }
    }

    fn result(&mut self) -> Vec<u8> {
        let Typed { asked, memory: Some((x, out)), .. } = self else { unreachable!("it is under way") };
        let count = asked.call.count;
        let given = match (asked.in_place, asked.call.collective) {
            (false, _) => out.elements(),
            (true, Collective::ReduceScatter | Collective::Scatter) => {
                &mut x.elements()[asked.comm.rank() as usize * count..][..count]
            }
            (true, _) => x.elements(),
        };
        bytemuck::cast_slice(given).to_vec()
    }

    fn bytes(&self) -> usize {
        let len = |memory: &Memory<T>| memory.used.len() * size_of::<T>();
        self.memory.as_ref().map_or(0, |(x, out)| len(x) + len(out))
    }
}

struct Started<T: Sample> {
    typed: Typed<T>,
    work: Under<T>,
    bytes: usize,
}

/// A call under way with its memory, and the array that it does not have.
enum Under<T: Sample> {
    Neither(Work<()>),
    Input(Work<Memory<T>>, Memory<T>),
    Output(Work<Memory<T>>, Memory<T>),
    Both(Work<(Memory<T>, Memory<T>)>),
}

impl<T: Sample> Pending for Started<T> {
    fn settled(mut self: Box<Self>, way: usize) -> Box<dyn Operation> {
        let what = self.typed.asked.what.clone();
        match self.work {
            Under::Neither(work) => wait(work, way, &what),
            Under::Input(work, out) => self.typed.memory = Some((wait(work, way, &what), out)),
            Under::Output(work, x) => self.typed.memory = Some((x, wait(work, way, &what))),
            Under::Both(work) => self.typed.memory = Some(wait(work, way, &what)),
        }
        self.typed.check();
        Box::new(self.typed)
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

fn wait<B: Send + 'static>(mut work: Work<B>, way: usize, what: &str) -> B {
    let end = Instant::now() + DEADLINE;
    let result = match way % 4 {
        0 => work.wait(),
        1 => {
            while !work.wait_timeout(Duration::from_micros(300)).unwrap_or(true) {
                assert!(Instant::now() < end, "{what}: it does not end");
            }
            work.wait()
        }
        2 => {
            while !work.is_done() {
                assert!(Instant::now() < end, "{what}: it does not end by itself");
                std::thread::sleep(Duration::from_micros(100));
            }
            work.wait()
        }
        _ => block_on(work, end, what),
    };
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}
