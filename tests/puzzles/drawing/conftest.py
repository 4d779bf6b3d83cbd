import pytest

from hrm_jax.puzzles.drawing.pen import Pen


@pytest.fixture
def written(monkeypatch):
    """All texts that are drawn, with their ink."""
    texts = []
    real = Pen.text

    def spy(self, x, y, text, pixels=13, ink="#111111", bold=False, anchor="la"):
        texts.append((text, ink))
        real(self, x, y, text, pixels, ink, bold, anchor)

    monkeypatch.setattr(Pen, "text", spy)
    return texts
