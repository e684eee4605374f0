"""The parameters of a request: read strictly, refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import parse_qs

from align_cache.store.shard import MAX_STRING_BYTES

Choice = TypeVar("Choice", bound=str)

LONGEST = MAX_STRING_BYTES
"""Characters of a value: as long as an image's id may be."""


class Refusal(Exception):
    """A request that is not answered, with the status and one line that says why."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Query:
    """What stands behind the ``?`` of a request, each name once."""

    def __init__(self, text: str) -> None:
        try:
            found: Mapping[str, list[str]] = parse_qs(
                text, keep_blank_values=True, max_num_fields=10, errors="strict"
            )
        except ValueError as error:  # too many fields, or no UTF-8
            raise Refusal(HTTPStatus.BAD_REQUEST, f"the parameters cannot be read: {error}") from None
        self._values = found

    def text(self, name: str) -> str:
        """Return a value that has to be there."""
        values = self._values.get(name, [])
        if len(values) != 1 or not values[0].strip():
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{name}: expected it once, and not empty")
        if len(values[0]) > LONGEST:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{name}: expected at most {LONGEST} characters")
        return values[0]

    def choice(self, name: str, choices: Sequence[Choice]) -> Choice:
        """Return one of some words."""
        value = self.text(name)
        for each in choices:
            if each == value:
                return each
        raise Refusal(HTTPStatus.BAD_REQUEST, f"{name}: expected {' or '.join(choices)}")

    def count(self, name: str, *, low: int, high: int) -> int:
        """Return a whole number within bounds."""
        value = self.text(name)
        if not (value.isascii() and value.isdecimal() and len(value) < 10 and low <= int(value) <= high):
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{name}: expected a whole number from {low} to {high:,}")
        return int(value)
