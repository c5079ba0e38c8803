"""The launch scripts name flags that exist and combinations that hold: each is run with torchrun taken out."""

import os
import re
import shlex
from pathlib import Path

import pytest

from megatron.dslm.arguments.parse import build_parser
from megatron.dslm.arguments.validate import validate

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.sh"))


def training_command(script: Path) -> list[str] | None:
    """The words of a script's torchrun command with its variables filled by their defaults; None if it has none."""
    text = script.read_text().replace("\\\n", " ")
    line = next((line for line in text.splitlines() if line.startswith(("torchrun", "exec torchrun"))), None)
    if line is None:
        return None
    line = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", line).replace('"$@"', "")
    return shlex.split(re.sub(r"\$\w+", "4", line))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.parametrize("extra", [[], ["--norm-placement", "post"]])
def test_example_flags_hold_together(script: Path, extra: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = training_command(script)
    if words is None:
        assert "tools/preprocess_data.py" in script.read_text(), f"{script.name} neither trains nor prepares data"
        return
    monkeypatch.chdir(os.path.dirname(__file__))
    entry = next(word for word in words if word.startswith("pretrain_"))
    model = entry.removeprefix("pretrain_").removesuffix(".py")
    args = build_parser(model).parse_args([*words[words.index(entry) + 1 :], *extra])
    ranks_a_node = int(words[words.index("--nproc-per-node") + 1])
    nodes = int(words[words.index("--nnodes") + 1]) if "--nnodes" in words else 1
    args.model, args.world_size, args.rank = model, ranks_a_node * nodes, 0
    validate(args)
    assert args.data_parallel_size >= 1
