"""Low-rank adapters: which layers have them, what is trained, and how they act on a model.

The adapters of a model are a plain tree, all that is trained and saved:

    {"lora": {…: {"a", "b"[, "magnitude"]}}, "params": {…}}

`lora` is laid out as the parameters, with an adapter where a layer has its kernel; `params` has
those of the model's own parameters that are trained as they are: biases, and `modules_to_save`.

A GPT-2 has q, k and v in one layer. Its adapter stands at `qkv_proj` (`c_attn`), one for the three:
a is shared, and b [r, 3 D] has their parts side by side.

References:
    Hu et al., LoRA (https://arxiv.org/abs/2106.09685), §4.1; Kalajdzievski, rsLoRA
    (https://arxiv.org/abs/2312.03732), for α / √r; Liu et al., DoRA
    (https://arxiv.org/abs/2402.09353), §4.1 and §4.3 (no gradient through the norm).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float, PRNGKeyArray

from hrm_jax.fields import ConfigError, require, require_fields
from hrm_jax.layers.dense import LORA

Path = tuple[str, ...]

ALL_LINEAR = "all-linear"
_QKV = ("q_proj", "k_proj", "v_proj")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which layers have adapters, and of what kind. The fields mean what they do in peft.

    Layers are called as here (`layers.0.attention.q_proj`) or as transformers calls them
    (`model.layers.0.self_attn.q_proj`, of a GPT-2 `transformer.h.0.attn.c_attn`).

    Attributes:
        r: Rank.
        alpha: The adapter is multiplied by α / r.
        dropout: Probability with which an adapter's inputs are dropped in training.
        target_modules: Names of layers, or their ends (`q_proj`, `attn.c_proj`); a text is a
            regular expression for whole names, or "all-linear": all linear layers but the head.
            None takes q_proj and v_proj, of a GPT-2 c_attn.
        use_rslora: Whether to multiply by α / √r.
        use_dora: Whether the length of each column of the adapted weights is learnt apart.
        rank_pattern, alpha_pattern: Other ranks and α, by regular expressions for the ends of
            names; the first that fits counts.
        bias: Which biases are trained: none, all of the model's, or those of layers with adapters.
        modules_to_save: Names of modules, or their ends, that are trained as a whole.
    """

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    target_modules: tuple[str, ...] | str | None = None
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: dict[str, int] = dataclasses.field(default_factory=dict)
    alpha_pattern: dict[str, float] = dataclasses.field(default_factory=dict)
    bias: Literal["none", "all", "lora_only"] = "none"
    modules_to_save: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_fields(self, "lora", "0 <= x < 1", lambda x: 0 <= x < 1, "dropout")
        for name, value in {"r": self.r, **self.rank_pattern}.items():
            require(value >= 1, f"lora: rank of {name}: expected at least 1, got {value}")
        patterns = [*self.rank_pattern, *self.alpha_pattern]
        if isinstance(self.target_modules, str):
            patterns.append(self.target_modules)
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"lora: {pattern!r}: no regular expression: {error}") from error


class Layer(NamedTuple):
    """A place for an adapter: a linear layer, or the three that are one in a GPT-2.

    `names` has for each of the layers that are scanned (one, where none are) the names by which it
    is known: ours, and transformers'.
    """

    path: Path
    parts: tuple[Path, ...]
    names: tuple[tuple[str, ...], ...]


class Merged(NamedTuple):
    """Parameters with adapters in them.

    Attributes:
        params: Of a model that needs no adapters.
        replaced: What stood in `params` before, by path: kernels, biases, saved modules.
        drift: Largest difference between a merged weight and what it would be in float32.
    """

    params: Any
    replaced: Mapping[Path, Any]
    drift: float


def init(config: LoraConfig, params: Mapping[str, Any], key: PRNGKeyArray) -> dict[str, Any]:
    """Fresh adapters, float32, which change nothing yet: b is 0, and a uniform in ±1/√D.

    `ConfigError` where a name or pattern fits nothing in `params`; it lists what there is.
    """
    made: dict[Path, Any] = {}
    for number, (layer, rank, _) in enumerate(adapted(config, params)):
        kernels = [_get(params, part)["kernel"] for part in layer.parts]
        *scanned, size, _ = kernels[0].shape
        draw = jax.random.uniform(jax.random.fold_in(key, number), (*scanned, size, rank))
        made[*layer.path, "a"] = (2 * draw - 1) / size**0.5
        made[*layer.path, "b"] = jnp.zeros((*scanned, rank, sum(k.shape[-1] for k in kernels)))
        if config.use_dora:
            lengths = [jnp.linalg.norm(wide(k), axis=-2) for k in kernels]
            made[*layer.path, "magnitude"] = jnp.concatenate(lengths, axis=-1)
    flat = traverse_util.flatten_dict(params)
    trained = {path: wide(flat[path]) for path in _trained(config, params)}
    lora, saved = map(traverse_util.unflatten_dict, (made, trained))
    return {"lora": lora, "params": saved}


