"""The `dslm` command: light help, and one line for every mistake, before anything is computed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron.dslm.cli.main import main

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = "--num-layers 4 --hidden-size 64 --num-attention-heads 4 --seq-length 32"


@pytest.mark.parametrize(
    "words",
    [["--help"], ["predict", "--help"], ["approximations", "--help"], ["trace", "--help"], ["profile", "--help"]],
)
def test_help_is_light(words: list[str]) -> None:
    code = (
        "import sys\nfrom megatron.dslm.cli.main import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        "print('loaded:', sorted({'torch', 'numpy', 'matplotlib', 'megatron.core'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: dslm")
    assert done.stdout.strip().endswith("loaded: []")


def test_the_installed_command_answers_fast() -> None:
    command = Path(sys.executable).parent / "dslm"
    seconds = []
    for _ in range(3):  # the best of three: other processes may be in the way
        start = time.monotonic()
        done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.monotonic() - start)
    assert all(name in done.stdout for name in ("predict", "profile", "simulate", "approximations", "trace"))
    assert min(seconds) < 1.0


def test_help_of_a_model_has_the_trainers_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["predict", "gpt", "--help"])
    text = capsys.readouterr().out
    assert exit_info.value.code == 0
    for flag in ("--num-layers", "--dslm-k", "--hidden-dropout", "--norm-epsilon", "--token-frequencies", "--plot"):
        assert flag in text
    assert "--lr" not in text
    assert "--bert-no-binary-head" not in text


MISTAKES: list[tuple[str, str, list[str]]] = [
    ("no subcommand", "", ["COMMAND"]),
    ("unknown subcommand", "forecast", ["forecast", "predict", "approximations"]),
    ("unknown model", "predict t5", ["t5", "bert", "gpt"]),
    ("no model", "predict", ["MODEL"]),
    ("missing size", "predict bert --num-layers 4", ["--hidden-size"]),
    ("unknown activation", f"predict bert {MODEL} --activation tanh", ["--activation", "tanh"]),
    ("unknown flag", f"predict bert {MODEL} --nonsense", ["--nonsense"]),
    ("a flag of the other model", f"predict gpt {MODEL} --bert-no-binary-head", ["--bert-no-binary-head"]),
    ("an abbreviation", f"predict bert {MODEL} --activ relu", ["--activ"]),
    ("k without dslm", f"predict bert {MODEL} --dslm-k 1", ["--dslm-k", "--dslm"]),
    ("two schemes", f"predict bert {MODEL} --dslm --depth-scheme xavier", ["--dslm", "--depth-scheme xavier"]),
    ("k too large", f"predict bert {MODEL} --dslm --dslm-k 5", ["--dslm-k 5"]),
    ("heads", f"predict gpt {MODEL} --hidden-size 65", ["--hidden-size 65", "--num-attention-heads 4"]),
    ("no layers", f"predict gpt {MODEL} --num-layers 0", ["--num-layers", "positive"]),
    ("dropout of one", f"predict gpt {MODEL} --hidden-dropout 1", ["--hidden-dropout"]),
    ("no vocabulary", f"predict gpt {MODEL} --vocab-size 0", ["--vocab-size", "positive"]),
    ("gradient", f"predict gpt {MODEL} --top-gradient-correlation 1.5", ["--top-gradient-correlation", "1.5"]),
    (
        "a gradient that 32 tokens cannot have",
        f"predict gpt {MODEL} --top-gradient-correlation -0.5",
        ["--top-gradient-correlation", "32 tokens"],
    ),
    ("not finite", f"predict gpt {MODEL} --top-gradient-correlation nan", ["--top-gradient-correlation", "finite"]),
    ("plot format", f"predict bert {MODEL} --plot a.gif", ["--plot a.gif", ".png", ".svg"]),
    ("plot without format", "approximations --plot a", ["--plot a", ".png"]),
    ("plot folder", "approximations --plot absent/a.png", ["--plot absent/a.png", "absent"]),
    ("json folder", f"predict bert {MODEL} --json absent/a.json", ["--json absent/a.json"]),
    ("json is a folder", "approximations --json .", ["--json .", "folder"]),
    ("no frequencies", f"predict bert {MODEL} --token-frequencies absent.txt", ["--token-frequencies absent.txt"]),
    (
        "two correlations",
        f"predict bert {MODEL} --dslm --dslm-input-correlation 0.2 --token-frequencies absent.txt",
        ["--token-frequencies", "--dslm-input-correlation"],
    ),
]


@pytest.mark.parametrize(("words", "named"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_one_line_that_names_the_flag(
    words: str, named: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a prediction was made in spite of the mistake")

    monkeypatch.setattr("dslm_patches.schemes.prediction.predict", never)
    monkeypatch.setattr("megatron.dslm.cli.approximations.compare", never)
    with pytest.raises(SystemExit) as exit_info:
        main(words.split())
    output = capsys.readouterr()
    assert (exit_info.value.code, output.out) == (2, "")
    assert output.err.count("\n") == 1, output.err
    assert output.err.startswith("dslm")
    for part in named:
        assert part in output.err
    assert not any(tmp_path.iterdir())
