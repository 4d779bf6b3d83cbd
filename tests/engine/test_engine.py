"""The engine against plain recomputation: lengths, company, ends, threads."""

import asyncio
import dataclasses
import re
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hrm_jax.engine
from hrm_jax.data.text.tokenizers import BOS, EOS, PAD, PLAN, ByteTokenizer
from hrm_jax.engine import slots
from hrm_jax.engine.decoder import Decoder
from hrm_jax.engine.engine import Engine, Event, QueueFull, RequestError, Sampling
from hrm_jax.inference import engine as old_name
from hrm_jax.layers import lora
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.layers.packed import quantize
from hrm_jax.models.transformer import Transformer, TransformerConfig, stack_layers

LENGTH = 96
SUPPRESSED = (PAD, BOS, PLAN)
CONFIG = TransformerConfig(
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    ffn_size=48,
    max_length=LENGTH,
    positions="rotary",
    norm="rms",
    feed_forward="swiglu",
    bias=False,
    dropout=0.0,
    init_std=0.3,
)


def _decoder(**changes):
    config = dataclasses.replace(CONFIG, **changes)
    tokens = jnp.zeros((1, 2), jnp.int32)
    params = jax.jit(Transformer(config).init)(jax.random.key(0), tokens)["params"]
    return Decoder(config, params, ByteTokenizer(), suppressed=SUPPRESSED)


@pytest.fixture(scope="module")
def decoder():
    return _decoder()


@pytest.fixture(scope="module")
def engine(decoder):
    return Engine(decoder, slots=3, prefill_chunk=8)


@pytest.fixture(scope="module")
def recompute(decoder):
    """Logits of every next token of a sequence, without cache or batch."""
    model = Transformer(decoder.config)
    run = jax.jit(
        lambda tokens, added: model.apply({"params": decoder.params}, tokens, added=added)
    )

    def logits(tokens, added=None):
        row = np.zeros((1, LENGTH), np.int32)
        row[0, : len(tokens)] = tokens
        more = np.zeros((1, LENGTH, decoder.config.hidden_size), np.float32)
        if added is not None:
            more[0, : len(added)] = added
        return np.array(run(row, more)[0, : len(tokens)])

    return logits


def _greedy(recompute, tokens, count, added=None):
    tokens = list(tokens)
    for _ in range(count):
        last = recompute(tokens, added)[-1]
        last[list(SUPPRESSED)] = -np.inf
        tokens.append(int(last.argmax()))
    return tuple(tokens[-count:])


def _fed(prompt):
    return [BOS, *prompt.encode()]


GREEDY = {"temperature": 0, "ignore_eos": True}
# Chunks are of 8 tokens, or of 2; the last token of the prompt is not in a chunk.
PROMPTS = ["", "a", "abcdefg", "abcdefgh", "abcdefghi", "x" * 16, "y" * 40, "ñandú" * 11]


def test_mixed_lengths_are_as_one_by_one_and_as_recomputed(engine, recompute):
    together = engine.batch_generate(PROMPTS, max_new_tokens=12, **GREEDY)
    for prompt, found in zip(PROMPTS, together, strict=True):
        alone = engine.generate(prompt, max_new_tokens=12, **GREEDY)
        assert alone.tokens == found.tokens == _greedy(recompute, _fed(prompt), 12), prompt
        assert found.finish_reason == "length"
        assert found.prompt_tokens == len(_fed(prompt))
        assert found.text == ByteTokenizer().decode(found.tokens)


