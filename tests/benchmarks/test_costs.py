"""What kernels compute and move, of programs of which it is known (on a CPU)."""

import jax
import jax.numpy as jnp
import pytest
from analysis.costs import kernels, product_flops


def compiled(function, *shapes):
    return jax.jit(function).lower(*(jnp.ones(shape) for shape in shapes)).compile()


def test_products_in_loops():
    def function(x):
        return jax.lax.fori_loop(0, 5, lambda _, y: jnp.tanh(x @ y), x) @ x

    assert product_flops(compiled(function, (8, 8))) == 6 * 2 * 8**3


def test_batched_products_and_sums_over_several_axes():
    program = compiled(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (3, 4, 5), (3, 5, 6))
    assert product_flops(program) == 2 * 3 * 4 * 5 * 6
    program = compiled(lambda a, b: jnp.einsum("aij,aik->jk", a, b), (3, 4, 5), (3, 4, 6))
    assert product_flops(program) == 2 * 3 * 4 * 5 * 6


def test_a_fusion_reads_its_operands_once():
    (one,) = kernels(compiled(lambda x, y: jnp.tanh(x * y) + x, (8, 16), (8, 16)))
    assert (one.read_bytes, one.written_bytes) == (2 * 512, 512)
    assert one.flops == 0
    assert one.times == 1


def test_of_a_table_only_the_rows_that_are_taken():
    def function(table, x):
        return jax.lax.dynamic_slice_in_dim(table, 3, 2) * x

    (one,) = (k for k in kernels(compiled(function, (1000, 16), (2, 16))) if k.kind == "fusion")
    assert one.written_bytes == 2 * 16 * 4
    assert one.read_bytes <= 3 * 2 * 16 * 4


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="compiled program"):
        kernels("module @jit_f")
