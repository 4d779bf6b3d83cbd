"""Text to tokens and back, all at once and token by token."""

import itertools
import json
import random
import re
import shutil
import sys

import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.data.text.tokenizer_files import copy_tokenizer
from hrm_jax.data.text.tokenizers import (
    BOS,
    EOS,
    PAD,
    PLAN,
    ByteTokenizer,
    PretrainedTokenizer,
    around,
    end_ids,
    load_tokenizer,
    prompt_tokens,
    suppressed_tokens,
)

TEXTS = ["", "mañana", "¿Qué?\r\n\t—Sí…", "e\u0301", "日本 😀 👩‍👩‍👧", "\0\x7f", "  dos  espacios "]


def test_constants():
    tokenizer = load_tokenizer("bytes")
    assert (PAD, BOS, EOS, PLAN) == (256, 257, 258, 259)
    assert tokenizer.vocab_size == 260
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (PAD, BOS, EOS)


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_are_utf8_and_come_back(text):
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert bytes(ids) == text.encode()
    assert tokenizer.decode(ids) == text


def test_special_tokens_have_no_text():
    ids = [BOS, *b"s", EOS, 0xC3, PAD, 0xAD, PLAN]
    assert ByteTokenizer().decode(ids) == "sí"


def test_lone_surrogates_become_the_replacement_character():
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode("a\ud83dz😀")) == "a\ufffdz😀"


def test_invalid_bytes_become_the_replacement_character():
    assert ByteTokenizer().decode([0x61, 0xFF, 0x62, 0xE2, 0x82]) == "a\ufffdb\ufffd"


def _pieces(tokenizer, ids):
    stream = tokenizer.stream()
    return [stream.feed([i]) for i in ids] + [stream.finish()]


def test_a_stream_waits_for_the_whole_character():
    assert _pieces(ByteTokenizer(), [*"aí€😀".encode()]) == [
        "a", "", "í", "", "", "€", "", "", "", "😀", "",
    ]  # fmt: skip
    assert _pieces(ByteTokenizer(), [0x61, 0xE2, 0x82]) == ["a", "", "", "\ufffd"]


def test_a_stream_says_in_all_what_decode_says():
    tokenizer, draw = ByteTokenizer(), random.Random(0)
    for _ in range(200):
        ids = [draw.randrange(260) for _ in range(20)] + tokenizer.encode("ñ€😀")[
            : draw.randrange(9)
        ]
        stream, pieces, rest = tokenizer.stream(), [], ids
        while rest:
            n = draw.randrange(1, 4)
            pieces.append(stream.feed(rest[:n]))
            rest = rest[n:]
        assert "".join([*pieces, stream.finish()]) == tokenizer.decode(ids)


SAMPLE = ["El ingenioso hidalgo don Quijote de la Mancha, ¿qué?", "mañana será otro día 😀"] * 4


def _byte_level(package):
    inner = package.Tokenizer(package.models.BPE())
    inner.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = package.decoders.ByteLevel()
    trainer = package.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=package.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(SAMPLE, trainer)
    return inner