GPT2 = {"positions": "learned", "norm": "layer", "feed_forward": "gelu", "tie_head": True}
RLM = {"positions": "sinusoidal", "bias": True, "feed_forward": "relu", "num_kv_heads": 4}


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(("changes", "scanned"), [(GPT2, True), (RLM, False)], ids=["gpt2", "rlm"])
def test_other_models_up_to_their_last_position(changes, scanned, devices):
    decoder = dataclasses.replace(_decoder(max_length=40, **changes), devices=devices)
    if scanned:
        config = dataclasses.replace(decoder.config, scan_layers=True)
        decoder = dataclasses.replace(decoder, config=config, params=stack_layers(decoder.params))
    engine = Engine(decoder, slots=2, prefill_chunk=16)
    model = Transformer(decoder.config)
    run = jax.jit(lambda tokens: model.apply({"params": decoder.params}, tokens))
    for prompt in ("z" * 35, "qu"):  # the first one's last chunk begins before its place
        found = engine.generate(prompt, max_new_tokens=100, **GREEDY)
        assert len(found.tokens) == 40 - len(_fed(prompt))
        assert found.finish_reason == "length"
        whole = [*_fed(prompt), *found.tokens]
        logits = np.array(run(np.array([whole]))[0])
        logits[:, list(SUPPRESSED)] = -np.inf
        expected = logits.argmax(-1)[len(_fed(prompt)) - 1 : -1]
        np.testing.assert_array_equal(found.tokens, expected)
        guessing = Engine(decoder, slots=2, prefill_chunk=16, speculate=3)
        answer = guessing.generate(prompt, max_new_tokens=100, **GREEDY)
        assert answer.tokens == found.tokens[:-3]
        assert answer.finish_reason == "length"


MIXED = [
    ("one", Sampling(15, temperature=0.8, seed=1, ignore_eos=True)),
    ("a longer prompt, of three chunks", Sampling(9, top_k=5, seed=2, ignore_eos=True)),
    ("", Sampling(20, top_p=0.7, repetition_penalty=1.4, seed=3, ignore_eos=True)),
    ("greedy", Sampling(6, temperature=0, ignore_eos=True)),
    ("four " * 12, Sampling(11, temperature=1.5, min_p=0.05, seed=1, ignore_eos=True)),
]


@pytest.fixture(scope="module")
def alone(engine):
    return [engine.submit(prompt, sampling).result().tokens for prompt, sampling in MIXED]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_request_is_the_same_in_any_company(engine, alone, data):
    """Requests join at any time, in any order, and some are cancelled."""
    handles = []
    for which in data.draw(st.lists(st.integers(0, len(MIXED) - 1), min_size=1, max_size=7)):
        handles.append((which, engine.submit(*MIXED[which])))
        for _ in range(data.draw(st.integers(0, 3))):
            engine.step()
        if data.draw(st.integers(0, 4)) == 0:
            data.draw(st.sampled_from(handles))[1].cancel()
    for which, handle in handles:
        found = handle.result()
        if found.finish_reason == "cancelled":
            assert found.tokens == alone[which][: len(found.tokens)]
        else:
            assert found.tokens == alone[which]
    assert not engine.step()
    assert engine.stats.running == engine.stats.waiting == 0


def test_others_go_on_while_a_long_prompt_is_read(engine):
    short = engine.submit("s", Sampling(60, **GREEDY))
    engine.step()
    before = len(short._events)
    long = engine.submit("l" * 80, Sampling(2, **GREEDY))
    rounds = 0
    while long.times.first is None:
        engine.step()
        rounds += 1
    assert rounds >= 80 // 8
    assert len(short._events) - before >= rounds
    assert [short.result().finish_reason, long.result().finish_reason] == ["length"] * 2


