"""The error that all readers raise for data they cannot use, and the one rule by which they do."""

from hrm_jax.reading import DataError, reading

__all__ = ["DataError", "reading"]
