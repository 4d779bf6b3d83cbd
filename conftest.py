"""README and docs are run: `tests/pages.py`."""

from pages import PAGES

pytest_collect_file = PAGES.pytest()
