"""The text of answers, piece by piece."""

import numpy as np
import pytest

from hrm_jax.data.text.tokenizers import ByteTokenizer
from hrm_jax.engine.requests import AnswerText, RequestError, checked_tokens


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_text_in_pieces_is_the_text_up_to_the_stop(size):
    whole = "año 漢字 🙂 stop here, STOP!"
    stops = ("stop!", "STOP", "here!", "字 🙃")

    def split(data, stop):
        parts = [data[i : i + size] for i in range(0, len(data), size)]
        text, pieces = AnswerText(_Parts(parts), stop), []
        for token in range(len(parts)):
            piece, stopped = text.feed(token)
            pieces.append(piece)
            if stopped:
                return pieces, True
        piece, stopped = text.finish()
        return [*pieces, piece], stopped

    pieces, stopped = split(whole.encode(), stops)
    assert stopped
    assert "".join(pieces) == whole.partition("STOP")[0]
    assert not any("\ufffd" in piece for piece in pieces)
    pieces, stopped = split(whole.encode(), stops[:1])
    assert (not stopped, "".join(pieces)) == (True, whole)
    pieces, _ = split("🙂".encode()[:3], ())
    assert "".join(pieces) == "\ufffd"


class _Parts(ByteTokenizer):
    """Its tokens are the numbers of given parts of a text."""

    def __init__(self, parts):
        self.parts = parts

    def stream(self):
        inner = ByteTokenizer().stream()

        class Stream:
            def feed(_, ids):
                return inner.feed(b"".join(self.parts[i] for i in ids))

            def finish(_):
                return inner.finish()

        return Stream()


@pytest.mark.parametrize("token", [-1, 260, 2**40, 2**70, 10**400, 1.7, True, "a", None])
def test_tokens_that_a_model_does_not_have(token):
    with pytest.raises(RequestError, match=r"^prompt: expected tokens in \[0, 260\), got "):
        checked_tokens("prompt", [0, token], 260)


def test_tokens_of_whole_types():
    assert checked_tokens("prompt", np.array([3, 259], np.uint16), 260) == [3, 259]