def variables(
    config: LoraConfig, params: Mapping[str, Any], adapters: Mapping[str, Any], train: bool = False
) -> dict[str, Any]:
    """What `model.apply` takes: parameters, and the adapters as collection "lora"; differentiable.

    With `train`, inputs are dropped, if the configuration says so; `apply` then needs an rng named
    "lora". `params` has the model's sizes; modules of the adapters may have others (a larger
    vocabulary), which the model must be told.
    """
    made: dict[Path, Any] = {}
    for part, leaves in _parts(config, params, adapters):
        scanned = leaves["a"].shape[:-2]
        made[*part, "a"], made[*part, "b"] = leaves["a"], leaves["b"]
        made[*part, "scale"] = jnp.asarray(leaves["scale"].reshape(scanned), jnp.float32)
        if "magnitude" in leaves:
            made[*part, "gain"] = _gain(wide(_get(params, part)["kernel"]), leaves)
        if train and config.dropout:
            made[*part, "dropout"] = jnp.full(scanned, config.dropout, jnp.float32)
    flat = traverse_util.flatten_dict(params) | _own(config, params, adapters)
    return {"params": traverse_util.unflatten_dict(flat), LORA: traverse_util.unflatten_dict(made)}


def merge(
    config: LoraConfig,
    params: Mapping[str, Any],
    adapters: Mapping[str, Any],
    dtype: Any = None,
) -> Merged:
    """Puts adapters into the parameters, computed in float32 and rounded to `dtype`: by default
    that of each kernel, float32 for one that is packed.

    Nothing is subtracted again to undo it, which would round: `unmerge` puts back what was there.
    """
    flat = dict(traverse_util.flatten_dict(params))
    new = _own(config, params, adapters)
    drift = 0.0
    for part, leaves in _parts(config, params, adapters):
        path = (*part, "kernel")
        exact = _merged_kernel(wide(flat[path]), leaves)
        own = flat[path].dtype
        new[path] = exact.astype(
            dtype or (own if jnp.issubdtype(own, jnp.floating) else jnp.float32)
        )
        drift = max(drift, float(jnp.max(jnp.abs(new[path].astype(jnp.float32) - exact))))
    replaced = {path: flat[path] for path in new}
    return Merged(traverse_util.unflatten_dict(flat | new), replaced, drift)


def unmerge(merged: Merged) -> dict[str, Any]:
    """The parameters as they were before `merge`, bit for bit."""
    flat = traverse_util.flatten_dict(merged.params) | dict(merged.replaced)
    return dict(traverse_util.unflatten_dict(flat))


def wide(value: Any) -> Array:
    """A parameter in float32."""
    return jnp.asarray(value, jnp.float32)


def is_gpt2(params: Mapping[str, Any]) -> bool:
    """Whether transformers would call the model a GPT-2: positions are learnt."""
    return "embed_positions" in params


def layers(params: Mapping[str, Any]) -> Iterator[Layer]:
    """All places for adapters, in their order; those of a GPT-2's q, k and v are one."""
    gpt2 = is_gpt2(params)
    for module, node in _modules(params):
        if getattr(node.get("kernel"), "ndim", 0) < 2:
            continue
        path: Path = module
        parts: tuple[Path, ...] = (module,)
        if gpt2 and module[-1] in _QKV:
            if module[-1] != "q_proj":
                continue
            path = (*module[:-1], "qkv_proj")
            parts = tuple((*module[:-1], name) for name in _QKV)
        yield Layer(path, parts, _names(path, node["kernel"].shape[:-2], gpt2))


