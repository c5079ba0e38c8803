"""What is written aside: whole or not at all, nothing left over, links not followed."""

from pathlib import Path

import pytest

from dslm_patches.files import atomic_outputs, new_folder, write_aside


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("unique", [False, True])
def test_a_text_is_there_whole_or_not_at_all(tmp_path: Path, unique: bool, sync: bool) -> None:
    path = tmp_path / "result.json"
    write_aside(path, "first", unique=unique, sync=sync)
    with pytest.raises(UnicodeEncodeError):
        write_aside(path, "half\udc80", unique=unique, sync=sync)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_a_files_place_is_replaced(tmp_path: Path) -> None:
    path, outside = tmp_path / "latest", tmp_path / "outside"
    outside.write_text("mine")
    path.symlink_to(outside)
    (tmp_path / ".latest.incomplete").symlink_to(outside)
    write_aside(path, "20", sync=True)
    assert (path.read_text(), path.is_symlink(), outside.read_text()) == ("20", False, "mine")


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "made"

    def write_half() -> None:
        with new_folder(path) as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []

    left_by_a_killed_run = tmp_path / ".made.incomplete"
    left_by_a_killed_run.mkdir()
    (left_by_a_killed_run / "half").touch()
    with new_folder(path) as folder:
        (folder / "whole").touch()
    assert [one.name for one in path.iterdir()] == ["whole"]
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_outputs(tmp_path: Path) -> None:
    paths = [tmp_path / "new" / "a.bin", tmp_path / "new" / "a.idx"]

    def write_half() -> None:
        with atomic_outputs(*paths) as temporary:
            temporary[0].write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(paths[0].parent.iterdir()) == []

    for content in ("first", "second"):
        with atomic_outputs(*paths) as temporary:
            for path in temporary:
                path.write_text(content)
            assert all(path.exists() for path in paths) == (content == "second")
        assert [path.read_text() for path in paths] == [content, content]
    assert sorted(paths[0].parent.iterdir()) == paths

    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match="cannot make the folder"),
        atomic_outputs(tmp_path / "file" / "a.bin"),
    ):
        pass