def _sentencepiece_like(package):
    """As Llama's: ▁ for spaces, bytes as <0x..> for what is not in the vocabulary."""
    byte_tokens = [f"<0x{i:02X}>" for i in range(256)]
    words = ["▁", *"abcdefghijklmnopqrstuvwxyz", "▁a", "▁d", "▁de", "▁do", "▁don", "ho", "la"]
    words += ["▁h", "▁ho", "▁hola"]
    vocab = {w: i for i, w in enumerate(["<unk>", "<s>", "</s>", *byte_tokens, *words])}
    merges = [("▁", "a"), ("▁", "d"), ("▁d", "e"), ("▁d", "o"), ("▁do", "n"), ("h", "o")]
    merges += [("l", "a"), ("▁", "h"), ("▁", "ho"), ("▁ho", "la")]
    inner = package.Tokenizer(
        package.models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    inner.normalizer = package.normalizers.Sequence(
        [package.normalizers.Prepend("▁"), package.normalizers.Replace(" ", "▁")]
    )
    inner.decoder = package.decoders.Sequence(
        [
            package.decoders.Replace("▁", " "),
            package.decoders.ByteFallback(),
            package.decoders.Fuse(),
            package.decoders.Strip(" ", 1, 0),
        ]
    )
    inner.add_special_tokens(["<unk>", "<s>", "</s>"])
    return inner


@pytest.fixture(scope="module", params=[_byte_level, _sentencepiece_like])
def folder(request, tmp_path_factory):
    package = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("tokenizer")
    inner = request.param(package)
    inner.enable_truncation(3)
    inner.save(str(folder / "tokenizer.json"))
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_a_pretrained_tokenizer_gives_text_back(folder):
    tokenizer = load_tokenizer(str(folder / "tokenizer.json"))
    assert tokenizer.decode([tokenizer.bos_id, tokenizer.eos_id]) == ""
    assert tokenizer.pad_id is None
    for text in [*TEXTS, *SAMPLE, "de donde hola </s> don <s>"]:
        ids = tokenizer.encode(text)
        assert max(ids, default=0) < tokenizer.vocab_size
        assert not {tokenizer.bos_id, tokenizer.eos_id} & set(ids)
        assert tokenizer.decode(ids) == text


def test_a_pretrained_stream_never_emits_half_a_character(folder):
    tokenizer = PretrainedTokenizer(folder)
    for text in [*TEXTS, *SAMPLE]:
        ids = tokenizer.encode(text)
        pieces = _pieces(tokenizer, [tokenizer.bos_id, *ids, tokenizer.eos_id])
        assert "".join(pieces) == text
        assert "\ufffd" not in "".join(pieces)
        ends = set(itertools.accumulate(map(len, pieces)))
        assert len(ends) > len(text.split())  # it does not wait for the end
    special = [*tokenizer.encode("hola"), tokenizer.eos_id, *tokenizer.encode("don")]
    assert "".join(_pieces(tokenizer, special)) == tokenizer.decode(special)


def test_bytes_that_never_become_a_character_are_let_go(folder):
    tokenizer = PretrainedTokenizer(folder)
    half = tokenizer.encode("字")[-1]
    pieces = _pieces(tokenizer, [half] * 100)
    assert "".join(pieces[:-1])
    assert set("".join(pieces)) == {"\ufffd"}


def test_special_tokens_must_be_known(folder, tmp_path):
    shutil.copy(folder / "tokenizer.json", tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<x>"}')
    with pytest.raises(DataError, match=r"tokenizer\.json: eos_token '<x>' is not in the voc"):
        PretrainedTokenizer(tmp_path)


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory):
    """Makes the folder of a byte-level tokenizer with two markers: (post-processor, settings)."""
    package = pytest.importorskip("tokenizers")

    def make(around=None, **settings):
        folder = tmp_path_factory.mktemp("chat")
        inner = _byte_level(package)
        inner.add_special_tokens(["<|im_start|>", "<|im_end|>"])
        if around:
            inner.post_processor = package.processors.TemplateProcessing(
                single=around, special_tokens=[("<s>", 0), ("</s>", 1)]
            )
        inner.save(str(folder / "tokenizer.json"))
        settings = {"bos_token": "<s>", "eos_token": "</s>", **settings}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return folder

    return make


MARKED = "<|im_start|>user\nhola<|im_end|>\n</s>"


def test_special_tokens_are_read_where_that_is_asked_for(chat_folder):
    transformers = pytest.importorskip("transformers")
    folder = chat_folder()
    ours, theirs = PretrainedTokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    expected = theirs(MARKED, add_special_tokens=False).input_ids
    assert ours.encode(MARKED, special=True) == expected
    assert ours.special["<|im_start|>"] == expected[0]
    assert prompt_tokens(ours, MARKED, special=True) == expected
    assert prompt_tokens(ByteTokenizer(), "</s>", special=True) == [BOS, *b"</s>"]
    plain = ours.encode(MARKED)
    assert not set(plain) & set(ours.special.values())
    assert ours.decode(plain) == MARKED
    parts = [("<|im_start|>", True), ("<|im_end|> </s>", False), ("<|im_end|>", True)]
    start, *typed, end = ours.encode_parts(parts)
    assert [start, end] == [ours.special[x] for x in ("<|im_start|>", "<|im_end|>")]
    assert typed == ours.encode("<|im_end|> </s>")
    assert ours.encode_parts([("<|im_", True), ("end|>", True)]) == ours.encode("<|im_end|>")


def test_pieces_of_the_model_that_are_special_stay_text(tmp_path):
    package = pytest.importorskip("tokenizers")
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((x, -2.0) for x in "a</s>")]
    inner = package.Tokenizer(package.models.Unigram(pieces, unk_id=0))
    inner.add_special_tokens(["<unk>", "</s>"])
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer = PretrainedTokenizer(tmp_path)
    assert tokenizer.encode("a</s>z") == [2, 3, 4, 5, 6, 0]
    assert tokenizer.encode("a</s>z", special=True) == [2, 1, 0]


@pytest.mark.parametrize("around_text", [None, "<s> $A", "<s> $A </s>"])
@pytest.mark.parametrize("asked", [None, False])
def test_what_is_put_around_a_text_is_as_transformers_has_it(chat_folder, around_text, asked):
    transformers = pytest.importorskip("transformers")
    settings = {} if asked is None else {"add_bos_token": asked}
    folder = chat_folder(around_text, tokenizer_class="GPT2Tokenizer", **settings)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert prompt_tokens(PretrainedTokenizer(folder), "hola") == theirs("hola").input_ids


