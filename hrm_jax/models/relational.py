"""The relational network, which sums over all pairs of objects; and an MLP as its control.

    f(Σ_{i≠j} g(o_i, o_j, q))

B worlds, N objects, D of an object, Q questions about each world, E of a question, A answers.

References:
    Santoro et al., A simple neural network module for relational reasoning
    (https://arxiv.org/abs/1706.01427), eq. 1 and 2; images as objects with coordinates in §4.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float, Num, PRNGKeyArray

from hrm_jax.fields import require_fields

_INIT = nn.initializers.he_normal()


@dataclasses.dataclass(frozen=True)
class RelationalConfig:
    """Sizes of a relational network, and of the MLP that it is compared with.

    Attributes:
        object_dim: D.
        question_dim: E; 0 where nothing is asked and every world has one answer.
        output_dim: A.
        relation_dim: Size of what g says of a pair.
        hidden_dim: Width of the other layers.
        object_layers: Layers that see one object and the question, before objects are paired; they
            cost N where those of g cost N².
        g_layers, f_layers: Layers of g, all followed by ReLU, and of f before its last.
        aggregate: How what g says of the pairs is put together.
        pairs: Ordered pairs of different objects, or of all, each with itself too.
        channels: Of the convolutions that make objects of an image: 3×3 with stride 2, each cell
            that remains is an object. () takes objects as they are given.
        dtype: Computation dtype; parameters are float32.
    """

    variant: ClassVar[str] = "relational"

    object_dim: int = 256
    question_dim: int = 0
    output_dim: int = 10
    relation_dim: int = 256
    hidden_dim: int = 256
    object_layers: int = 0
    g_layers: int = 3
    f_layers: int = 1
    aggregate: Literal["mean", "sum"] = "mean"
    pairs: Literal["distinct", "all"] = "distinct"
    channels: tuple[int, ...] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"

    def unused(self) -> dict[str, str]:
        return {"object_dim": "model.channels make the objects"} if self.channels else {}

    def __post_init__(self) -> None:
        check = functools.partial(require_fields, self, "model")
        sizes = ("object_dim", "output_dim", "relation_dim", "hidden_dim", "g_layers")
        check("at least 1", lambda x: x >= 1, *sizes)
        check("0 or more", lambda x: x >= 0, "question_dim", "object_layers", "f_layers")
        check("numbers of at least 1", lambda x: all(c >= 1 for c in x), "channels")


@dataclasses.dataclass(frozen=True)
class MLPConfig(RelationalConfig):
    """An MLP on all objects side by side, and the question, that has as many parameters as the
    relational network of the same sizes (or a few more): its width follows.

    Attributes:
        mlp_layers: Hidden layers.
    """

    variant: ClassVar[str] = "mlp"

    mlp_layers: int = 4

    def unused(self) -> dict[str, str]:
        return {**super().unused(), **dict.fromkeys(("aggregate", "pairs"), "an MLP has no pairs")}

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fields(self, "model", "at least 1", lambda x: x >= 1, "mlp_layers")


class ConcatDense(nn.Module):
    """A dense layer of several inputs side by side, [*B, Σ D]: what each of them adds.

    Thus a product is made before its result is broadcast against the others, and paired.
    """

    size: int
    dtype: Dtype

    @nn.compact
    def __call__(self, *inputs: Float[Array, "*_ _"]) -> list[Float[Array, "*_ _"]]:
        """From inputs [*B, D] each to their parts [*B, F], whose sum is the layer's output."""
        ends = list(itertools.accumulate(x.shape[-1] for x in inputs))
        kernel = self.param("kernel", _INIT, (ends[-1], self.size)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.size,)).astype(self.dtype)
        kernels = jnp.split(kernel, ends[:-1])
        first, *others = (x.astype(self.dtype) @ w for x, w in zip(inputs, kernels, strict=True))
        return [first + bias, *others]


