"""The README's lines for a Megatron trainer of one's own do what it says."""

import json
import math
import os
import re
import statistics
import subprocess
import sys

import pytest

from tests.corpus import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def lines() -> dict[str, str]:
    """The code of the paragraph "Your own Megatron trainer"."""
    paragraph = README.partition("**Your own Megatron trainer**")[2].partition("\n## ")[0]
    (snippet,) = re.findall(r"```python\n(.*?)```", paragraph, re.S)
    inline = re.findall(r"`([^`\n]+)`", paragraph.partition(snippet)[2])
    (runtime,) = [one for one in inline if "dslm_patches.cpu.install()" in one]
    (kernels,) = [one for one in inline if one.startswith("use_cpu_kernels(")]
    assert snippet.count(", ...)") == 1, "the arguments that a reader fills in"
    snippet = snippet.replace(", ...)", ", **rest)")
    return {"runtime": runtime, "snippet": snippet, "kernels": f"from dslm_patches.mcore import *\n{kernels}"}


@pytest.mark.parametrize(("placement", "kernels"), [("pre", False), pytest.param("post", True, marks=pytest.mark.slow)])
def test_two_lines_put_the_method_on_plain_megatron_core(placement: str, kernels: bool) -> None:
    given = lines()
    assert '(spec, "pre")' in given["snippet"]
    given["snippet"] = given["snippet"].replace('(spec, "pre")', f'(spec, "{placement}")')
    given["kernels"] = given["kernels"] if kernels else ""
    done = subprocess.run(
        [sys.executable, "tests/mcore/readme_trainer.py", json.dumps(given)],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["of the trainer"] == []
    assert found["class"] == ("TransformerLayer" if placement == "pre" else "PostLNTransformerLayer")
    beta_squared = 2 / 16  # beta^2 = k / N^alpha, k 2, alpha 1
    for of_layer in found["coefficients"]:
        for skip_and_branch in of_layer:
            assert skip_and_branch == pytest.approx([math.sqrt(1 - beta_squared), math.sqrt(beta_squared)])
    assert len(found["variances"]) == 16
    assert max(abs(variance - 1.0) for variance in found["variances"]) < 0.3, found["variances"]
    assert found["logits"] == pytest.approx(1.0, abs=0.25)
    gradients = found["gradients"]
    assert max(gradients) < 3 * statistics.median(gradients) < 9 * min(gradients), gradients
