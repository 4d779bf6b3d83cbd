"""Records of instructions: what is read, what is refused and where, and what is kept apart."""

import gzip
import json

import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.data.text.instructions import Message, read_instructions, split_instructions


def _write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def _record(number=0, **more):
    return {"instruction": f"¿Qué es {number}?", "output": f"Un número: {number}.", **more}


def _chat(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


TURNS = _chat(("system", "Sé breve."), ("user", "Hola"), ("assistant", "Buenas."))


def test_three_layouts(tmp_path):
    path = _write(
        tmp_path / "a.jsonl",
        {**_record(1), "input": "uno", "id": "x_1", "branch": "x", "quality_score": 1.0},
        {"messages": TURNS},
        {"prompt": " dos\r\n", "completion": " tres "},
        {"prompt": TURNS[:2], "completion": TURNS[2:]},
    )
    found = read_instructions(path)
    first, second, third = found.records  # the last two chats are the same
    assert first.prompt == (Message("user", "¿Qué es 1?", "uno"),)
    assert (first.answer, first.where, first.branch) == ("Un número: 1.", f"{path}:1", "x")
    assert second.prompt == (Message("system", "Sé breve."), Message("user", "Hola"))
    assert (third.prompt, third.answer) == (" dos\r\n", " tres ")  # as they are
    assert found.rows == 4


def test_copies_count_once_whatever_file_they_are_in(tmp_path):
    _write(tmp_path / "train.jsonl", *map(_record, range(3)))
    with gzip.open(tmp_path / "premium.jsonl.gz", "wt") as file:  # CRLF, blanks, another id
        for i in range(4):
            file.write(json.dumps(_record(i, id=f"y_{i}", output=f"Un número: {i}. ")) + "\r\n\r\n")
    found = read_instructions(str(tmp_path))
    assert (found.rows, len(found)) == (7, 4)
    alone = read_instructions(str(tmp_path / "premium.jsonl.gz"))
    assert alone.digest() == found.digest()
    assert read_instructions(str(tmp_path / "train.jsonl")).digest() != found.digest()


GOOD = json.dumps(_record())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{GOOD}\nno\n", r"a\.jsonl:2: not JSON: .* one JSON object a line, found 'no'"),
        (f"{GOOD},\n{GOOD}\n", r"a\.jsonl:1: not JSON.*a comma behind the object"),
        (GOOD[:-1] + ",}\n", r"a\.jsonl:1: not JSON.*a comma before '}'"),
        (GOOD[:-1] + ', "x": [1,]}\n', r"a\.jsonl:1: not JSON.*a comma before ']'"),
        (json.dumps([_record()], indent=2), r"a\.jsonl:1: a JSON array, expected.*accept_json"),
        (json.dumps(_record(), indent=2), r"a\.jsonl:1: JSON objects printed over.*accept_json"),
        ("[\n" + GOOD + ",\n]", r"a\.jsonl:1: a JSON array, expected JSONL"),
        (f"[{GOOD}, {GOOD}]", r"a\.jsonl:1: a JSON array, expected JSONL"),
        (f"\ufeff{GOOD}\n", r"a\.jsonl:1: UTF-8 with a byte order mark"),
        (f"{GOOD}\n{GOOD[:-3]}\0{GOOD[-3:]}\n", r"a\.jsonl:2: a NUL byte at byte"),
        (GOOD.replace("¿", "\\u0000").replace("\\u00bf", "\\u0000"), r":1: instruction has a NUL"),
        (GOOD.replace("\\u00bf", "\\ud83d"), r":1: instruction has a lone surrogate"),
        ('{"instruction": "a", "instruction": "b", "output": "c"}', r":1: the field .* twice"),
        ('{"instruction": "a"}\n', r"a\.jsonl:1: there is no field 'output'"),
        ('{"instruction": " ", "output": "a"}\n', r"a\.jsonl:1: instruction is empty"),
        ('{"instruction": "a", "output": 3}\n', r"a\.jsonl:1: output is of type int"),
        ('{"instruction": "a", "input": null, "output": "b"}', r":1: input is of type null"),
        ('{"title": "a", "content": "b"}', r"a\.jsonl:1: the fields are title, content; expected"),
        (json.dumps(_record(context="a")), r"a\.jsonl:1: unknown field 'context'.*language"),
        (json.dumps(_record(messages=TURNS)), r":1: the fields are instruction, output, messages"),
        (json.dumps({"messages": []}), r":1: messages is empty"),
        (json.dumps({"messages": TURNS[:2]}), r":1: messages are of system, user; expected"),
        (json.dumps({"messages": _chat(("bot", "a"))}), r"messages\[0\]\.role: .*found 'bot'"),
        (json.dumps({"messages": [{"role": "user"}]}), r"messages\[0\]: expected role and content"),
        (json.dumps({"prompt": "a", "completion": TURNS}), r":1: completion is of type list"),
        ("3\n", r"a\.jsonl:1: expected a JSON object, found int"),
        ("\n", r"a\.jsonl: there are no records in it"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content.encode("utf-8"))
    with pytest.raises(DataError, match=message):
        read_instructions(str(path))


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode() + b"\n{\xff}\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: invalid UTF-8: .* at byte 2"):
        read_instructions(str(path))
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(DataError, match=r"a\.jsonl:1: UTF-16, expected UTF-8"):
        read_instructions(str(path))


