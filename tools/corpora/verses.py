"""The verses of the King James and the World English Bible, side by side.

Two independent renderings of the same originals, both in the public domain, read from SWORD modules as Debian packs
them. The chapters are split into train and dev, so that text to pretrain on can leave the dev chapters out.
"""

import functools
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dslm_patches.errors import UserError
from megatron.dslm.data.jsonl import read_chunks
from tools.corpora.fetch import MissingToolError, fetch_debian, unpack_debian

PACKAGES = {"kjv": "sword-text-kjv", "web": "sword-text-web"}
VERSES_SHA256 = "db8cd2968025fcec1d1928c7bc49317d0a29ac30f6a728e9433d1b1228dc4fd5"
"""Of the aligned verses as `content_hash` sees them: the text counts, not the packages' versions."""
DEV_SHARE = 0.1

_DROPPED = re.compile(r"<(note|title|speaker|foreign)\b[^>]*(?<!/)>.*?</\1>|<milestone .*", re.DOTALL)
_SPACING = re.compile(r"</?(?:div|l|lg|lb|item|list|chapter)\b[^>]*>")
_TAG = re.compile(r"<[^>]*>")


class Verse(NamedTuple):
    """One verse in both renderings; `split` is "train" or "dev", the same for a whole chapter."""

    book: str
    chapter: int
    verse: int
    kjv: str
    web: str
    split: str = "train"


def clean_markup(raw: str) -> str:
    """A verse's OSIS markup to plain text: no notes, headings, speakers' names or paragraph signs."""
    text = _DROPPED.sub("\0", raw)
    # "\nd " is another format's mark, left over before LORD
    text = _TAG.sub("", _SPACING.sub(" ", text)).replace("¶", " ").replace("\\nd ", "")
    # a note may be all that stands between two words
    text = re.sub(r"\0+(?=[\w“‘(])", " ", text).replace("\0", "")  # noqa: RUF001
    return re.sub(r" +(?=[,.;:!?”])", "", " ".join(text.split()))


def read_module(path: Path) -> dict[tuple[str, int, int], str]:
    """A SWORD module's verses by book, chapter and verse; `path` is its folder (with mods.d), a zip or a .deb.

    Raises:
        UserError: there is no readable module.
    """
    with tempfile.TemporaryDirectory(prefix="dslm-sword-") as temporary:
        root = unpack_debian(path, Path(temporary)) if path.suffix == ".deb" else path
        if root.is_dir():
            found = [folder.parent for folder in [root / "mods.d", root / "usr/share/sword/mods.d"] if folder.is_dir()]
            if not found:
                raise UserError(f"{path}: no mods.d in it; expected a SWORD module's folder, a .zip or a .deb")
            root = found[0]
        return _read_sword(root)


def _read_sword(root: Path) -> dict[tuple[str, int, int], str]:
    try:
        from pysword.modules import SwordModules
    except ImportError as error:
        raise UserError("reading the verses needs `pysword`: pip install pysword==0.2.8") from error
    try:
        modules = SwordModules(str(root))
        [name] = modules.parse_modules()
        bible = modules.get_bible_from_module(name)
    except Exception as error:
        raise UserError(f"{root}: not one readable SWORD module ({type(error).__name__}: {error})") from error
    # else it unpacks a whole book for every verse, and takes a minute
    bible._decompressed_text = functools.lru_cache(maxsize=2)(bible._decompressed_text)
    verses = {}
    for books in bible.get_structure().get_books().values():
        for book in books:
            places = [(c, v) for c, length in enumerate(book.chapter_lengths, 1) for v in range(1, length + 1)]
            for (chapter, verse), raw in zip(places, bible.get_iter(books=book.name, clean=False), strict=True):
                verses[book.name, chapter, verse] = clean_markup(raw)
    return verses


def align(kjv: dict[tuple[str, int, int], str], web: dict[tuple[str, int, int], str]) -> list[Verse]:
    """The verses that both have, in the order of the first."""
    return [Verse(*place, text, web[place]) for place, text in kjv.items() if text and web.get(place)]


def fetch_verses(kjv: Path | None, web: Path | None) -> list[Verse]:
    """The aligned verses, from unpacked modules where given, else from Debian's packages.

    Raises:
        UserError: a module cannot be had or read.
    """
    texts = {}
    for name, path in {"kjv": kjv, "web": web}.items():
        with tempfile.TemporaryDirectory(prefix="dslm-verses-") as folder:
            try:
                texts[name] = read_module(path or fetch_debian(PACKAGES[name], Path(folder)))
            except MissingToolError as error:
                raise UserError(
                    f"{error}; on a machine that has it run `apt-get download {PACKAGES[name]}` and "
                    f"`dpkg-deb -x FILE.deb {name}`, then give --{name} the folder"
                ) from error
    return align(texts["kjv"], texts["web"])


def content_hash(verses: Sequence[Verse]) -> str:
    """SHA-256 over places and texts; the split does not count."""
    digest = hashlib.sha256()
    for verse in verses:
        digest.update("\t".join([verse.book, str(verse.chapter), str(verse.verse), verse.kjv, verse.web]).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def check_content(verses: Sequence[Verse], source: str, allow_other: bool) -> str:
    """The content's hash. Raises UserError where it is another than the known one, unless that is allowed."""
    found = content_hash(verses)
    if found != VERSES_SHA256 and not allow_other:
        raise UserError(
            f"{source}: the {len(verses)} verses have SHA-256 {found}, not {VERSES_SHA256}; results may differ from "
            "those published: --allow-other-version takes them all the same"
        )
    return found


def assign_splits(verses: Sequence[Verse], seed: int) -> list[Verse]:
    """Puts about a tenth of the chapters into dev, by a hash of seed, book and chapter."""

    @functools.cache
    def split(book: str, chapter: int) -> str:
        digest = hashlib.sha256(f"{seed}:{book}:{chapter}".encode()).digest()
        return "dev" if int.from_bytes(digest[:8], "big") < DEV_SHARE * 2**64 else "train"

    return [verse._replace(split=split(verse.book, verse.chapter)) for verse in verses]


def write_verses(verses: Sequence[Verse], path: Path) -> None:
    """JSON lines, a verse a line."""
    with open(path, "w", encoding="utf-8") as output:
        for verse in verses:
            output.write(json.dumps(verse._asdict(), ensure_ascii=False) + "\n")


def read_verses(path: Path) -> list[Verse]:
    """What `write_verses` wrote. Raises UserError for other content, naming file and line."""
    verses = []
    for chunk in read_chunks([path]):
        for number, line in enumerate(chunk.lines, chunk.first_line_number):
            try:
                verses.append(Verse(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise UserError(f"{path}:{number}: not a verse ({error}); remove the file to read again") from error
    return verses


def chapter_texts(verses: Sequence[Verse], split: str) -> Iterator[str]:
    """The chapters of a split as documents to pretrain on: a verse a line, King James and then World English.

    Masked words of one rendering can be told from the other, as in translation language modelling (Conneau and
    Lample 2019).
    """
    chapters: dict[tuple[str, int], list[Verse]] = {}
    for verse in verses:
        if verse.split == split:
            chapters.setdefault((verse.book, verse.chapter), []).append(verse)
    for chapter in chapters.values():
        yield "\n".join(f"{verse.kjv} {verse.web}" for verse in chapter)