def test_what_prompts_begin_with_is_read_once(decoder, recompute, monkeypatch):
    plain = Engine(decoder, slots=3, prefill_chunk=8, prefix_cache=0)
    engine = Engine(decoder, slots=3, prefill_chunk=8, prefix_cache=2)
    chunks = []
    prefill = decoder.programs.prefill
    monkeypatch.setattr(
        decoder.programs,
        "prefill",
        lambda caches, tokens, *rest: chunks.append(tokens.size) or prefill(caches, tokens, *rest),
    )
    system = "s" * 40  # with BOS, 41 tokens

    def ask(prompt):
        """Tokens that were known, and those in chunks that were read."""
        expected = _greedy(recompute, _fed(prompt), 10)
        assert plain.generate(prompt, max_new_tokens=10, **GREEDY).tokens == expected
        chunks.clear()
        found = engine.generate(prompt, max_new_tokens=10, **GREEDY)
        assert found.tokens == expected
        return found.cached_tokens, sum(chunks)

    assert ask(system + "abcdef") == (0, 48)
    assert ask(system + "xyz") == (41, 2)
    assert ask(system + "xyz") == (43, 0)  # the last token is in no chunk
    assert ask(system + "xyz, and so on") == (43, 12)
    assert ask("x" + system) == (0, 42)  # BOS alone is not worth it
    assert ask(system + "abcdef") == (41, 8)  # the first prompt is not kept any more
    assert ask("x" + system) == (0, 42)  # nor is this one, which was used least
    assert engine.stats.cached_tokens == 41 + 43 + 43 + 41
    together = [engine.submit(system + "abc", Sampling(4, **GREEDY)) for _ in range(3)]
    assert len({handle.result().tokens for handle in together}) == 1
    assert [handle.result().cached_tokens for handle in together] == [43, 43, 43]
    fresh = Engine(decoder, slots=8, prefill_chunk=8)
    prompts = [system + "abc", system + "d" * 20, "x" * 30, system + "e" * 9, "y" * 20]
    together = [fresh.submit(prompt, Sampling(4, **GREEDY)) for prompt in prompts]
    assert [handle.result().cached_tokens for handle in together] == [0, 41, 0, 41, 0]


def test_four_prompts_are_read_side_by_side(decoder, monkeypatch, recompute):
    read = []
    prefill = decoder.programs.prefill
    monkeypatch.setattr(
        decoder.programs,
        "prefill",
        lambda caches, tokens, starts, *rest: (
            read.append((tokens.shape, list(starts))) or prefill(caches, tokens, starts, *rest)
        ),
    )
    engine = Engine(decoder, slots=6, prefill_chunk=8)
    leaving = engine.submit("f" * 40, Sampling(5, **GREEDY))
    prompts = ["a" * 8, "b" * 19, "c" * 30, "d" * 9, "e" * 3]
    handles = [engine.submit(prompt, Sampling(5, **GREEDY)) for prompt in prompts]
    engine.step()
    assert read == [((4, 8), [0, 0, 0, 0])]
    assert engine._batch.entering
    leaving.cancel()
    for prompt, handle in zip(prompts, handles, strict=True):
        assert handle.result().tokens == _greedy(recompute, _fed(prompt), 5)
    assert leaving.result().finish_reason == "cancelled"
    assert {shape[0] for shape, _ in read} == {1, 4}


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 2), min_size=1, max_size=12),
    count=st.integers(1, 4),
)
def test_guesses_are_what_came_before(tokens, count):
    """Against a plain loop over all places."""
    history = np.full((2, 16), 2, np.int32)
    history[1, : len(tokens)] = tokens
    at = len(tokens) - 1

    def alike(place):
        back = 0
        while back < 3 and back <= place and tokens[place - back] == tokens[at - back]:
            back += 1
        return back

    found = [(alike(p), p <= at - count, p) for p in range(at) if alike(p)]
    guesses = slots._looked_up(jnp.asarray(history), jnp.array([3, at]), count)
    if found:
        best = max(found)[2]
        expected = history[1, best + 1 : best + 1 + count]
        np.testing.assert_array_equal(guesses[1], expected)


def test_guesses_change_no_answer(decoder, engine, alone):
    guessing = Engine(decoder, slots=3, prefill_chunk=8, speculate=3)
    handles = [guessing.submit(prompt, sampling) for prompt, sampling in MIXED]
    assert [handle.result().tokens for handle in handles] == alone
    assert guessing.stats.guessed_tokens < 10


def test_answers_that_repeat_something_are_guessed():
    calm = _decoder(init_std=0.02, tie_head=True)  # it says the last token again
    plain, guessing = (Engine(calm, slots=2, prefill_chunk=8, speculate=k) for k in (0, 3))
    options = {"max_new_tokens": 60, "logprobs": 3, **GREEDY}
    expected, found = (x.generate("abc", **options) for x in (plain, guessing))
    assert found.tokens == expected.tokens
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-4)
    assert [[t for t, _ in top] for top in found.top] == [[t for t, _ in x] for x in expected.top]
    assert 30 < guessing.stats.guessed_tokens <= 45  # of four tokens of a step three
    ended = guessing.generate("abc", **options, stop=("c" * 7,))  # within what is guessed
    assert ended.tokens == expected.tokens[:7]
    assert plain.stats.guessed_tokens == 0


