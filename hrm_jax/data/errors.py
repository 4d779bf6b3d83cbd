"""The error that all data code raises for data it cannot use."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used; the message names the file and line or field, and what it found."""
