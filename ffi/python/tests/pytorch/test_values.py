"""Every operator on every type gives what plain arithmetic gives."""

import functools
import operator

import pytest
import ranks
import torch
import torch.distributed as dist

INTEGERS = [torch.int8, torch.uint8, torch.int32, torch.uint32, torch.int64, torch.uint64]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
EIGHT_BITS = [torch.float8_e4m3fn, torch.float8_e5m2]
COMPLEX = [torch.complex64, torch.complex128]
Op = dist.ReduceOp
FOLDS = {
    "SUM": operator.add,
    "PRODUCT": operator.mul,
    "MIN": torch.minimum,
    "MAX": torch.maximum,
    "BAND": operator.and_,
    "BOR": operator.or_,
    "BXOR": operator.xor,
}


def operand(rank, count, dtype):
    """Small numbers, so that every order of operations gives the same and products fit."""
    numbers = (torch.arange(count) * 7 + rank * 3) % 5 + 1
    if dtype == torch.bool:
        return numbers % 2 == 0
    if dtype.is_complex:
        return torch.complex(numbers.double(), -2 * numbers.double()).to(dtype)
    if dtype.is_floating_point:
        return (numbers * 0.5).to(dtype)
    return numbers.to(dtype)


def wide(dtype):
    """A type that torch computes in exactly here."""
    if dtype == torch.bool or dtype.is_complex:
        return dtype
    return torch.float64 if dtype.is_floating_point else torch.int64


def expected(op, size, count, dtype):
    operands = [operand(rank, count, dtype).to(wide(dtype)) for rank in range(size)]
    if dtype == torch.bool:
        folds = {"SUM": torch.logical_or, "PRODUCT": torch.logical_and, "MIN": torch.logical_and, "MAX": torch.logical_or}
        return functools.reduce(folds.get(op, FOLDS.get(op)), operands)
    if op == "AVG":
        total = functools.reduce(operator.add, operands)
        integer = not dtype.is_floating_point and not dtype.is_complex
        return (torch.div(total, size, rounding_mode="trunc") if integer else total / size).to(dtype)
    return functools.reduce(FOLDS[op], operands).to(dtype)


def cases():
    for dtype in INTEGERS + FLOATS + EIGHT_BITS + COMPLEX + [torch.bool]:
        is_float = dtype.is_floating_point
        for op in ["SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR"]:
            if op.startswith("B") and (is_float or dtype.is_complex):
                continue
            if dtype.is_complex and op not in ("SUM", "AVG") or dtype == torch.bool and op == "AVG":
                continue
            yield dtype, op


def same(found, wanted, what):
    if found.dtype in EIGHT_BITS + [torch.uint32, torch.uint64]:
        found, wanted = found.to(torch.float64), wanted.to(torch.float64)
    if "AVG" in what and (found.is_floating_point() or found.is_complex()):
        torch.testing.assert_close(found, wanted, msg=lambda text: f"{what}: {text}")
    else:
        assert torch.equal(found, wanted), f"{what}: {found} where {wanted} is right"


def reduces(rank, size):
    for dtype, op in cases():
        for count in (1, 37, 5000):
            what = f"{op} of {count} {dtype} on {size} ranks"
            by, wanted = getattr(Op, op), expected(op, size, count, dtype)
            x = operand(rank, count, dtype)
            dist.all_reduce(x, by)
            same(x, wanted, what)
            x = operand(rank, count, dtype)
            dist.reduce(x, dst=size - 1, op=by)
            same(x, wanted if rank == size - 1 else operand(rank, count, dtype), "reduce, " + what)
        wanted = expected(op, size, 3 * size, dtype)
        x, out = operand(rank, 3 * size, dtype), torch.empty(3, dtype=dtype)
        dist.reduce_scatter_tensor(out, x, op=getattr(Op, op))
        same(out, wanted[3 * rank : 3 * rank + 3], f"reduce_scatter_tensor, {op} of {dtype}")
        out = torch.empty(3, dtype=dtype)
        dist.reduce_scatter(out, [x[3 * other : 3 * other + 3].clone() for other in range(size)], op=getattr(Op, op))
        same(out, wanted[3 * rank : 3 * rank + 3], f"reduce_scatter, {op} of {dtype}")


def multiplies_first(rank, size):
    for dtype in INTEGERS + FLOATS + EIGHT_BITS + COMPLEX:
        for factor in (2.0, torch.full((1,), 3.0)):
            x = operand(rank, 100, dtype)
            dist.all_reduce(x, dist._make_nccl_premul_sum(factor))
            products = ((operand(other, 100, dtype).to(wide(dtype)) * float(factor)).to(dtype) for other in range(size))
            wanted = sum(product.to(wide(dtype)) for product in products)
            same(x, wanted.to(dtype), f"pre-multiplied sum of {dtype}")


def refuses(rank, size):
    # Not by torch.distributed, which refuses some of it itself.
    group, options = dist.distributed_c10d._get_default_group(), dist.AllreduceOptions()
    for dtype, op, words in [
        (torch.complex64, "MAX", "complex numbers have sum and avg only"),
        (torch.bool, "AVG", "booleans have no average"),
        (torch.int16, "SUM", "can be moved, but not reduced"),
        (torch.float32, "BAND", "band"),
    ]:
        options.reduceOp = getattr(Op, op)
        said = ranks.text_of(lambda: group.allreduce([torch.ones(3).to(dtype)], options).wait())
        assert words in said.lower(), said
    # Nothing was sent, so all is well.
    x = torch.ones(3)
    dist.all_reduce(x)
    assert x.tolist() == [size] * 3


@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_operator_on_every_type(size):
    ranks.run(size, reduces)


@pytest.mark.skipif(not hasattr(dist, "_make_nccl_premul_sum"), reason="this torch makes no such operator")
def test_pre_multiplied_sums():
    ranks.run(2, multiplies_first)


def test_what_has_no_meaning_is_refused_and_breaks_nothing():
    ranks.run(2, refuses)