def test_settings_may_ask_for_a_beginning_that_the_file_does_not_have(chat_folder):
    assert around(PretrainedTokenizer(chat_folder(add_bos_token=True))) == ((0,), ())
    assert around(PretrainedTokenizer(chat_folder(), always_begin=True)) == ((0,), ())
    assert around(ByteTokenizer()) == ((BOS,), ())


def test_several_end_tokens(chat_folder, caplog):
    folder = chat_folder()
    names = ("</s>", "<|im_end|>")
    first, second = (PretrainedTokenizer(folder).special[name] for name in names)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": [second, first]}))
    assert end_ids(PretrainedTokenizer(folder)) == (first, second)
    copy_tokenizer(folder, folder / "copy")
    assert end_ids(load_tokenizer(str(folder / "copy"))) == (first, second)
    ends = {"eos_token_id": second, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(ends))
    tokenizer = PretrainedTokenizer(folder)
    assert end_ids(tokenizer) == (first, second)
    tokenizer.pad_id = second  # as Qwen's: it ends an answer and must not be suppressed
    assert suppressed_tokens(tokenizer) == (0,)
    (folder / "generation_config.json").write_text('{"eos_token_id": [50256]}')
    assert end_ids(PretrainedTokenizer(folder)) == (first,)
    assert "eos_token_id [50256] the tokenizer has none" in caplog.text
    for bad in ('"</s>"', "[1.0]", "true", '{"a": 1}'):
        (folder / "generation_config.json").write_text(f'{{"eos_token_id": {bad}}}')
        with pytest.raises(DataError, match=r"generation_config\.json: eos_token_id is"):
            PretrainedTokenizer(folder)


@pytest.mark.parametrize("ids", [[-1], [1.5], ["a"], [None]])
def test_what_is_no_token_is_named(folder, ids):
    for tokenizer in (ByteTokenizer(), PretrainedTokenizer(folder)):
        with pytest.raises(ValueError, match="expected tokens, "):
            tokenizer.decode(ids)
        with pytest.raises(ValueError, match="expected tokens, "):
            tokenizer.stream().feed(ids)
        assert tokenizer.decode([10**6, 2**70]) == ""


def test_a_regular_expression_without_end_is_named(tmp_path, capfd):
    package = pytest.importorskip("tokenizers")
    inner = package.Tokenizer(package.models.BPE({"a": 0, "b": 1}, []))
    endless = package.Regex("(a+)+$")
    inner.pre_tokenizer = package.pre_tokenizers.Split(endless, "isolated")
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer = PretrainedTokenizer(tmp_path)
    with pytest.raises(DataError, match=r"tokenizer\.json: the tokenizer fails on a text: .*limit"):
        tokenizer.encode("a" * 40 + "b")
    assert tokenizer.encode("aab") == [0, 0, 1]


def test_other_forms_are_told_how_to_become_a_tokenizer(folder, tmp_path):
    package = pytest.importorskip("tokenizers")
    made = tmp_path / "made"
    made.mkdir()
    inner = package.ByteLevelBPETokenizer()
    inner.train_from_iterator(SAMPLE, vocab_size=300, show_progress=False)
    inner.save_model(str(made))
    for path in (made, made / "vocab.json"):
        with pytest.raises(DataError, match=r"expected a tokenizer\.json; it can be") as found:
            PretrainedTokenizer(path)
    command = re.search(r'-c "(.*)"', str(found.value))[1]
    exec(command, {})  # as the user would
    assert PretrainedTokenizer(made).encode("hola") == inner.encode("hola").ids
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(DataError, match=r"of tokenizer\.model by .*import AutoTokenizer"):
        PretrainedTokenizer(tmp_path)


def test_files_that_are_no_tokenizer_are_named(tmp_path):
    pytest.importorskip("tokenizers")
    with pytest.raises(DataError, match=r"tokenizer\.json: there is no such file"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "1: not valid JSON"),
        (b"[]", " expected a JSON object, got list"),
        (b"\xff", " not UTF-8"),
        (b"[" * 100_000, r" damaged, .*RecursionError.*; expected a JSON object"),
        (b'{"eos_token": 3}', " eos_token is 3, expected a token's name"),
    ],
)
def test_a_broken_file_beside_a_tokenizer_is_named(folder, tmp_path, content, message):
    shutil.copy(folder / "tokenizer.json", tmp_path)
    (tmp_path / "special_tokens_map.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"special_tokens_map\.json:{message}"):
        load_tokenizer(str(tmp_path))


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'hrm_jax\[hf\]'"):
        load_tokenizer(str(tmp_path))