def test_log_probabilities_are_those_of_the_model(engine, recompute):
    found = engine.generate(
        "probable", max_new_tokens=7, seed=4, temperature=2.0, logprobs=20, ignore_eos=True
    )
    whole = [*_fed("probable"), *found.tokens]
    logits = recompute(whole).astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for i, (token, logprob, top) in enumerate(
        zip(found.tokens, found.logprobs, found.top, strict=True)
    ):
        row = expected[len(_fed("probable")) - 1 + i]
        assert logprob == pytest.approx(row[token], abs=1e-4)
        assert [t for t, _ in top] == np.argsort(-row)[:20].tolist()
        np.testing.assert_allclose([p for _, p in top], np.sort(row)[::-1][:20], atol=1e-4)
        # What the twenty leave over is what the others have together.
        rest = np.log(np.exp(np.sort(row)[:-20]).sum())
        total = np.logaddexp.reduce([p for _, p in top] + [rest])
        assert total == pytest.approx(0, abs=1e-4)
    plain = engine.generate("probable", max_new_tokens=7, seed=4, temperature=2.0, ignore_eos=True)
    assert plain.tokens == found.tokens
    assert plain.top == ((),) * 7


@pytest.mark.parametrize("devices", [1, 2])
def test_added_embeddings_reach_their_positions_only(decoder, recompute, devices):
    plans = {
        "plan at the end": (4, [BOS, 65, 66, 67, PLAN]),
        "plan in front": (1, [BOS, PLAN, *b"a prompt of several chunks, which is read"]),
    }
    rng = np.random.default_rng(0)
    prepared = {}
    for name, (at, tokens) in plans.items():
        added = np.zeros((len(tokens), CONFIG.hidden_size), np.float32)
        added[at] = rng.normal(size=CONFIG.hidden_size)
        prepared[(BOS, *name.encode())] = tokens, added
    changes = {"prepare": lambda ids: prepared[tuple(ids)], "devices": devices}
    engine = Engine(dataclasses.replace(decoder, **changes), slots=2, prefill_chunk=8)
    for name, found in zip(
        plans, engine.batch_generate(list(plans), max_new_tokens=9, **GREEDY), strict=True
    ):
        tokens, added = prepared[(BOS, *name.encode())]
        assert found.tokens == _greedy(recompute, tokens, 9, added), name
        assert found.tokens != _greedy(recompute, tokens, 9), name
        assert found.prompt_tokens == len(tokens)
        again = engine.generate(name, max_new_tokens=9, **GREEDY)
        assert (again.tokens, again.cached_tokens) == (found.tokens, 0)  # tokens are not all


def test_an_end_token_ends_an_answer(engine, decoder):
    free = engine.generate("end", max_new_tokens=12, **GREEDY)
    token = free.tokens[4]
    found = engine.generate("end", max_new_tokens=12, stop_tokens=(token,), **GREEDY)
    count = free.tokens.index(token) + 1
    assert found.tokens == free.tokens[:count]
    assert found.finish_reason == "stop"
    assert found.text == ByteTokenizer().decode(free.tokens[: count - 1])

    head = np.array(decoder.params["lm_head"]["kernel"])
    head[:, EOS] = head[:, token]
    params = {**decoder.params, "lm_head": {"kernel": head}}
    ending = Engine(dataclasses.replace(decoder, params=params, suppressed=(*SUPPRESSED, token)))
    found = ending.generate("end", max_new_tokens=12, temperature=0)
    assert found.tokens == (*free.tokens[: count - 1], EOS)
    assert found.finish_reason == "stop"
    assert found.text == ByteTokenizer().decode(free.tokens[: count - 1])
    assert len(ending.generate("end", max_new_tokens=12, **GREEDY).tokens) == 12


