"""Variables under the references' names."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.interop.hrm_names import from_reference, to_reference
from hrm_jax.interop.reference_config import from_reference_config


@pytest.mark.parametrize("kind", ["small_config", "plain_config"])
def test_round_trip_is_exact(kind, request, make_variables, assert_same):
    config = request.getfixturevalue(kind)
    variables = make_variables(config)
    assert_same(from_reference(to_reference(variables), config), variables)


def test_names_and_shapes_are_the_references(parity_state_dict, parity_config, make_variables):
    config = from_reference_config(parity_config)
    ours = to_reference(make_variables(config))
    assert {k: v.shape for k, v in ours.items()} == {
        k: v.shape for k, v in parity_state_dict.items()
    }
    assert all(v.flags.c_contiguous and v.dtype == np.float32 for v in ours.values())


def test_learned_positions_and_no_table(small_config, plain_config, make_variables):
    learned, plain = (to_reference(make_variables(c)) for c in (small_config, plain_config))
    assert learned["model.inner.embed_pos.embedding_weight"].shape == (2 + 5, 8)
    assert learned["model.inner.puzzle_emb.weights"].shape == (3, 12)
    assert not any("embed_pos" in name or "puzzle_emb" in name for name in plain)


def test_linear_weights_are_transposed_and_others_not(parity_state_dict, parity_config):
    variables = from_reference(parity_state_dict, from_reference_config(parity_config))
    theirs = parity_state_dict
    block = "model.inner.L_level.layers.1.mlp.down_proj.weight"
    np.testing.assert_array_equal(
        variables["params"]["L_level"]["layers_1"]["mlp"]["down_proj"]["kernel"], theirs[block].T
    )
    np.testing.assert_array_equal(
        variables["params"]["embed_tokens"]["embedding"],
        theirs["model.inner.embed_tokens.embedding_weight"],
    )
    np.testing.assert_array_equal(variables["constants"]["L_init"], theirs["model.inner.L_init"])
    assert not np.array_equal(variables["constants"]["L_init"], variables["constants"]["H_init"])


@pytest.mark.parametrize("prefix", ["_orig_mod.model.inner.", "inner.", "_orig_mod.inner.", ""])
def test_any_prefix_is_accepted(prefix, small_config, make_variables, assert_same):
    variables = make_variables(small_config)
    tensors = {
        name.replace("model.inner.", prefix): array
        for name, array in to_reference(variables).items()
    }
    assert_same(from_reference(tensors, small_config), variables)


def test_the_same_tensor_twice_is_refused(small_config, make_variables):
    tensors = to_reference(make_variables(small_config))
    tensors["_orig_mod.model.inner.H_init"] = tensors["model.inner.H_init"]
    with pytest.raises(ConfigError, match="same tensor"):
        from_reference(tensors, small_config)


def test_what_is_not_learnt_is_ignored(small_config, make_variables, assert_same):
    variables = make_variables(small_config)
    tensors = to_reference(variables)
    for name in ("puzzle_emb.local_weights", "puzzle_emb.local_ids", "rotary_emb.cos_cached"):
        tensors[f"model.inner.{name}"] = np.zeros((4, 4))
    assert_same(from_reference(tensors, small_config), variables)


def test_half_precision_is_widened(small_config, make_variables):
    torch = pytest.importorskip("torch")
    tensors = to_reference(make_variables(small_config))
    rounded = {k: v.astype(ml_dtypes.bfloat16) for k, v in tensors.items()}
    in_torch = {k: torch.from_numpy(v).bfloat16().requires_grad_() for k, v in tensors.items()}
    for given in (rounded, in_torch):
        variables = from_reference(given, small_config)
        for name, array in to_reference(variables).items():
            np.testing.assert_array_equal(array, rounded[name].astype(np.float32))


def test_all_problems_are_listed_at_once(small_config, make_variables):
    tensors = to_reference(make_variables(small_config))
    del tensors["model.inner.q_head.bias"], tensors["model.inner.H_init"]
    tensors["model.inner.extra.weight"] = np.zeros((2, 3), np.float32)
    lm_head, embedding = "model.inner.lm_head.weight", "model.inner.embed_tokens.embedding_weight"
    tensors[lm_head] = tensors[lm_head].T
    tensors[embedding] = tensors[embedding].astype(np.int64)
    with pytest.raises(ConfigError) as caught:
        from_reference(tensors, small_config)
    for part in (
        "missing: model.inner.q_head.bias [2]",
        "missing: model.inner.H_init [8]",
        "unexpected: model.inner.extra.weight [2, 3]",
        "wrong shape: model.inner.lm_head.weight: expected [7, 8], found [8, 7]",
        "wrong dtype: model.inner.embed_tokens.embedding_weight is int64",
    ):
        assert part in str(caught.value)
    assert str(caught.value).count("\n") == 5


def test_a_deeper_configuration_lists_the_missing_layers(small_config, make_variables):
    tensors = to_reference(make_variables(small_config))
    deeper = dataclasses.replace(small_config, H_layers=3)
    with pytest.raises(ConfigError, match=r"missing: model\.inner\.H_level\.layers\.2\.mlp"):
        from_reference(tensors, deeper)


class TestPuzzleTable:
    @pytest.fixture
    def tensors(self, small_config, make_variables):
        return to_reference(make_variables(small_config))

    @pytest.mark.parametrize("rows", [2, 5])
    def test_other_rows_are_refused_with_a_hint(self, rows, small_config, tensors):
        config = dataclasses.replace(small_config, num_puzzle_identifiers=rows)
        with pytest.raises(ConfigError, match=r"3 puzzle identifiers.*reset_puzzle_table=True"):
            from_reference(tensors, config)

    @pytest.mark.parametrize("rows", [2, 5])
    def test_reset_takes_the_mean_row(self, rows, small_config, tensors):
        config = dataclasses.replace(small_config, num_puzzle_identifiers=rows)
        variables = from_reference(tensors, config, reset_puzzle_table=True)
        table = np.asarray(variables["tables"]["puzzle_emb"])
        mean = tensors["model.inner.puzzle_emb.weights"].mean(axis=0)
        assert table.shape == (rows, 12)
        np.testing.assert_allclose(table, np.tile(mean, (rows, 1)), rtol=1e-5, atol=1e-7)

    def test_reset_keeps_a_table_that_fits(self, small_config, tensors):
        variables = from_reference(tensors, small_config, reset_puzzle_table=True)
        np.testing.assert_array_equal(
            variables["tables"]["puzzle_emb"], tensors["model.inner.puzzle_emb.weights"]
        )

    def test_reset_does_not_excuse_another_width(self, small_config, tensors):
        tensors["model.inner.puzzle_emb.weights"] = np.zeros((5, 4), np.float32)
        with pytest.raises(ConfigError, match=r"expected \[3, 12\], found \[5, 4\]"):
            from_reference(tensors, small_config, reset_puzzle_table=True)
