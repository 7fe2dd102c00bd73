//! The collectives, and messages.

use super::Communicator;
use crate::array::{Array, Name};
use crate::call::{Asked, Manner, Memory, Time, like, make, shape};
use crate::error::argument;
use crate::of::Of;
use crate::op::Operator;
use crate::stream::Stream;
use crate::work::{Answer, Work};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rccl::{Call, Collective, DataType, RawSizes};

type Object<'a, 'py> = &'a Bound<'py, PyAny>;

const fn x(call: &'static str) -> Name {
    Name { call, argument: "x" }
}
const fn out(call: &'static str) -> Name {
    Name { call, argument: "out" }
}

/// Checks that an array has as many elements as a call writes to it.
fn fits(py: Python<'_>, name: Name, array: &Array, expected: usize) -> PyResult<()> {
    if array.count() == expected {
        return Ok(());
    }
    let what = format!("{} has {} elements where {expected} belong", name.argument, array.count());
    Err(argument(py, name.call, what, "the arrays of a call must fit each other"))
}

impl Communicator {
    fn ranks(&self) -> usize {
        self.inner().size() as usize
    }

    fn is_root(&self, py: Python<'_>, call: &'static str, root: u32) -> PyResult<bool> {
        if root >= self.inner().size() {
            let what = format!("root {root} in a communicator of {} ranks", self.inner().size());
            return Err(argument(py, call, what, "ranks count from 0 to size - 1"));
        }
        Ok(root == self.inner().rank())
    }

    /// The length of one of the ranks' equal blocks of an array, and the shape of a block: a part of the first axis.
    fn block(
        &self,
        object: Object<'_, '_>,
        array: &Array,
        call: &'static str,
    ) -> PyResult<(usize, Vec<usize>)> {
        let (ranks, count) = (self.ranks(), array.count());
        if !count.is_multiple_of(ranks) {
            let what = format!("x has {count} elements, which {ranks} ranks cannot share equally");
            let hint = format!("pass a multiple of {ranks}, or counts=");
            return Err(argument(object.py(), call, what, hint));
        }
        let mut axes = shape(object, array)?;
        match axes.first_mut() {
            Some(first) if first.is_multiple_of(ranks) => *first /= ranks,
            _ => axes = vec![count / ranks],
        }
        Ok((count / ranks, axes))
    }

    /// The shape of an array of all ranks' arrays.
    fn stacked(&self, object: Object<'_, '_>, array: &Array) -> PyResult<Vec<usize>> {
        let mut axes = shape(object, array)?;
        axes.insert(0, self.ranks());
        Ok(axes)
    }

    /// A call whose result is as long as what it reads: of `x` in place, or into `out`.
    fn same<'py>(
        &self,
        asked: impl FnOnce(usize) -> Asked<'static>,
        call: &'static str,
        x_: Object<'_, 'py>,
        out_: Option<Object<'_, 'py>>,
        manner: Manner<'_>,
    ) -> PyResult<Py<PyAny>> {
        let py = x_.py();
        let Some(out_) = out_ else {
            let array = Array::output(x_, x(call))?;
            return make(
                py,
                self,
                asked(array.count()),
                Memory::in_place(array),
                manner,
                x_.clone().unbind(),
            );
        };
        let (input, output) = (Array::input(x_, x(call))?, Array::output(out_, out(call))?);
        fits(py, out(call), &output, input.count())?;
        let asked = asked(input.count());
        make(py, self, asked, Memory::apart(py, call, input, output)?, manner, out_.clone().unbind())
    }

    /// A call of `input` into `out`, or into a new array of the shape.
    fn into<'py>(
        &self,
        asked: Asked<'_>,
        (object, input): (Object<'_, 'py>, Array),
        out_: Option<Object<'_, 'py>>,
        (elements, shape): (usize, Vec<usize>),
        manner: Manner<'_>,
    ) -> PyResult<Py<PyAny>> {
        let py = object.py();
        let call = asked.collective.name();
        let target = match out_ {
            Some(out_) => out_.clone(),
            None => like(object, &input, shape)?,
        };
        let output = Array::output(&target, out(call))?;
        fits(py, out(call), &output, elements)?;
        make(py, self, asked, Memory::apart(py, call, input, output)?, manner, target.unbind())
    }

    /// The sum of lengths that are given by rank.
    fn total(&self, py: Python<'_>, name: Name, counts: &[usize]) -> PyResult<usize> {
        let sum = counts.iter().try_fold(0_usize, |sum, &count| sum.checked_add(count));
        match sum {
            Some(sum) if counts.len() == self.ranks() => Ok(sum),
            _ => {
                let what =
                    format!("{} has {} entries for {} ranks", name.argument, counts.len(), self.ranks());
                Err(argument(
                    py,
                    name.call,
                    what,
                    "it says for each rank, in order, how many elements its block has",
                ))
            }
        }
    }

    fn own(&self) -> usize {
        self.inner().rank() as usize
    }
}