def test_printed_json_is_read_where_that_is_asked_for(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([_record(0), _record(1)], indent=2))
    (tmp_path / "b.jsonl").write_text(json.dumps(_record(2), indent=1) + "\n" + GOOD)
    found = read_instructions(str(tmp_path), accept_json=True)
    assert (found.rows, len(found)) == (4, 3)
    assert found.records[2].where == f"{tmp_path / 'b.jsonl'}:1"
    (tmp_path / "b.jsonl").write_text("[\n" + GOOD + ",\n]")
    with pytest.raises(DataError, match=r"b\.jsonl:3: not JSON"):
        read_instructions(str(tmp_path), accept_json=True)


def test_invalid_rows_are_counted_named_and_left_out_if_asked(tmp_path, caplog):
    path = _write(tmp_path / "a.jsonl", _record(), {"instruction": "a"}, {"output": "b"})
    with pytest.raises(DataError, match=r":2: .*\n.*:3: .*\n2 of 3 rows are invalid"):
        read_instructions(path)
    found = read_instructions(path, invalid="drop")
    assert (found.rows, len(found), len(found.invalid)) == (3, 1, 2)
    assert "2 of 3 rows are invalid; they are left out" in caplog.text
    other = _write(tmp_path / "b.jsonl", _record(branch="fisica"))
    with pytest.raises(DataError, match=r":1: the record is of the branch 'fisica', .*'physics'"):
        read_instructions(other, branch="physics")


def test_no_prompt_is_on_both_sides_of_a_split(tmp_path):
    records = [_record(i % 20, output=f"Respuesta {i}.") for i in range(40)]  # two answers each
    found = read_instructions(_write(tmp_path / "a.jsonl", *records))
    train, test = split_instructions(found, 0.2, seed=0)
    assert (len(train), len(test)) == (32, 8)
    assert not {x.asked for x in train.records} & {x.asked for x in test.records}
    shuffled = read_instructions(_write(tmp_path / "b.jsonl", *records[::-1], *records))
    again = split_instructions(shuffled, 0.2, seed=0)[1]
    assert {x.content for x in again.records} == {x.content for x in test.records}
    assert split_instructions(found, 0.2, seed=1)[1].digest() != test.digest()
    one = read_instructions(_write(tmp_path / "c.jsonl", _record(), _record(output="Otra.")))
    with pytest.raises(DataError, match=r"c\.jsonl:1: one prompt cannot be divided"):
        split_instructions(one, 0.2, seed=0)


def test_questions_about_paragraphs(data):
    found = read_instructions(str(data / "instruct"))
    assert (found.rows, len(found)) == (1190, 1185)
    with pytest.raises(DataError, match=r"documents_cases\.jsonl:1: JSON objects printed over"):
        read_instructions(str(data / "branches" / "antropologia_corpus"))
