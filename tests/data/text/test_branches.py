"""The branches that come with the package: what each record must be, and how they differ."""

import collections
import json
import re
import unicodedata

import pytest

from hrm_jax.data.text.branches import branch_names, inspect_branch, packaged_branches

FIELDS = {"id", "branch", "language", "instruction", "input", "output"}
# Words that make up a third of Spanish text, and hardly any of another language's.
FUNCTION_WORDS = """
    a al algo ante aunque como con cuando cuál cuáles cuándo cuánto cuántos cómo de del dime di
    donde dónde durante e el ella ellos en entre era es esa ese eso esta este esto está están
    explica fue fueron ha han hasta hay la las le les lo los más me muy nace ni no nombra o para
    pero por porque qué que quién quiénes se según ser si sin sobre son su sus también tan
    tiene tienen todo todos tras tu u un una uno unos varios y ya
"""
LEAST, MOST = 40, 240  # characters of an answer
BRANCHES, RECORDS = 50, 24


@pytest.fixture(scope="module")
def branches():
    root = packaged_branches()
    return {name: inspect_branch(root, name) for name in branch_names(root)}


@pytest.fixture(scope="module")
def records(branches):
    return [(name, x) for name, found in branches.items() for x in found.found.records]


def _asked(record):
    return record.prompt[0].content


def _words(text):
    plain = unicodedata.normalize("NFD", text.lower())
    return re.findall(r"[a-z0-9]+", re.sub("[\u0300-\u036f]", "", plain))


def test_there_are_fifty(branches):
    assert len(branches) == BRANCHES
    small = {name: len(x.found) for name, x in branches.items() if len(x.found) < RECORDS}
    assert not small


def test_every_record_is_as_it_should_be(branches):
    for name, found in branches.items():
        assert not found.found.invalid
        assert found.found.rows == len(found.found), f"{name}: repeated records"
        [file] = (packaged_branches() / name / "training" / "data").glob("*.jsonl")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            record = json.loads(line)
            where = f"{name}:{number}"
            assert record.keys() == FIELDS, where
            assert record["id"] == f"{name}_{number:04}", where
            assert (record["branch"], record["language"]) == (name, "es"), where
            assert line == unicodedata.normalize("NFC", line), where
            for field in ("instruction", "input", "output"):
                text = record[field]
                assert text == text.strip(), where
                assert "  " not in text, where
                assert "###" not in text, where


def test_lengths(records):
    wrong = [x.where for _, x in records if not LEAST <= len(x.answer) <= MOST]
    wrong += [x.where for _, x in records if not 8 <= len(_asked(x)) <= 160]
    assert not wrong


def test_nothing_is_said_twice_within_branches_or_across(records):
    for text in (_asked, lambda x: x.answer):
        seen = collections.defaultdict(list)
        for _, record in records:
            seen[" ".join(_words(text(record)))].append(record.where)
        assert not [places for places in seen.values() if len(places) > 1]


def test_no_instruction_is_nearly_another(records):
    """Of two instructions more than a sixth of their words differ, numbers counted apart."""
    sets = [(frozenset(_words(_asked(x))), x.where) for _, x in records]
    holding = collections.defaultdict(list)
    alike = []
    for place, (words, where) in enumerate(sets):
        shared = collections.Counter(other for word in words for other in holding[word])
        for other, count in shared.items():
            union = len(words | sets[other][0])
            if count / union > 5 / 6:
                alike.append((sets[other][1], where))
        for word in words:
            holding[word].append(place)
    assert not alike


def test_it_is_spanish(records):
    """Of each branch at least a third of all words, of each record with an answer of 12 words or
    more a sixth, are Spanish function words; and there is no question that opens with a bare ?."""
    spanish = set(FUNCTION_WORDS.split())
    by_branch = collections.defaultdict(list)
    for name, record in records:
        words = re.findall(r"[^\W\d_]+", f"{_asked(record)} {record.answer}".lower())
        share = sum(word in spanish for word in words) / len(words)
        by_branch[name].append(share)
        assert share > 1 / 6 or len(words) < 12, record.where
        assert _asked(record).count("¿") == _asked(record).count("?"), record.where
    assert not {n: s for n, s in by_branch.items() if sum(s) / len(s) < 1 / 3}
