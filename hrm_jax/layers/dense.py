"""A linear layer that low-rank adapters can be added to."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core.scope import LazyRng
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float

from hrm_jax.layers.packed import Packed

LORA = "lora"
"""The collection with what is added to Dense layers, and the rng of its dropout."""


class Dense(nn.Module):
    """x W + bias; or, where the collection "lora" has leaves at the layer's path,

        gain · (x W + scale · (dropout(x) a) b) + bias

    in this order, so that no array of W's size is made, not even in the gradient. The leaves are
    a [D, r], b [r, O] and scale []; gain [O], where magnitudes are learnt (DoRA); dropout [], the
    probability with which an input is dropped, in training, which needs an rng named "lora". All of
    them may have a leading axis B: then each row of x has an adapter of its own.

    Attributes:
        features: O.
        dtype: Computation dtype; None takes what x and the parameters give. Parameters are float32.
        source: Names what is read. Layers of a module that read the same drop the same of it, as
            those do which are one layer elsewhere (GPT-2's q, k and v).

    References:
        Hu et al., LoRA (https://arxiv.org/abs/2106.09685), eq. 3; Liu et al., DoRA
        (https://arxiv.org/abs/2402.09353), eq. 5.
    """

    features: int
    use_bias: bool = True
    dtype: Dtype | None = None
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros
    source: str = ""

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B O"]:
        kernel: Any = self._packed()
        if kernel is None:
            kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        if self._is_narrow(kernel):
            x, bias = promote_dtype(x, bias, dtype=self.dtype)
            y = _product(x, kernel)
        else:
            x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
            y = x @ kernel
        if self.has_variable(LORA, "a"):
            y = self._adapted(x, y)
        return y if bias is None else y + bias

    def _packed(self) -> Packed | None:
        value: Any = self.get_variable("params", "kernel")
        return value if isinstance(value, Packed) else None

    def _is_narrow(self, kernel: Any) -> bool:
        """Whether the kernel takes less memory than it does in the computation."""
        if isinstance(kernel, Packed):
            return True
        return bool(self.dtype) and kernel.dtype.itemsize < jnp.dtype(self.dtype).itemsize

    def _adapted(self, x: Float[Array, "*B D"], y: Float[Array, "*B O"]) -> Float[Array, "*B O"]:
        def leaf(name: str) -> Any:
            value: Any = self.get_variable(LORA, name)
            return None if value is None else jnp.asarray(value, y.dtype)

        a, b, scale, gain, rate = map(leaf, ("a", "b", "scale", "gain", "dropout"))
        each = a.ndim == 3  # row
        if rate is not None:
            x = jnp.where(_kept(self._key(), rate, x.shape), x / (1 - rate), 0)
        if each:
            product = "b...i,bio->b...o"
            more = jnp.einsum(product, jnp.einsum(product, x, a), b)
        else:  # one axis of rows: a contraction over two makes gradients slow on a CPU
            more = (x.reshape(-1, x.shape[-1]) @ a @ b).reshape(y.shape)
        inner = (1,) * (y.ndim - 2)
        y = y + (scale.reshape(-1, *inner, 1) if each else scale) * more
        if gain is None:
            return y
        return y * (gain.reshape(-1, *inner, self.features) if each else gain)

    def _key(self) -> Array:
        """The rng of the module around, for what is read."""
        assert self.scope is not None
        around = self.scope.parent or self.scope
        if not around.has_rng(LORA):
            raise ValueError(f"{self.path}: dropout of adapters needs an rng named 'lora'")
        return LazyRng.create(around.rngs[LORA], self.source or self.name or "").as_jax_rng()


@jax.checkpoint  # else each kernel would be kept whole for the backward pass
def _product(x: Float[Array, "*B D"], kernel: Any) -> Float[Array, "*B O"]:
    wide = kernel.unpack(x.dtype) if isinstance(kernel, Packed) else kernel.astype(x.dtype)
    return x @ wide


def _kept(key: Array, rate: Array, shape: tuple[int, ...]) -> Array:
    """Which inputs are kept, with probability 1 − rate to 16 bits: two of them share a word, since
    drawing words is what dropout takes the time for."""
    *rows, size = shape
    words = jax.random.bits(key, (*rows, -(-size // 2)), jnp.uint32)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(*rows, -1)[..., :size]
    return halves.astype(jnp.int32) >= jnp.round(rate * 2**16).astype(jnp.int32)
