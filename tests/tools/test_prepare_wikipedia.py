"""Wikitext to prose on pages written by hand, and the dump reader around it."""

# ruff: noqa: RUF001  (dashes are what Wikipedia writes)

import bz2
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tools.corpora import wikipedia
from tools.corpora.wikitext import clean_wikitext

FOX = """{{Infobox animal | name = Fox | image = [[File:Fox.jpg]]
 | status = least concern}}
{{Use British English}}
[[File:Fox.jpg|thumb|A [[red fox]] in ''snow''.]]
The '''fox''' ({{IPAc-en|f|ɒ|k|s}}; {{lang-la|vulpes}}) is a small [[Canidae|dog-like]] animal.<ref>S.</ref>
It runs {{convert|50|km/h|mph}} and weighs 5&nbsp;kg{{citation needed|date=May 2020}}.<!-- hidden -->

== Habitat ==
{{main|Fox habitats}}
Foxes live in [[forest]]s, e.g. [http://example.org the taiga]<ref name="x" />.
* A list item
* This item, though, is a whole sentence.
: An indented quotation ends here.
{| class="wikitable"
! Head
|-
| A cell with a sentence.
|}
<gallery>
File:A.jpg|A caption.
</gallery>
Water is H<sub>2</sub>O and <math>E = mc^2</math> is known{{ndash}}well, ''mostly''.
 preformatted code.

=== Notes on names ===
Dr. Reynard wrote {{quote|Foxes are sly.}} That was that ( {{IPA|x}} ).

== See also ==
* [[Wolf]] is seen also.
=== A part of it ===
This must not appear.

== Legacy ==
The fox [[de:Fuchs]]lives on.

== References ==
{{reflist}}
Not this either.

[[Category:Animals]]
"""

FOX_TEXT = """The fox (vulpes) is a small dog-like animal. It runs 50 km/h and weighs 5 kg.
Foxes live in forests, e.g. the taiga.
This item, though, is a whole sentence.
An indented quotation ends here.
Water is H2O and is known–well, mostly.
Dr. Reynard wrote
Foxes are sly.
That was that.
The fox lives on."""


def test_clean_wikitext() -> None:
    assert clean_wikitext(FOX) == FOX_TEXT


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("", ""),
        ("{{disambiguation}}\n[[Category:X]]", ""),
        ("[[:Category:Things|Things]] and [[A|b]]s, [[C (d)]].", "Things and bs, C (d)."),
        ("{{convert|5|to|10|km}} {{convert|1|x|2|m}} {{cvt|3|ft}}.", "5 to 10 km 1 x 2 m 3 ft."),
        (
            "{{as of|2014|lc=y}} and {{As of|2015}}, {{frac|1|2}}, {{lang|fr|mot}}.",
            "as of 2014 and As of 2015, 1/2, mot.",
        ),
        ("An unclosed {{template and [[link.", "An unclosed template and link."),
        ("{| unclosed table\n|-\n| cell.\n", ""),
        ("Line one\ngoes on.\n\nNext.", "Line one goes on.\nNext."),
        ("<poem>A verse\nand another.</poem>", "A verse\nand another."),
        ("He said \"no\" and ''left''. ''' Bold''' 's", 'He said "no" and left. Bold \'s'),
        ("1 &lt; 2 &amp; __NOTOC__ done.", "1 < 2 & done."),
    ],
)
def test_clean_wikitext_details(wikitext: str, text: str) -> None:
    assert clean_wikitext(wikitext) == text


def page(number: int, title: str, text: str, namespace: int = 0, extra: str = "") -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return (
        f"<page><title>{title}</title><ns>{namespace}</ns><id>{number}</id>{extra}"
        f"<revision><id>{number}99</id><text>{escaped}</text></revision></page>\n"
    )


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    pages = [
        page(1, "Fox", FOX),
        page(2, "Foxes", "#REDIRECT [[Fox]]", extra='<redirect title="Fox" />'),
        page(3, "Talk:Fox", "I like foxes.", namespace=1),
        page(4, "Fox (disambiguation)", "'''Fox''' may refer to:\n* [[Fox]]\n* [[Fox News]]"),
        page(5, "Wolf", "The '''wolf''' howls."),
        page(6, "Empty", ""),
    ]
    path = tmp_path / "dump.xml.bz2"
    xml = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">\n' + "".join(pages) + "</mediawiki>\n"
    # two streams, as in Wikipedia's multistream dumps
    path.write_bytes(bz2.compress(xml[:700].encode()) + bz2.compress(xml[700:].encode()))
    return path


