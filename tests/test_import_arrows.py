"""Imports run one way: theory <- schemes <- mcore -> kernels; tracing and cpu alone; megatron.dslm on all of them.

`dslm_patches.errors` and `dslm_patches.files` stand below all of them; so does `dslm_patches.torch_activations` for
those with torch.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "megatron.core")
# Package -> what it may import of this project, and whether torch and megatron-core are allowed to it.
ARROWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "dslm_patches.theory": ((), ()),
    "dslm_patches.simulation": (("dslm_patches.theory", "dslm_patches.torch_activations"), ("torch",)),
    "dslm_patches.schemes": (("dslm_patches.theory",), ()),
    "dslm_patches.kernels": ((), ("torch",)),
    "dslm_patches.mcore": (
        ("dslm_patches.kernels", "dslm_patches.schemes", "dslm_patches.theory", "dslm_patches.torch_activations"),
        HEAVY,
    ),
    "dslm_patches.tracing": ((), HEAVY),
    "dslm_patches.cpu": ((), HEAVY),
    "dslm_patches.hf": (("dslm_patches.schemes", "dslm_patches.theory", "dslm_patches.hf_folder"), ("torch",)),
    "megatron.dslm": (("dslm_patches",), HEAVY),
}
FLOORS = (
    ("faults", "tasks"),
    ("config", "distributed"),
    ("data",),
    ("models",),
    ("huggingface", "optimizer"),
    ("checkpoints",),
    ("logging",),
    ("arguments",),
    ("conversion", "training"),
    ("cli", "finetuning"),
)
"""Packages of megatron/dslm from the ground up: each imports from those below its floor alone."""
LIGHT = ("arguments", "config", "tasks", "models/family.py", "models/sections.py", "models/*/__init__.py")
"""Read before torch is imported, so that a mistake costs no seconds: what they import at their head is light too."""


_IN_TYPES = {
    "family.py": {
        "megatron.core.transformer.TransformerConfig",
        "megatron.core.transformer.module.MegatronModule",
    }
}
"""Imported for the type checker alone."""


def imported(path: Path) -> set[str]:
    """Full names of all that a file imports, `from a import b` as a.b.

    Relative imports are for dslm_patches.hf alone, whose files are copied beside exported weights.
    """
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ""
            if node.level:
                folder = path.parent.relative_to(ROOT)
                assert folder == Path("dslm_patches/hf"), f"{path}: relative import"
                assert node.level == 1, f"{path}: relative import from outside the package"
                package = "dslm_patches.hf."
            names |= {f"{package}{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of the packages or inside one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("package", ARROWS)
def test_a_package_imports_only_what_it_stands_on(package: str) -> None:
    own, heavy = ARROWS[package]
    allowed = (*own, package, "dslm_patches.errors", "dslm_patches.files")
    files = sorted((ROOT / package.replace(".", "/")).rglob("*.py"))
    assert files, f"{package} has no files"
    for path in files:
        for name in imported(path):
            ours = within(name, ("dslm_patches", "megatron.dslm", "tools", "tests"))
            if ours:
                assert within(name, allowed), f"{path.relative_to(ROOT)} imports {name}"
            if within(name, HEAVY):
                assert within(name, heavy), f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("package", [name for floor in FLOORS for name in floor])
def test_the_trainers_packages_stand_on_lower_floors(package: str) -> None:
    place = next(number for number, floor in enumerate(FLOORS) if package in floor)
    below = (package, *(name for floor in FLOORS[:place] for name in floor))
    for path in sorted((ROOT / "megatron/dslm" / package).rglob("*.py")):
        for name in imported(path):
            if within(name, ("megatron.dslm",)):
                assert name.split(".")[2] in below, f"{path.relative_to(ROOT)} imports {name}"


def test_every_package_of_the_trainer_has_a_floor() -> None:
    folders = {path.parent.name for path in (ROOT / "megatron/dslm").glob("*/__init__.py")}
    assert folders == {name for floor in FLOORS for name in floor}
    assert [path.name for path in (ROOT / "megatron/dslm").glob("*.py")] == ["__init__.py"], "a file without a room"


def test_checks_need_no_torch() -> None:
    folder = ROOT / "megatron/dslm"
    files = [path for one in LIGHT for path in (folder.glob(one) if "." in one else (folder / one).rglob("*.py"))]
    assert len(files) > 20
    for path in files:
        heavy = {name for name in imported(path) if within(name, HEAVY)} - _IN_TYPES.get(path.name, set())
        assert not heavy, f"{path.relative_to(ROOT)} imports {heavy}"


def test_what_reads_a_trace_needs_no_torch() -> None:
    names = ("names", "skipping", "record", "trace_file", "alerts", "figures")
    modules = [f"dslm_patches.tracing.{name}" for name in names]
    code = f"import sys, {', '.join(modules)}; print(sorted({{'torch', 'megatron.core'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


def test_megatron_stays_a_namespace_package() -> None:
    assert not (ROOT / "megatron" / "__init__.py").exists(), "it would hide pip's megatron.core"
    assert not (ROOT / "megatron" / "training").exists(), "megatron-core wheels from 0.17 on ship that package"


@pytest.mark.parametrize("script", ["pretrain_bert.py", "pretrain_gpt.py", "finetune.py"])
def test_help_imports_neither_torch_nor_megatron_core(script: str) -> None:
    code = (
        "import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({script!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('loaded:', sorted({'torch', 'megatron.core'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--dslm-k" in out
    assert out.strip().endswith("loaded: []")