#[pymethods]
impl Communicator {
    /// Reduces x elementwise over all ranks: sum, prod, min, max, avg, band, bor, bxor, or PreMulSum(factor). The result is
    /// the same bits on every rank.
    #[pyo3(signature = (x, op=Operator::SUM, *, out=None, async_op=false, timeout=None),
           text_signature = "($self, x, op='sum', *, out=None, async_op=False, timeout=None)")]
    fn all_reduce(
        &self,
        x: &Bound<'_, PyAny>,
        op: Operator,
        out: Option<&Bound<'_, PyAny>>,
        async_op: bool,
        timeout: Option<Time>,
    ) -> PyResult<Py<PyAny>> {
        let asked = |count| Asked::new(Collective::AllReduce, count).reducing(op);
        self.same(asked, "all_reduce", x, out, Manner::new(async_op, timeout))
    }

    /// Every rank gets the root's elements. With out=, only the root's x is read.
    #[pyo3(signature = (x, root=0, *, out=None, async_op=false, timeout=None))]
    fn broadcast(
        &self,
        x: &Bound<'_, PyAny>,
        root: u32,
        out: Option<&Bound<'_, PyAny>>,
        async_op: bool,
        timeout: Option<Time>,
    ) -> PyResult<Py<PyAny>> {
        let asked = |count| Asked::new(Collective::Broadcast, count).rooted(root);
        self.same(asked, "broadcast", x, out, Manner::new(async_op, timeout))
    }

    /// The root gets the reduction of all ranks' elements, and returns it; the others return None.
    #[pyo3(signature = (x, op=Operator::SUM, root=0, *, out=None, async_op=false, timeout=None),
           text_signature = "($self, x, op='sum', root=0, *, out=None, async_op=False, timeout=None)")]
    #[allow(clippy::too_many_arguments)]
    fn reduce(
        &self,
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        op: Operator,
        root: u32,
        out: Option<&Bound<'_, PyAny>>,
        async_op: bool,
        timeout: Option<Time>,
    ) -> PyResult<Py<PyAny>> {
        let asked = |count| Asked::new(Collective::Reduce, count).reducing(op).rooted(root);
        let manner = Manner::new(async_op, timeout);
        if self.is_root(py, "reduce", root)? {
            return self.same(asked, "reduce", x, out, manner);
        }
        let input = Array::input(x, self::x("reduce"))?;
        make(py, self, asked(input.count()), Memory::read(input), manner, py.None())
    }

    /// Every rank gets all ranks' elements: an array of shape (size, *x.shape). With counts, elements by rank, the ranks'
    /// arrays may have different lengths, and the result has one axis.
    #[pyo3(signature = (x, *, out=None, counts=None, async_op=false, timeout=None))]
    fn all_gather(
        &self,
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        out: Option<&Bound<'_, PyAny>>,
        counts: Option<Vec<usize>>,
        async_op: bool,
        timeout: Option<Time>,
    ) -> PyResult<Py<PyAny>> {
        let input = Array::input(x, self::x("all_gather"))?;
        let manner = Manner::new(async_op, timeout);
        if let Some(counts) = counts {
            let name = Name { call: "all_gather_v", argument: "counts" };
            let all = self.total(py, name, &counts)?;
            fits(py, self::x(name.call), &input, counts[self.own()])?;
            let asked = Asked::new(Collective::AllGatherV, 0).sized(RawSizes::Counts(&counts));
            return self.into(asked, (x, input), out, (all, vec![all]), manner);
        }
        let all = (input.count() * self.ranks(), self.stacked(x, &input)?);
        self.into(Asked::new(Collective::AllGather, input.count()), (x, input), out, all, manner)
    }

    /// Rank r gets block r of the reduction of all ranks' elements, where the blocks are equal parts of the first axis, or as
    /// long as counts says. In place: out is this rank's block of x.
    #[pyo3(signature = (x, op=Operator::SUM, *, out=None, counts=None, async_op=false, timeout=None),
           text_signature = "($self, x, op='sum', *, out=None, counts=None, async_op=False, timeout=None)")]
    #[allow(clippy::too_many_arguments)]
    fn reduce_scatter(
        &self,
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        op: Operator,
        out: Option<&Bound<'_, PyAny>>,
        counts: Option<Vec<usize>>,
        async_op: bool,
        timeout: Option<Time>,
    ) -> PyResult<Py<PyAny>> {
        let input = Array::input(x, self::x("reduce_scatter"))?;
        let manner = Manner::new(async_op, timeout);
        if let Some(counts) = counts {
            let name = Name { call: "reduce_scatter_v", argument: "counts" };
            let all = self.total(py, name, &counts)?;
            fits(py, self::x(name.call), &input, all)?;
            let own = counts[self.own()];
            let asked =
                Asked::new(Collective::ReduceScatterV, 0).reducing(op).sized(RawSizes::Counts(&counts));
            return self.into(asked, (x, input), out, (own, vec![own]), manner);
        }
        let block = self.block(x, &input, "reduce_scatter")?;
        self.into(Asked::new(Collective::ReduceScatter, block.0).reducing(op), (x, input), out, block, manner)
    }

    /// Rank r gets block r of every rank's elements, in order of rank. With send_counts and recv_counts, elements by rank,
    /// the blocks may have different lengths.
    #[pyo3(signature = (x, *, out=None, send_counts=None, recv_counts=None, async_op=false, timeout=None))]
    #[allow(clippy::too_many_arguments)]
    fn all_to_all(
        &self,
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        out: Option<&Bound<'_, PyAny>>,
        send_counts: Option<Vec<usize>>,
        recv_counts: Option<Vec<usize>>,
        async_op: bool,
        timeout: Option<Time>,
    ) -> PyResult<Py<PyAny>> {
        let input = Array::input(x, self::x("all_to_all"))?;
        let manner = Manner::new(async_op, timeout);
        match (send_counts, recv_counts) {
            (Some(sent), Some(received)) => {
                let call = "all_to_all_v";
                let all = self.total(py, Name { call, argument: "send_counts" }, &sent)?;
                fits(py, self::x(call), &input, all)?;
                let result = self.total(py, Name { call, argument: "recv_counts" }, &received)?;
                let sizes = RawSizes::Cross { sent: &sent, received: &received };
                let asked = Asked::new(Collective::AllToAllV, 0).sized(sizes);
                self.into(asked, (x, input), out, (result, vec![result]), manner)
            }
            (None, None) => {
                let (count, _) = self.block(x, &input, "all_to_all")?;
                let same = (input.count(), shape(x, &input)?);
                self.into(Asked::new(Collective::AllToAll, count), (x, input), out, same, manner)
            }
            _ => {
                let what = "one of send_counts and recv_counts".into();
                Err(argument(py, "all_to_all", what, "pass both, or neither if all blocks have one length"))
            }
        }
    }

    /// The root gets all ranks' elements and returns them, as all_gather does; the others return None. Only the root passes
    /// out and counts, and with counts=True the others say that there are some.
    #[pyo3(signature = (x, root=0, *, out=None, counts=None, async_op=false, timeout=None))]
    #[allow(clippy::too_many_arguments)]
    fn gather(
        &self,
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        root: u32,
        out: Option<&Bound<'_, PyAny>>,
        counts: Option<Counts>,
        async_op: bool,
        timeout: Option<Time>,
    ) -> PyResult<Py<PyAny>> {
        let at_root = self.is_root(py, "gather", root)?;
        let input = Array::input(x, self::x("gather"))?;
        let manner = Manner::new(async_op, timeout);
        let equal = counts.is_none();
        let collective = if equal { Collective::Gather } else { Collective::GatherV };
        let asked = Asked::new(collective, input.count()).rooted(root);
        match counts {
            _ if !at_root => make(py, self, asked, Memory::read(input), manner, py.None()),
            None => {
                let all = (input.count() * self.ranks(), self.stacked(x, &input)?);
                self.into(asked, (x, input), out, all, manner)
            }
            Some(counts) => {
                let name = Name { call: "gather_v", argument: "counts" };
                let counts = counts.of_root(py, name)?;
                let all = self.total(py, name, &counts)?;
                fits(py, self::x(name.call), &input, counts[self.own()])?;
                self.into(asked.sized(RawSizes::Counts(&counts)), (x, input), out, (all, vec![all]), manner)
            }
        }
    }

    /// Rank r gets block r of the root's elements: at the root a new array of x's kind unless out is given; the others pass
    /// None as x, and out. Only the root passes counts, and with counts=True the others say that there are some.
    #[pyo3(signature = (x, root=0, *, out=None, counts=None, async_op=false, timeout=None))]
    #[allow(clippy::too_many_arguments)]
    fn scatter(
        &self,
        py: Python<'_>,
        x: Option<&Bound<'_, PyAny>>,
        root: u32,
        out: Option<&Bound<'_, PyAny>>,
        counts: Option<Counts>,
        async_op: bool,
        timeout: Option<Time>,
    ) -> PyResult<Py<PyAny>> {
        let manner = Manner::new(async_op, timeout);
        let collective = if counts.is_none() { Collective::Scatter } else { Collective::ScatterV };
        if !self.is_root(py, "scatter", root)? {
            let Some(out) = out else {
                return Err(argument(py, "scatter", "no out".into(), "every rank but the root passes out="));
            };
            let output = Array::output(out, self::out("scatter"))?;
            let asked = Asked::new(collective, output.count()).rooted(root);
            return make(py, self, asked, Memory::written(output), manner, out.clone().unbind());
        }
        let Some(x) = x else {
            return Err(argument(py, "scatter", "no x".into(), "the root passes the elements of all ranks"));
        };
        let input = Array::input(x, self::x("scatter"))?;
        match counts {
            None => {
                let block = self.block(x, &input, "scatter")?;
                self.into(Asked::new(collective, block.0).rooted(root), (x, input), out, block, manner)
            }
            Some(counts) => {
                let name = Name { call: "scatter_v", argument: "counts" };
                let counts = counts.of_root(py, name)?;
                let all = self.total(py, name, &counts)?;
                fits(py, self::x(name.call), &input, all)?;
                let own = counts[self.own()];
                let asked = Asked::new(collective, own).rooted(root).sized(RawSizes::Counts(&counts));
                self.into(asked, (x, input), out, (own, vec![own]), manner)
            }
        }
    }

    /// Sends x to a rank, which receives it.
    #[pyo3(signature = (x, to, *, async_op=false, timeout=None))]
    fn send(
        &self,
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        to: u32,
        async_op: bool,
        timeout: Option<Time>,
    ) -> PyResult<Py<PyAny>> {
        let input = Array::input(x, self::x("send"))?;
        let asked = Asked::new(Collective::Send, input.count()).rooted(to);
        make(py, self, asked, Memory::read(input), Manner::new(async_op, timeout), py.None())
    }

    /// Receives x from a rank, which sends as many elements of the same type.
    #[pyo3(signature = (x, source, *, async_op=false, timeout=None))]
    fn recv(
        &self,
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        source: u32,
        async_op: bool,
        timeout: Option<Time>,
    ) -> PyResult<Py<PyAny>> {
        let output = Array::output(x, self::x("recv"))?;
        let asked = Asked::new(Collective::Recv, output.count()).rooted(source);
        make(py, self, asked, Memory::written(output), Manner::new(async_op, timeout), x.clone().unbind())
    }

    /// Returns when every rank has called it.
    #[pyo3(signature = (*, async_op=false, timeout=None))]
    fn barrier(&self, py: Python<'_>, async_op: bool, timeout: Option<Time>) -> PyResult<Py<PyAny>> {
        let asked = Asked::new(Collective::Barrier, 0);
        make(py, self, asked, Memory::none(), Manner::new(async_op, timeout), py.None())
    }

    /// Every rank gets a copy of the root's object, by pickle. What the others pass is not looked at. The object's length goes
    /// first and its bytes follow; each may take timeout.
    #[pyo3(signature = (o, root=0, *, async_op=false, timeout=None))]
    fn broadcast_object(
        &self,
        o: &Bound<'_, PyAny>,
        root: u32,
        async_op: bool,
        timeout: Option<Time>,
    ) -> PyResult<Py<PyAny>> {
        let py = o.py();
        let name = Name { call: "broadcast_object", argument: "timeout" };
        let timeout = timeout.map(|timeout| timeout.duration(name, py)).transpose()?;
        let at_root = self.is_root(py, "broadcast_object", root)?;
        if crate::group::is_open() {
            let hint = "its length must be known before it is sent: call it outside";
            return Err(argument(py, "broadcast_object", "an object in a group".into(), hint));
        }
        let pickled = if at_root {
            let pickled = py.import("pickle")?.call_method1("dumps", (o, -1))?;
            pickled.cast_into::<PyBytes>()?.as_bytes().to_vec()
        } else {
            Vec::new()
        };
        let call = Call {
            collective: Collective::Broadcast,
            dtype: DataType::U64,
            op: None,
            root: Some(root),
            count: 1,
        };
        let begun = py.detach(|| self.inner().start_parcel(pickled, root, timeout));
        let (parcel, works) = begun.map_err(|error| self.exception(py, &error, Some(&call)))?;
        let answer = if at_root { Answer::Object(o.clone().unbind()) } else { Answer::pickled(parcel) };
        let work = Work::of_several(Of::Call(self.origin().clone(), call), works.into(), answer);
        if async_op { Ok(Py::new(py, work)?.into_any()) } else { work.wait(py, None) }
    }

    /// A call on addresses, for rccl.nccl: `collective` by its name, types and operators by NCCL's numbers.
    #[pyo3(signature = (collective, dtype, op, root, count, input, output, stream=None))]
    #[allow(clippy::too_many_arguments)]
    fn _raw(
        &self,
        py: Python<'_>,
        collective: &str,
        dtype: u8,
        op: Option<u8>,
        root: Option<u32>,
        count: usize,
        input: usize,
        output: usize,
        stream: Option<&Bound<'_, Stream>>,
    ) -> PyResult<Py<PyAny>> {
        let wrong = |what: String, hint: &str| {
            crate::group::group_spoil(what.clone());
            argument(py, "nccl", what, hint)
        };
        let collective = Collective::ALL.into_iter().find(|known| known.name() == collective);
        let collective = collective.ok_or_else(|| wrong("no such call".into(), "see rccl.nccl"))?;
        let dtype = DataType::try_from(dtype).map_err(|error| wrong(error.to_string(), "see rccl.nccl"))?;
        let asked = Asked { root, ..Asked::new(collective, count) };
        let asked = match op {
            Some(op) => asked.reducing(
                Operator::numbered(op).ok_or_else(|| wrong(format!("operator {op}"), "see rccl.nccl"))?,
            ),
            None => asked,
        };
        let manner = Manner { stream: stream.map(|stream| stream.get()), ..Manner::default() };
        make(py, self, asked, Memory::at(dtype, input, output), manner, py.None())
    }
}

/// Lengths of blocks by rank, which the root knows, or that there are some.
#[derive(FromPyObject)]
enum Counts {
    ByRank(Vec<usize>),
    #[expect(dead_code, reason = "that it is there says all")]
    Some(bool),
}

impl Counts {
    fn of_root(self, py: Python<'_>, name: Name) -> PyResult<Vec<usize>> {
        match self {
            Counts::ByRank(counts) => Ok(counts),
            Counts::Some(_) => Err(argument(
                py,
                name.call,
                "counts without numbers".into(),
                "the root passes a list, by rank",
            )),
        }
    }
}
