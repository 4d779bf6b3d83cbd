"""How a model and what it remembers lie on several devices that serve it together.

Each device has some of the heads and of the feed-forward channels of every layer, and the keys and
values of its heads, so that it reads its share of these weights in a step; two sums over the
devices in each layer put together what they found. A head over the vocabulary of its own is divided
too, if the number of devices divides the vocabulary, and its logits are gathered. The rest, with a
head that is the embeddings, is whole everywhere.

References:
    Shoeybi et al., Megatron-LM (https://arxiv.org/abs/1909.08053), §3.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.tree_util import DictKey

from hrm_jax.compilation import jit
from hrm_jax.layers.attention import HEADS
from hrm_jax.models.transformer import Cache, TransformerConfig, init_cache

_BY_OUTPUT = {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "lm_head"}
_BY_INPUT = {"o_proj", "down_proj"}


class Division:
    """A model divided over the first of JAX's devices; over one, it is where it was.

    Raises `ValueError` where there are not so many, or they do not divide the heads, the key heads
    or the feed-forward channels.
    """

    def __init__(self, config: TransformerConfig, devices: int) -> None:
        there = jax.devices()
        if not 1 <= devices <= len(there):
            raise ValueError(
                f"devices: expected 1 to {len(there)}, as many as JAX has, got {devices}"
            )
        divided = {
            "num_heads": config.num_heads,
            "num_kv_heads": config.key_heads,
            "ffn_size": config.ffn_size,
        }
        for name, size in divided.items():
            if size % devices:
                raise ValueError(f"devices: {devices} do not divide the model's {name} {size}")
        self._config = config
        self._devices = devices
        self._makers: dict[tuple[int, int], Any] = {}  # of empty caches
        self._mesh = None
        if devices > 1:
            self._mesh = jax.make_mesh(
                (devices,), (HEADS,), axis_types=(AxisType.Auto,), devices=there[:devices]
            )

    def parameter(self, path: tuple[Any, ...], x: Any) -> Any:
        """A leaf of a `Transformer`'s parameters or adapters, where it belongs."""
        if self._mesh is None:
            return x
        return jax.device_put(x, self._over(x, self._axis(path, x)))

    def place(self, tree: Any) -> Any:
        """Anything else but caches, whole on all devices."""
        if self._mesh is None:
            return tree
        return jax.tree.map(lambda x: jax.device_put(x, self._over(x, None)), tree)

    def empty_cache(self, rows: int, length: int) -> Cache:
        """`init_cache`, each device's heads made there."""
        if self._mesh is None:
            return init_cache(self._config, rows, length)
        if (rows, length) not in self._makers:
            make = functools.partial(init_cache, self._config, rows, length)
            placed = jax.tree.map(self._of_state, jax.eval_shape(make))
            self._makers[rows, length] = jax.jit(make, out_shardings=placed)
        return self._makers[rows, length]()

    def gathered(self, logits: jax.Array) -> jax.Array:
        """In a program: logits, whole on all devices."""
        if self._mesh is None:
            return logits
        if logits.shape[-1] % self._devices == 0 and not self._config.tie_head:
            # Else the head's kernel would be gathered instead.
            logits = jax.lax.with_sharding_constraint(logits, self._over(logits, -1))
        return jax.lax.with_sharding_constraint(logits, self._over(logits, None))

    def compiled(self, function: Any, donated: tuple[int, ...], args: Any) -> Any:
        """A program for these arguments: what it is given and gives stays in its place."""
        if self._mesh is None:
            return jit(function, donate_argnums=donated).lower(*args).compile()

        def given(x: Any) -> NamedSharding:
            there = getattr(x, "sharding", None)
            return there if isinstance(there, NamedSharding) else self._of_state(x)

        with jax.set_mesh(self._mesh):
            made = jax.eval_shape(function, *args)
            program = jit(
                function,
                donate_argnums=donated,
                in_shardings=jax.tree.map(given, args),
                out_shardings=jax.tree.map(self._of_state, made),
            )
            return program.lower(*args).compile()

    def _axis(self, path: tuple[Any, ...], x: Any) -> int | None:
        """The axis, from the last one, along which a parameter is divided."""
        if not all(isinstance(key, DictKey) for key in path):
            raise ValueError(f"devices: {jax.tree_util.keystr(path)} is packed; expected 1")
        *_, layer, leaf = (key.key for key in path)
        axis = None
        if layer in _BY_OUTPUT and leaf in ("kernel", "bias", "b", "gain"):
            axis = -1
        elif layer in _BY_INPUT and leaf in ("kernel", "a"):
            axis = -2
        return axis if axis is not None and x.shape[axis] % self._devices == 0 else None

    def _of_state(self, x: Any) -> NamedSharding:
        # Caches [..., B, K, L, C] alone have so many axes; their heads are divided.
        return self._over(x, -3 if len(jax.numpy.shape(x)) >= 4 else None)

    def _over(self, x: Any, axis: int | None) -> NamedSharding:
        assert self._mesh is not None
        spec = [None] * len(jax.numpy.shape(x))
        if axis is not None:
            spec[axis] = HEADS  # type: ignore[call-overload]
        return NamedSharding(self._mesh, PartitionSpec(*spec))
