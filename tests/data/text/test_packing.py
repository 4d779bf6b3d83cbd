"""Templates and rows: what a model is shown, and which of its predictions count."""

import json

import numpy as np
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.data.text.instructions import Message, read_instructions
from hrm_jax.data.text.packing import Example, InstructionBatches, encode_instructions, rows_of
from hrm_jax.data.text.templates import Template, chat_template_of, instruction
from hrm_jax.data.text.tokenizers import BOS, EOS, ByteTokenizer, load_tokenizer
from hrm_jax.interop.hugging_face_tokenizers import write_tokenizer

BYTES = ByteTokenizer()
CHATML = (
    "{% for m in messages %}<|bos|>{{ m.role }}\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|bos|>assistant\n{% endif %}"
)


@pytest.fixture
def records(tmp_path):
    def make(*pairs):
        path = tmp_path / "a.jsonl"
        lines = [
            {"instruction": asked, "input": about, "output": answer}
            for asked, about, answer in pairs
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return read_instructions(str(path))

    return make


def test_the_spanish_template():
    template = Template("spanish", BYTES)
    asked = template.prompt(instruction("Suma.", "1 2"))
    text = "### Instrucción:\nSuma.\n\n### Entrada:\n1 2\n\n### Respuesta:\n"
    assert asked == [BOS, *text.encode()]
    assert template.answer("3") == [*b"3", EOS]
    assert template.prompt(instruction("Suma."))[1:] == [
        *"### Instrucción:\nSuma.\n\n### Respuesta:\n".encode()
    ]
    turns = (Message("system", "Sé breve."), Message("user", "Hola"), Message("assistant", "Sí"))
    text = BYTES.decode(template.prompt((*turns, Message("user", "¿Qué?"))))
    assert text.startswith("Sé breve.\n\n### Instrucción:\nHola\n\n### Respuesta:\nSí\n\n")
    assert template.prompt("como es") == [BOS, *b"como es"]


def test_a_model_s_own_template(tmp_path):
    write_tokenizer(tmp_path, "bytes")
    folder = str(tmp_path)
    assert chat_template_of(folder) == chat_template_of("bytes") == ""
    with pytest.raises(DataError, match="'chat', but the model has no chat template"):
        Template("chat", load_tokenizer(folder))
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    named = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "x"}]
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({**settings, "chat_template": named})
    )
    template = Template("chat", load_tokenizer(folder), chat_template_of(folder))
    expected = [BOS, *b"user\nSuma.\n\n1 2\n", BOS, *b"assistant\n"]
    assert template.prompt(instruction("Suma.", "1 2")) == expected
    short = template.shortened(instruction("Suma.", "1 2"), len(expected) - 2)
    assert short == [BOS, *b"user\nSuma.\n\n1", *expected[-12:]][-len(short) :]
    settings["chat_template"] = 3
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="chat_template: expected a text"):
        chat_template_of(folder)
    (tmp_path / "chat_template.jinja").write_text("{{ 3 }}")
    assert chat_template_of(folder) == "{{ 3 }}"


def test_truncation_keeps_the_answer_and_is_counted(records, caplog):
    template = Template("spanish", BYTES)
    found = records(("Lee.", "x" * 90 + "fin", "sí"), ("Corta.", "", "no"), ("Di.", "", "z" * 200))
    full = len(template.prompt(found.records[0].prompt)) + 4
    encoded = encode_instructions(found, template, full - 10)
    assert (encoded.truncated, encoded.left_out) == (1, 1)
    prompt, answer = encoded.examples[0]
    assert BYTES.decode(prompt).endswith("### Entrada:\n" + "x" * 83 + "\n\n### Respuesta:\n")
    assert answer == [*"sí".encode(), EOS]
    assert len(prompt) + len(answer) == full - 10
    assert "their prompts are shortened" in caplog.text
    assert "a.jsonl:3" in caplog.text
    assert encode_instructions(found, template, full - 10, "drop").left_out == 2
    with pytest.raises(DataError, match=r"2 of 3 records have more than .*a\.jsonl:1"):
        encode_instructions(found, template, full - 10, "refuse")
    with pytest.raises(DataError, match=r"3 of 3 records"):
        encode_instructions(found, template, 8)


def test_what_counts_follows_from_lengths():
    examples = [Example([1, 2, 3], [4, 0]), Example([5], [6, 7, 0]), Example([8, 9], [0])]
    rows = rows_of(examples, 8, pad=0)  # the end token is PAD
    assert rows.tokens.tolist() == [[1, 2, 3, 4, 0, 8, 9, 0], [5, 6, 7, 0, 0, 0, 0, 0]]
    assert rows.segments.tolist() == [[1, 1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 0, 0, 0, 0]]
    assert rows.counted.astype(int).tolist() == [[0, 0, 0, 1, 1, 0, 0, 1], [0, 1, 1, 1, 0, 0, 0, 0]]
    alone = rows_of(examples, 8, pad=0, pack=False)
    assert len(alone) == 3
    assert alone.counted.sum() == rows.counted.sum() == 6
    assert alone.tokens[2].tolist() == [8, 9, 0, 0, 0, 0, 0, 0]


def test_nothing_is_lost_in_rows():
    random = np.random.default_rng(0)
    sizes = random.integers(2, 60, 200)
    examples = [Example([int(i)] * int(n - 1), [int(i)]) for i, n in enumerate(sizes)]
    rows = rows_of(examples, 64, pad=999)
    assert (rows.segments > 0).mean() > 0.95
    assert np.bincount(rows.tokens[rows.segments > 0], minlength=200).tolist() == sizes.tolist()
    batches = InstructionBatches(rows, 7, 4, 0)
    batch = batches[3]
    assert batch["tokens"].shape == (4, 64)
    assert batch["steps"].tolist() == [7] * 4