def _modules(tree: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """All groups in a tree, the outer ones first."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield (*path, name), value
            yield from _modules(value, (*path, name))


# What transformers calls modules of a GPT-2, and of a Llama and its kin.
_THEIRS = {
    True: (
        ("layers.", "transformer.h."),
        (".attention.qkv_proj", ".attn.c_attn"),
        (".attention.o_proj", ".attn.c_proj"),
        (".ffn.up_proj", ".mlp.c_fc"),
        (".ffn.down_proj", ".mlp.c_proj"),
        (".attention.", ".attn."),
        (".attention_norm", ".ln_1"),
        (".ffn_norm", ".ln_2"),
        ("embed_tokens", "transformer.wte"),
        ("embed_positions", "transformer.wpe"),
        ("final_norm", "transformer.ln_f"),
    ),
    False: (
        ("layers.", "model.layers."),
        (".attention_norm", ".input_layernorm"),
        (".ffn_norm", ".post_attention_layernorm"),
        (".attention", ".self_attn"),
        (".ffn", ".mlp"),
        ("embed_tokens", "model.embed_tokens"),
        ("final_norm", "model.norm"),
    ),
}


def _names(path: Path, scanned: tuple[int, ...], gpt2: bool) -> tuple[tuple[str, ...], ...]:
    count = scanned[0] if scanned else 1
    return tuple(names_of(path, i if scanned else None, gpt2) for i in range(count))


def names_of(path: Path, number: int | None, gpt2: bool) -> tuple[str, str]:
    """Our name of a module and transformers'; `number` is its layer's, where layers are scanned."""
    ours = re.sub(r"\blayers_(\d+)", r"layers.\1", ".".join(path))
    if number is not None:
        ours = re.sub(r"\blayers\.(?!\d)", f"layers.{number}.", ours, count=1)
    theirs = ours
    for before, after in _THEIRS[gpt2]:
        theirs = theirs.replace(before, after)
    return ours, theirs


def fits(target: tuple[str, ...] | str, names: tuple[str, ...]) -> bool:
    if isinstance(target, str):
        return any(re.fullmatch(target, name) for name in names)
    return any(f".{name}".endswith(f".{end}") for name in names for end in target)


def adapted(
    config: LoraConfig, params: Mapping[str, Any]
) -> Iterator[tuple[Layer, int, np.ndarray]]:
    """The layers that have adapters, with rank and scale, float32 [scanned layers]."""
    known = list(layers(params))
    target = config.target_modules
    if target is None:
        target = ("qkv_proj",) if is_gpt2(params) else ("q_proj", "v_proj")
    if target == ALL_LINEAR:
        chosen = [x for x in known if x.path != ("lm_head",)]
    else:
        chosen = [x for x in known if _all("target_modules", x, lambda n: fits(target, n))]
        for one in [target] if isinstance(target, str) else [(end,) for end in target]:
            if not any(fits(one, names) for layer in known for names in layer.names):
                told = one if isinstance(one, str) else one[0]
                raise ConfigError(f"lora.target_modules: no layer fits {told!r}; {_told(known)}")
    saved = {path[:-1] for path in saved_paths(config, params)}
    unused = {*config.rank_pattern, *config.alpha_pattern}
    for layer in chosen:
        for part in layer.parts:
            require(
                part not in saved,
                f"lora.modules_to_save: {'.'.join(part)} has an adapter; expected one of the two",
            )
        ranks, scales = [], []
        for names in layer.names:
            rank, alpha = config.r, config.alpha
            for pattern in (x for x in config.rank_pattern if _ends(x, names)):
                rank = config.rank_pattern[pattern]
                unused.discard(pattern)
                break
            for pattern in (x for x in config.alpha_pattern if _ends(x, names)):
                alpha = config.alpha_pattern[pattern]
                unused.discard(pattern)
                break
            ranks.append(rank)
            scales.append(alpha / (rank**0.5 if config.use_rslora else rank))
        if len(set(ranks)) > 1:
            raise _scanned("rank_pattern", layer)
        yield layer, ranks[0], np.array(scales, np.float32)
    if unused:
        raise ConfigError(
            f"lora: rank_pattern or alpha_pattern: no layer with an adapter fits "
            f"{min(unused)!r}; {_told(chosen)}"
        )


def _ends(pattern: str, names: tuple[str, ...]) -> bool:
    return any(re.match(rf"(.*\.)?({pattern})$", name) for name in names)


def _all(field: str, layer: Layer, holds: Any) -> bool:
    """Whether it holds for all scanned layers; `ConfigError` where it does for some."""
    found = {bool(holds(names)) for names in layer.names}
    if len(found) > 1:
        raise _scanned(field, layer)
    return found.pop()


def _scanned(field: str, layer: Layer) -> ConfigError:
    return ConfigError(
        f"lora.{field}: tells apart layers of {layer.names[0][0]}, but they are scanned, as one; "
        "expected the same for all, or parameters that `unstack_layers` has made"
    )


def _told(known: list[Layer]) -> str:
    """The layers that there are, each kind once."""
    kinds: dict[str, None] = {}
    for layer in known:
        ours, theirs = (name.rpartition(".")[2] for name in layer.names[0])
        kinds[ours if ours == theirs else f"{ours} ({theirs})"] = None
    return f"there are {', '.join(kinds)}"


def saved_paths(config: LoraConfig, params: Mapping[str, Any]) -> set[Path]:
    """Paths of the parameters in modules that are saved as a whole."""
    gpt2 = is_gpt2(params)
    found = set()
    for name in config.modules_to_save:
        modules = [
            (path, node)
            for path, node in _modules(params)
            if fits((name,), names_of(path, None, gpt2))
        ]
        if not modules:
            known = sorted({path[-1] for path, _ in _modules(params)})
            raise ConfigError(
                f"lora.modules_to_save: no module fits {name!r}; there are {', '.join(known)}"
            )
        for path, node in modules:
            found |= {(*path, *inner) for inner in traverse_util.flatten_dict(node)}
    return found


def _trained(config: LoraConfig, params: Mapping[str, Any]) -> list[Path]:
    """Paths of the model's own parameters that are trained."""
    found = saved_paths(config, params)
    if config.bias == "all":
        found |= {path for path in traverse_util.flatten_dict(params) if path[-1] == "bias"}
    elif config.bias == "lora_only":
        parts = [part for layer, *_ in adapted(config, params) for part in layer.parts]
        found |= {(*part, "bias") for part in parts if "bias" in _get(params, part)}
    return sorted(found)


def _own(
    config: LoraConfig, params: Mapping[str, Any], adapters: Mapping[str, Any]
) -> dict[Path, Any]:
    """The model's own parameters as they are in the adapters."""
    found = dict(traverse_util.flatten_dict(adapters["params"]))
    if wrong := found.keys() ^ set(_trained(config, params)):
        raise ConfigError(
            f"lora: the adapters do not fit bias or modules_to_save at {'.'.join(min(wrong))}"
        )
    return found


def _get(tree: Mapping[str, Any], path: Path) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _parts(
    config: LoraConfig, params: Mapping[str, Any], adapters: Mapping[str, Any]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Paths of the layers with adapters, and what is added to each: a, b, scale, magnitude."""
    given = traverse_util.flatten_dict(adapters["lora"])
    known = set()
    for layer, rank, scale in adapted(config, params):
        leaves = {n: given.get((*layer.path, n)) for n in ("a", "b", "magnitude")}
        known |= {(*layer.path, name) for name in ("a", "b", *["magnitude"] * config.use_dora)}
        if not known <= given.keys() or leaves["a"].shape[-1] != rank:
            raise ConfigError(
                f"lora: the adapters do not fit the configuration: at {'.'.join(layer.path)} "
                f"expected rank {rank}{', with magnitudes' * config.use_dora}"
            )
        sizes = [_get(params, part)["kernel"].shape[-1] for part in layer.parts]
        ends = np.cumsum(sizes)[:-1].tolist()
        for number, part in enumerate(layer.parts):
            divided = {
                name: jnp.split(leaves[name], ends, axis=-1)[number]
                for name in ("b", "magnitude")
                if leaves[name] is not None
            }
            yield part, {"a": leaves["a"], "scale": scale, **divided}
    if others := given.keys() - known:
        other = ".".join(min(others))
        raise ConfigError(f"lora: the adapters do not fit the configuration: unexpected: {other}")


def _gain(kernel: Float[Array, "*N D O"], leaves: Mapping[str, Any]) -> Float[Array, "*N O"]:
    """Magnitudes over lengths of the columns of W + scale · a b; no gradient goes through those.

    |w + s a b|² is |w|² + 2 s b·(aᵀ w) + s² b·(aᵀ a) b, for which a b need not be made.
    """
    scale = jnp.asarray(leaves["scale"]).reshape(*kernel.shape[:-2], 1)
    a, b = (jax.lax.stop_gradient(leaves[name]) for name in ("a", "b"))
    crossed = jnp.einsum("...dr,...do->...ro", a, kernel)
    inner = jnp.einsum("...dr,...ds->...rs", a, a)
    more = 2 * scale * jnp.sum(b * crossed, axis=-2)
    more += scale**2 * jnp.sum(b * jnp.einsum("...rs,...so->...ro", inner, b), axis=-2)
    return leaves["magnitude"] / jnp.sqrt(jnp.sum(jnp.square(kernel), axis=-2) + more)


def _merged_kernel(
    kernel: Float[Array, "*N D O"], leaves: Mapping[str, Any]
) -> Float[Array, "*N D O"]:
    scale = jnp.asarray(leaves["scale"]).reshape(*kernel.shape[:-2], 1, 1)
    kernel = kernel + scale * jnp.matmul(leaves["a"], leaves["b"], precision="highest")
    if "magnitude" not in leaves:
        return kernel
    gain = leaves["magnitude"] / jnp.linalg.norm(kernel, axis=-2)
    return kernel * gain[..., None, :]