EXPECTED = [
    {"id": "1", "title": "Fox", "text": FOX_TEXT},
    {"id": "5", "title": "Wolf", "text": "The wolf howls."},
]


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_dump(tool: Callable[..., Any], dump: Path, tmp_path: Path) -> None:
    arguments = ["--source", "dump", "--dump-file", dump, "--output"]
    result = tool("prepare_wikipedia", *arguments, tmp_path / "out" / "wiki.jsonl", "--workers", 1)
    assert result.exit_code == 0, result
    assert "2 articles" in result.stdout
    assert read(tmp_path / "out" / "wiki.jsonl") == EXPECTED

    plain = tmp_path / "dump.xml"
    plain.write_bytes(bz2.decompress(dump.read_bytes()))
    result = tool(
        "prepare_wikipedia",
        "--source",
        "dump",
        "--dump-file",
        plain,
        "--output",
        tmp_path / "two.jsonl",
        "--workers",
        2,
    )
    assert result.exit_code == 0, result
    assert read(tmp_path / "two.jsonl") == EXPECTED


def test_existing_output_is_left_alone(tool: Callable[..., Any], tmp_path: Path) -> None:
    output = tmp_path / "wiki.jsonl"
    output.write_text("mine\n")
    result = tool("prepare_wikipedia", "--output", output)
    assert (result.exit_code, output.read_text()) == (0, "mine\n")
    assert "already there" in result.stdout


def test_slice_with_another_content_is_refused(
    tool: Callable[..., Any], dump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake_pip(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "gensim.whl", "w") as wheel:
            wheel.write(dump, wikipedia.SLICE_MEMBER)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", fake_pip)
    output = tmp_path / "wiki.jsonl"
    tool("prepare_wikipedia", "--output", output, "--workers", 1).assert_user_error("SHA-256", "gensim==4.4.0")
    assert list(tmp_path.iterdir()) == [dump]

    monkeypatch.setattr(wikipedia, "SLICE_SHA256", hashlib.sha256(dump.read_bytes()).hexdigest())
    assert tool("prepare_wikipedia", "--output", output, "--workers", 1).exit_code == 0
    assert read(output) == EXPECTED


def test_wrong_dumps(tool: Callable[..., Any], dump: Path, tmp_path: Path) -> None:
    contents = {
        "truncated.xml.bz2": dump.read_bytes()[:400],
        "truncated.xml": bz2.decompress(dump.read_bytes())[:-20],
        "no_bzip2.xml.bz2": b"<mediawiki/>",
        "other.xml": b"<html><body/></html>",
        "empty.xml": b"",
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        result = tool(
            "prepare_wikipedia",
            "--source",
            "dump",
            "--dump-file",
            path,
            "--output",
            tmp_path / "out.jsonl",
            "--workers",
            1,
        )
        result.assert_user_error(f"--dump-file {path}", "expected a pages-articles")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*contents, dump.name])


def test_wrong_flags(tool: Callable[..., Any], tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    tool("prepare_wikipedia", "--output", output, "--source", "dump").assert_user_error("--dump-file FILE")
    tool("prepare_wikipedia", "--output", output, "--config", "x").assert_user_error("--config", "slice")
    missing = tmp_path / "none.xml"
    result = tool("prepare_wikipedia", "--output", output, "--source", "dump", "--dump-file", missing)
    result.assert_user_error(str(missing), "no such file")


@pytest.mark.parametrize(("source", "module"), [("huggingface", "datasets"), ("tfds", "tensorflow_datasets")])
def test_library_sources(
    tool: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, module: str
) -> None:
    output = tmp_path / "out.jsonl"
    monkeypatch.setitem(sys.modules, module, None)
    result = tool("prepare_wikipedia", "--output", output, "--source", source)
    result.assert_user_error("pip install 'dslm-megatron[data]'", f"--source {source}")

    calls: list[str] = []

    def load_dataset(name: str, config: str, split: str, streaming: bool) -> Iterator[dict[str, str]]:
        calls.append(f"{name}/{config}")
        return iter([{"id": "7", "title": "Fox", "url": "u", "text": "A fox.\n\n It runs. \n"}])

    def load(name: str, split: str, shuffle_files: bool) -> Any:
        calls.append(name)
        row = {"title": b"Fox", "text": b"A fox.\n\n It runs. \n"}
        return SimpleNamespace(as_numpy_iterator=lambda: iter([row]))

    library = SimpleNamespace(load_dataset=load_dataset, load=load)
    monkeypatch.setitem(sys.modules, module, library)
    assert tool("prepare_wikipedia", "--output", output, "--source", source).exit_code == 0
    assert [(row["title"], row["text"]) for row in read(output)] == [("Fox", "A fox.\nIt runs.")]
    assert calls == [{"huggingface": "wikimedia/wikipedia/20231101.en", "tfds": "wikipedia/20230601.en"}[source]]