def test_a_stop_text_ends_an_answer_and_is_no_part_of_it(decoder):
    """The model counts up: after each byte comes the next one."""
    engine = Engine(_counting(decoder), slots=2)
    alphabet = engine.generate("a", max_new_tokens=20, **GREEDY)
    assert alphabet.text == "bcdefghijklmnopqrstu"
    events = list(engine.submit("a", Sampling(20, stop=("hij", "x"), **GREEDY)))
    assert "".join(event.text for event in events) == "bcdefg"
    assert events[-1].finish_reason == "stop"
    assert len(events) == 9  # j was needed to know
    held = list(engine.submit("a", Sampling(20, stop=("hiz",), **GREEDY)))
    assert [event.text for event in held[6:9]] == ["", "", "hij"]
    cut = engine.generate("a", max_new_tokens=8, stop=("hijkl",), **GREEDY)
    assert (cut.text, cut.finish_reason) == ("bcdefghi", "length")


def _counting(decoder):
    """A model without layers' influence whose next byte is one more than the last."""
    params = jax.tree.map(np.array, decoder.params)
    for i in range(CONFIG.num_layers):
        for part in ("attention", "ffn"):
            for dense in params[f"layers_{i}"][part].values():
                dense["kernel"][:] = 0
    table = np.random.default_rng(0).normal(size=(260, CONFIG.hidden_size)).astype(np.float32)
    params["embed_tokens"]["embedding"] = table
    params["lm_head"]["kernel"] = np.roll(table, 1, axis=0).T
    return dataclasses.replace(decoder, params=params)


def test_characters_come_whole(engine):
    """Random bytes are rarely characters; what they are as a whole comes piece by piece."""
    handle = engine.submit("ñ", Sampling(60, seed=9, temperature=3.0, ignore_eos=True))
    events = list(handle)
    assert "".join(event.text for event in events) == ByteTokenizer().decode(
        event.token for event in events
    )


def test_prompts_that_cannot_be_served(engine):
    with pytest.raises(RequestError, match=r"at most 95 tokens.* got 96"):
        engine.submit("x" * 95)
    with pytest.raises(RequestError, match=r"prompt: expected tokens in \[0, 260\), got 260"):
        engine.submit([1, 260])
    with pytest.raises(RequestError, match="stop_tokens: expected tokens"):
        engine.submit("x", Sampling(stop_tokens=(-1,)))
    found = engine.generate("x" * 93, **GREEDY)
    assert (len(found.tokens), found.finish_reason) == (2, "length")


@pytest.mark.parametrize("token", [-1, 260, 2**70])
def test_what_is_no_token_of_the_model_is_refused_before_it_is_planned(decoder, token):
    def prepare(ids):
        raise AssertionError("a plan was made")

    engine = Engine(dataclasses.replace(decoder, prepare=prepare), slots=1)
    with pytest.raises(RequestError, match="prompt: expected tokens"):
        engine.submit([1, token])


class Around(ByteTokenizer):
    """As tokenizers of Hugging Face say it."""

    around = ((), (10,))
    eos_ids = (EOS, ord("q"))


def test_the_tokenizer_says_what_is_around_a_text_and_tokens_are_taken_as_they_are(decoder, engine):
    def fed(tokenizer, prompt):
        made = dataclasses.replace(decoder, tokenizer=tokenizer)
        vars(made)["programs"] = decoder.programs
        handle = Engine(made, slots=3, prefill_chunk=8).submit(prompt, Sampling(9, **GREEDY))
        return handle.prompt_tokens, handle.result().tokens

    assert fed(Around(), "abc") == fed(ByteTokenizer(), [*b"abc", 10])
    assert fed(ByteTokenizer(), "abc") == fed(Around(), [BOS, *b"abc"])
    assert fed(Around(), "abc")[0] == 4


def test_every_end_token_ends_an_answer(decoder, engine):
    free = engine.generate("end", max_new_tokens=12, **GREEDY)
    token = free.tokens[4]
    count = free.tokens.index(token) + 1

    class Ends(ByteTokenizer):
        eos_ids = (EOS, token)

    ending = Engine(dataclasses.replace(decoder, tokenizer=Ends()), slots=3, prefill_chunk=8)
    found = ending.generate("end", max_new_tokens=12, temperature=0)
    assert (found.tokens, found.finish_reason) == (free.tokens[:count], "stop")
    assert found.text == ByteTokenizer().decode(free.tokens[: count - 1])
    with pytest.raises(ValueError, match=f"suppressed: {token} is the tokenizer's end token"):
        dataclasses.replace(decoder, tokenizer=Ends(), suppressed=(token,))