def _dense(size: int, dtype: Dtype, number: int) -> nn.Dense:
    return nn.Dense(size, dtype=dtype, kernel_init=_INIT, name=f"layers_{number}")


class Perceptron(nn.Module):
    """Hidden layers with ReLU, and a last one without."""

    hidden: tuple[int, ...]
    size: int
    dtype: Dtype

    @nn.compact
    def __call__(self, *inputs: Float[Array, ...]) -> Float[Array, ...]:
        """From inputs side by side, [*B, D] each, to [*B, `size`]."""
        first, *others = (*self.hidden, self.size)
        x: Any = sum(ConcatDense(first, self.dtype, name="layers_0")(*inputs))
        for i, size in enumerate(others, 1):
            x = _dense(size, self.dtype, i)(jax.nn.relu(x))
        return x


class Objects(nn.Module):
    """What objects are in the light of each question, [B, Q, N, F]; as given without layers."""

    config: RelationalConfig

    @nn.compact
    def __call__(
        self, objects: Float[Array, "B 1 N D"], questions: Float[Array, "B Q 1 E"]
    ) -> Float[Array, "B _ N F"]:
        c = self.config
        for i in range(c.object_layers):
            layer = ConcatDense(c.hidden_dim, jnp.dtype(c.dtype), name=f"layers_{i}")
            objects = jax.nn.relu(sum(layer(objects, questions)))
        return objects


class Relations(nn.Module):
    """g(o_i, o_j, q) of all pairs, aggregated: [B, Q, R]."""

    config: RelationalConfig

    @nn.compact
    def __call__(
        self, objects: Float[Array, "B _ N F"], questions: Float[Array, "B Q 1 E"]
    ) -> Float[Array, "B Q R"]:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        first, *others = (*(c.hidden_dim,) * (c.g_layers - 1), c.relation_dim)
        layer = ConcatDense(first, dtype, name="layers_0")
        left, right, asked = layer(objects, objects, questions)
        # Pairs [B, Q, S, N, F]: object n with the one that is s places on.
        shifts = range(c.pairs == "distinct", objects.shape[2])
        shifted = jnp.stack([jnp.roll(right, -s, axis=2) for s in shifts], axis=2)
        x = jax.nn.relu(left[:, :, None] + shifted + asked[:, :, None])
        for i, size in enumerate(others, 1):
            x = jax.nn.relu(_dense(size, dtype, i)(x))
        return x.sum((2, 3)) if c.aggregate == "sum" else x.mean((2, 3))


class Cells(nn.Module):
    """The cells of images after convolutions, and where they are: [B, N, C + 2]."""

    config: RelationalConfig

    @nn.compact
    def __call__(self, images: Num[Array, "B H W 3"]) -> Float[Array, "B N D"]:
        """Images go from 0 to 255, of which 255 is nothing, so that white paper makes cells of
        zeros; the coordinates, x then y, from −1 to 1."""
        dtype = jnp.dtype(self.config.dtype)
        x = 1 - images.astype(dtype) / 255
        for i, channels in enumerate(self.config.channels):
            name = f"layers_{i}"
            x = nn.Conv(channels, (3, 3), 2, dtype=dtype, kernel_init=_INIT, name=name)(x)
            x = jax.nn.relu(nn.LayerNorm(1e-5, dtype=dtype, name=f"norms_{i}")(x))
        down, right = (np.linspace(-1, 1, size) for size in x.shape[1:3])
        places = np.stack(np.meshgrid(right, down), axis=-1)
        shown = jnp.broadcast_to(jnp.asarray(places, dtype), (*x.shape[:3], 2))
        return jnp.concatenate([x, shown], axis=-1).reshape(len(x), -1, x.shape[-1] + 2)


