"""GLUE's tab-separated files: quotes are characters, and a few rows of the published files are broken."""

import csv
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dslm_patches.errors import UserError


class Row(NamedTuple):
    """A row: its line in the file, from 1, and its fields by column."""

    line: int
    fields: dict[str, str]


class TsvFile:
    """The rows of a file that have all its columns.

    Fields are taken as they stand, quotes included. A row with more fields than columns is read again with quotes
    as delimiters, for tabs inside quoted fields; one that still does not fit is left out and counted.

    Args:
        path: the file; UTF-8, lines ended by LF or CRLF.
        header: names of the columns of a file that has no header line; None for one that has.

    Attributes:
        columns: names of the columns.
        broken: lines that were left out; complete once the rows were read.

    Raises:
        UserError: no such file, not UTF-8, empty.
    """

    def __init__(self, path: str, header: Sequence[str] | None = None) -> None:
        if not os.path.isfile(path):
            raise UserError(f"{path} is not a file")
        try:
            with open(path, encoding="utf-8-sig", newline="\n") as file:
                self._lines = [line.rstrip("\r\n") for line in file]
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
        if not self._lines:
            raise UserError(f"{path} is empty")
        self.path = path
        self.columns = list(header) if header is not None else self._lines[0].split("\t")
        self._first = 0 if header is not None else 1
        self.broken: list[int] = []

    def require(self, columns: Sequence[str]) -> None:
        """Raises UserError when a column is missing: says which, and which were found."""
        missing = [name for name in columns if name not in self.columns]
        if missing:
            found = ", ".join(self.columns)
            raise UserError(f"{self.path}: no column {', '.join(missing)}; found {found[:200]}")

    def rows(self) -> Iterator[Row]:
        """The rows, in order."""
        for index in range(self._first, len(self._lines)):
            if not self._lines[index]:
                continue
            fields = self._split(self._lines[index])
            if fields is None:
                self.broken.append(index + 1)
            else:
                yield Row(index + 1, dict(zip(self.columns, fields, strict=True)))

    def notes(self) -> list[str]:
        """A line about the rows that were left out, if there were any."""
        if not self.broken:
            return []
        return [
            f"{self.path}: {len(self.broken)} rows without {len(self.columns)} columns left out "
            f"(the first on line {self.broken[0]})"
        ]

    def _split(self, line: str) -> list[str] | None:
        fields = line.split("\t")
        if len(fields) > len(self.columns):
            try:
                fields = next(csv.reader([line], delimiter="\t", quotechar='"'))
            except csv.Error:  # a field longer than csv reads
                return None
        return fields if len(fields) == len(self.columns) else None