def test_an_empty_prompt_needs_a_first_token(decoder):
    class NoBos(ByteTokenizer):
        bos_id = None

    engine = Engine(dataclasses.replace(decoder, tokenizer=NoBos()), slots=1)
    with pytest.raises(RequestError, match="prompt: empty"):
        engine.submit("")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slots", 0),
        ("max_length", LENGTH + 1),
        ("prefill_chunk", 0),
        ("max_queue", 0),
        ("prefix_cache", -1),
        ("speculate", -1),
        ("speculate", LENGTH + 1),
    ],
)
def test_bad_sizes_are_named(decoder, name, value):
    with pytest.raises(ValueError, match=f"{name}: expected at least [01].*got {value}"):
        Engine(decoder, **{name: value})


def test_devices_share_a_model_and_change_no_answer(decoder, alone):
    shared = dataclasses.replace(decoder, devices=2)
    engine = Engine(shared, slots=3, prefill_chunk=8)
    handles = [engine.submit(prompt, sampling) for prompt, sampling in MIXED]
    assert [handle.result().tokens for handle in handles] == alone
    guessing = Engine(shared, slots=3, prefill_chunk=8, speculate=2)
    handles = [guessing.submit(prompt, sampling) for prompt, sampling in MIXED]
    assert [handle.result().tokens for handle in handles] == alone
    programs, width = shared.programs, CONFIG.hidden_size

    def held(array):
        return {piece.data.shape for piece in array.addressable_shards}, len(array.devices())

    layer = programs._variables["params"]["layers_1"]
    assert held(layer["attention"]["q_proj"]["kernel"]) == ({(width, width // 2)}, 2)
    assert held(layer["attention"]["k_proj"]["kernel"]) == ({(width, width // 4)}, 2)
    assert held(layer["attention"]["o_proj"]["kernel"]) == ({(width // 2, width)}, 2)
    assert held(layer["ffn"]["down_proj"]["kernel"]) == ({(24, width)}, 2)
    assert held(layer["ffn_norm"]["scale"]) == ({(width,)}, 2)
    for key_or_value in jax.tree.leaves(engine._batch._rows.cache):
        (shape,), devices = held(key_or_value)
        assert shape[1] == CONFIG.key_heads // 2
        assert devices == 2
    # Behind attention and the feed-forward layer sums, which prefill does not want of the last one.
    sums = {"decode": 2 * CONFIG.num_layers, "prefill": 2 * CONFIG.num_layers - 2}
    kinds = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    for name, program in programs._ready.items():
        text, kind = program.as_text(), name.split()[0]
        found = [len(re.findall(rf" {kind}(-start)?\(", text)) for kind in kinds]
        assert found == [sums.get(kind, 0), int(kind == "decode"), 0, 0], name
        for line in re.findall(r"(\S+) all-gather\(", text):
            assert re.match(r"f32\[\d,\d,260\]", line), line  # logits, not the head's weights


def test_devices_share_what_prompts_begin_with_and_odd_models():
    changes = {"vocab_size": 261, "qk_norm": True, "attention_bias": "qkv", "sliding_window": 24}
    decoder = _decoder(feed_forward="geglu", **changes)
    engines = [
        Engine(dataclasses.replace(decoder, devices=n), slots=2, prefill_chunk=8) for n in (1, 2)
    ]
    for prompt in ("s" * 40 + "abc", "s" * 40 + "xyz", "s" * 40 + "xyz, and so on"):
        one, two = (engine.generate(prompt, max_new_tokens=20, **GREEDY) for engine in engines)
        assert two.tokens == one.tokens
        assert two.cached_tokens == one.cached_tokens
    assert engines[1].stats.cached_tokens > 80


@pytest.mark.parametrize(
    ("devices", "what"),
    [
        (0, "expected 1 to"),
        (1000, "expected 1 to .* as many as JAX has, got 1000"),
        (4, "4 do not divide the model's num_kv_heads 2"),
        (3, "3 do not divide the model's num_heads 4"),
    ],
)
def test_devices_that_cannot_share_a_model_are_refused(decoder, devices, what):
    with pytest.raises(ValueError, match=f"devices: {what}"):
        Engine(dataclasses.replace(decoder, devices=devices))


def test_packed_weights_are_not_divided(decoder):
    packed = quantize(decoder.params, "int8", jnp.float32)
    with pytest.raises(ValueError, match=r"devices: .*kernel.* is packed; expected 1"):
        Engine(dataclasses.replace(decoder, params=packed, devices=2))
    Engine(dataclasses.replace(decoder, params=packed)).generate("a", max_new_tokens=1)


def test_suppressed_tokens_must_exist_and_not_be_the_end(decoder):
    with pytest.raises(ValueError, match="suppressed: 258 is the tokenizer's end token"):
        dataclasses.replace(decoder, suppressed=(EOS,))
    with pytest.raises(ValueError, match=r"suppressed: expected tokens in \[0, 260\), got 300"):
        dataclasses.replace(decoder, suppressed=(300,))


def test_a_full_queue_refuses_and_cancelling_makes_room(decoder, engine):
    small = Engine(decoder, slots=1, max_queue=2, prefill_chunk=8)
    first = small.submit("first", Sampling(40, **GREEDY))
    small.step()
    waiting = [small.submit("next", Sampling(4, **GREEDY)) for _ in range(2)]
    with pytest.raises(QueueFull, match="2 requests wait already"):
        small.submit("too many")
    assert (small.stats.running, small.stats.waiting) == (1, 2)
    waiting[0].cancel()
    first.cancel()
    assert first.result().finish_reason == "cancelled"
    found = waiting[1].result()
    assert found.tokens == engine.generate("next", max_new_tokens=4, **GREEDY).tokens
    assert waiting[0].result().tokens == ()
    assert waiting[0].result().text == ""
    assert small.stats.finished == {"cancelled": 2, "length": 1}
    many = small.batch_generate(["many"] * 6, max_new_tokens=3, **GREEDY)
    assert len({answer.tokens for answer in many}) == 1


def test_programs_are_compiled_once_for_each_shape(decoder):
    engine = Engine(dataclasses.replace(decoder), slots=4, prefill_chunk=16)

    def serve(seed):
        prompts = ["p" * (17 * i % 80) for i in range(9)]
        return engine.batch_generate(prompts, max_new_tokens=10, seed=seed, logprobs=seed % 3)

    first = serve(0)
    compiled = engine.stats.compilations
    assert set(compiled.values()) == {1}
    assert {name.split()[0] for name in compiled} == {"decode", "fit", "join", "prefill", "widen"}
    for seed in range(1, 4):
        serve(seed)
    assert [found.tokens for found in serve(0)] == [found.tokens for found in first]
    again = engine.stats.compilations
    # Answers may be of other lengths and end elsewhere, but shapes are few.
    assert sum(name.startswith("decode") for name in again) <= 2 * 5
    assert engine.stats.generated_tokens > 5 * 9
    assert engine.stats.prompt_tokens == 5 * sum(1 + 17 * i % 80 for i in range(9))


def test_a_thread_serves_many_callers(decoder, alone):
    with Engine(decoder, slots=3, prefill_chunk=8) as engine:
        found = [None] * 10

        def call(i):
            found[i] = engine.submit(*MIXED[i % len(MIXED)]).result().tokens

        callers = [threading.Thread(target=call, args=(i,)) for i in range(len(found))]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert found == alone * 2
        times = engine.submit("t", Sampling(2)).result() and engine.stats
        assert 0 < times.queue_seconds <= times.first_token_seconds <= times.total_seconds

        async def both():
            async def read(which):
                handle = engine.submit(*MIXED[which])
                return tuple([event.token async for event in handle])

            return await asyncio.gather(*(read(i) for i in range(len(MIXED))))

        assert asyncio.run(both()) == alone
        left = engine.submit("left", Sampling(90, **GREEDY))
    assert left.result().finish_reason in ("cancelled", "length")
    with pytest.raises(RequestError, match="closing"):
        engine.submit("late")


def test_draining_serves_what_was_taken(decoder, alone):
    engine = Engine(decoder, slots=2, prefill_chunk=8)
    engine.start()
    handles = [engine.submit(*request) for request in MIXED]
    engine.close(drain=True)
    assert [handle.result().tokens for handle in handles] == alone


def test_leaving_a_stream_cancels_it(decoder):
    engine = Engine(decoder, slots=1)

    async def look():
        async for event in engine.stream("leave", max_new_tokens=100, **GREEDY):
            assert isinstance(event, Event)
            break

    asyncio.run(look())
    assert engine.generate("next", max_new_tokens=2, **GREEDY).finish_reason == "length"
    engine.close()
    assert engine.stats.finished == {"cancelled": 1, "length": 1}


def test_a_failure_reaches_the_callers_and_leaves_the_engine_usable(decoder, engine, monkeypatch):
    failing = Engine(decoder, slots=2, prefill_chunk=8)
    expected = failing.generate("again", max_new_tokens=3, **GREEDY)
    programs = failing.decoder.programs

    def broken(*args):
        raise MemoryError("no room")

    monkeypatch.setattr(programs, "decode", broken)
    handle = failing.submit("fails", Sampling(3))
    with pytest.raises(RuntimeError, match="the engine failed: no room"):
        handle.result()
    monkeypatch.undo()
    assert failing.generate("again", max_new_tokens=3, **GREEDY) == expected
    assert failing.stats.finished == {"length": 2, "error": 1}


def test_the_old_name_is_the_same_engine():
    assert old_name.Engine is hrm_jax.engine.Engine is Engine
    assert old_name.Sampling is hrm_jax.engine.Sampling is Sampling


def test_engines_of_one_decoder_share_what_is_compiled(decoder, engine):
    engine.generate("shared", max_new_tokens=2, **GREEDY)
    before = engine.stats.compilations
    other = Engine(decoder, slots=3, prefill_chunk=8)
    assert other.generate("shared", max_new_tokens=2, **GREEDY).tokens
    assert other.stats.compilations == before
    assert other.stats.finished == {"length": 1}


@pytest.mark.parametrize("devices", [1, 2])
def test_each_request_has_its_adapter(decoder, engine, devices):
    params, adapters = decoder.params, {}
    kinds = (
        LoraConfig(r=2, target_modules="all-linear"),
        LoraConfig(r=5, use_dora=True, use_rslora=True),
    )
    for number, kind in enumerate(kinds):
        fresh = lora.init(kind, params, jax.random.key(0))
        drawn = [
            x + jax.random.normal(jax.random.key(number), x.shape) / 2
            for x in jax.tree.leaves(fresh)
        ]
        adapters[f"of {kind.r}"] = (kind, jax.tree.unflatten(jax.tree.structure(fresh), drawn))
    adapting = dataclasses.replace(decoder, adapters=adapters, devices=devices)
    several = Engine(adapting, slots=4, prefill_chunk=8)
    prompts = [list(b"En un lugar de la Mancha"), list(b"de cuyo nombre")]
    names = [None, *adapters]
    handles = [
        several.submit(prompt, Sampling(temperature=0.0, max_new_tokens=12), name)
        for prompt in prompts
        for name in names
    ]
    answers = [handle.result().tokens for handle in handles]
    assert len(set(answers[:3])) == 3
    for name, of_name in zip(names, (answers[::3], answers[1::3], answers[2::3]), strict=True):
        merged = params if name is None else lora.merge(*_placed(adapters[name], params)).params
        alone = Engine(dataclasses.replace(decoder, params=merged), slots=2, prefill_chunk=8)
        for prompt, answer in zip(prompts, of_name, strict=True):
            assert alone.generate(prompt, temperature=0.0, max_new_tokens=12).tokens == answer
    with pytest.raises(RequestError, match=r"adapter: there is no 'x'; expected 'of 2', 'of 5'"):
        several.submit("a", adapter="x")
    with pytest.raises(RequestError, match="for there is no adapter"):
        engine.submit("a", adapter="x")


def _placed(adapter, params):
    config, adapters = adapter
    return config, params, adapters