def _objects_and_questions(
    config: RelationalConfig, inputs: Array, questions: Array | None
) -> tuple[Float[Array, "B 1 N D"], Float[Array, "B Q E"]]:
    """What a network is given, checked; objects have an axis for the questions."""
    if not config.question_dim:
        questions = jnp.zeros((len(inputs), 1, 0))
    for name, array, wanted in (
        ("inputs", inputs, (-1, -1, -1, 3) if config.channels else (-1, -1, config.object_dim)),
        ("questions", questions, (len(inputs), -1, config.question_dim)),
    ):
        found = () if array is None else array.shape
        if len(found) != len(wanted) or any(
            size not in (-1, have) for size, have in zip(wanted, found, strict=True)
        ):
            raise ValueError(f"{name}: expected the shape {wanted}, −1 for any size, got {found}")
    objects = Cells(config, name="cells")(inputs) if config.channels else inputs
    return objects[:, None], jnp.asarray(questions)


class RelationalNetwork(nn.Module):
    """f(Σ g(o_i, o_j, q)) over pairs of objects."""

    config: RelationalConfig

    @nn.compact
    def __call__(
        self, inputs: Num[Array, B * X], questions: Float[Array, "B Q E"] | None = None
    ) -> Float[Array, B * Y]:
        """Logits, float32 [B, Q, A], or [B, A] without questions.

        Inputs are objects [B, N, D], or images [B, H, W, 3] from 0 to 255 where the configuration
        has `channels`. A `ValueError` names a shape that does not fit it.
        """
        c = self.config
        objects, asked = _objects_and_questions(c, inputs, questions)
        seen = Objects(c, name="objects")(objects, asked[:, :, None])
        related = Relations(c, name="g")(seen, asked[:, :, None])
        hidden = (c.hidden_dim,) * c.f_layers
        logits = Perceptron(hidden, c.output_dim, jnp.dtype(c.dtype), name="f")(related)
        logits = logits.astype(jnp.float32)
        return logits if c.question_dim else logits[:, 0]


class MLP(nn.Module):
    """All objects side by side, and the question, through dense layers."""

    config: MLPConfig

    @nn.compact
    def __call__(
        self, inputs: Num[Array, B * X], questions: Float[Array, "B Q E"] | None = None
    ) -> Float[Array, B * Y]:
        """As of `RelationalNetwork`."""
        c = self.config
        objects, asked = _objects_and_questions(c, inputs, questions)
        flat = objects.reshape(len(objects), 1, -1)
        hidden = (mlp_width(c, *objects.shape[2:]),) * c.mlp_layers
        logits = Perceptron(hidden, c.output_dim, jnp.dtype(c.dtype), name="f")(flat, asked)
        logits = logits.astype(jnp.float32)
        return logits if c.question_dim else logits[:, 0]


def mlp_width(config: MLPConfig, objects: int, object_dim: int) -> int:
    """The least width with which an MLP on so many objects has at least as many parameters as the
    relational network has on them."""
    vectors = dataclasses.replace(config, object_dim=object_dim, channels=())
    shapes = jax.eval_shape(
        RelationalNetwork(vectors).init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, objects, object_dim), jnp.float32),
        jax.ShapeDtypeStruct((1, 1, config.question_dim), jnp.float32),
    )
    wanted = sum(x.size for x in jax.tree.leaves(shapes))
    inputs = objects * object_dim + config.question_dim

    def count(width: int) -> int:
        sizes = (inputs, *(width,) * config.mlp_layers, config.output_dim)
        return sum((before + 1) * after for before, after in itertools.pairwise(sizes))

    return next(width for width in itertools.count(1) if count(width) >= wanted)


def network(config: RelationalConfig) -> RelationalNetwork | MLP:
    """The network of a configuration."""
    return MLP(config) if isinstance(config, MLPConfig) else RelationalNetwork(config)


def init(config: RelationalConfig, key: PRNGKeyArray, shape: tuple[int, ...]) -> dict[str, Any]:
    """Draws fresh parameters for inputs of which each has this shape."""
    asked = jnp.zeros((1, 1, config.question_dim))
    return network(config).init(key, jnp.zeros((1, *shape)), asked)["params"]
