"""What `dslm_patches.cpu` promises outside of training: inert with CUDA, exact norms, no patch missing."""

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.torch_norm import WrappedTorchNorm

from dslm_patches.cpu import LayerNorm, Norm, RMSNorm, cuda_stand_ins, install, installed_patches, installing, patches
from dslm_patches.cpu.literals import replace_in_function
from tests.corpus import ROOT
from tests.distributed.pool import RankPool

WORKERS = "tests.distributed.cpu_runtime_workers"
STAND_INS = {
    **cuda_stand_ins.DEVICE,
    **cuda_stand_ins.STREAMS,
    **cuda_stand_ins.RANDOM,
    **cuda_stand_ins.PROFILER_RANGES,
}

# Functions whose constants have to be replaced for CPU training; every supported megatron-core has them.
DEVICE_LITERALS = {
    "megatron.core.dist_checkpointing.exchange_utils:_get_empty_tensor_for_exchange",
    "megatron.core.dist_checkpointing.strategies.state_dict_saver:verify_global_md_reuse",
    "megatron.core.optimizer.clip_grads:clip_grad_by_total_norm_fp32",
    "megatron.core.optimizer.clip_grads:count_zeros_fp32",
    "megatron.core.optimizer.clip_grads:get_grad_norm_fp32",
    "megatron.core.optimizer.grad_scaler:MegatronGradScaler.__init__",
    "megatron.core.optimizer.optimizer:FP32Optimizer.__init__",
    "megatron.core.optimizer.optimizer:MixedPrecisionOptimizer.__init__",
    "megatron.core.pipeline_parallel.schedules:forward_backward_no_pipelining",
    "megatron.core.pipeline_parallel.schedules:forward_backward_pipelining_with_interleaving",
    "megatron.core.pipeline_parallel.schedules:forward_backward_pipelining_without_interleaving",
    "megatron.core.rerun_state_machine:RerunStateMachine._reduce_any",
    "megatron.core.tensor_parallel.data:_build_key_size_numel_dictionaries",
    "megatron.core.tensor_parallel.random:_get_cuda_rng_state",
    "megatron.core.tensor_parallel.random:_set_cuda_rng_state",
    "megatron.core.transformer.utils:get_default_causal_mask",
    "megatron.core.utils:local_multi_tensor_l2_norm",
}
TENSOR_TYPE_NAMES = {
    "megatron.core.optimizer.clip_grads:clip_grad_by_total_norm_fp32",
    "megatron.core.optimizer.distrib_optimizer:DistributedOptimizer._build_model_and_main_param_groups",
    "megatron.core.optimizer.distrib_optimizer:DistributedOptimizer.__init__",
    "megatron.core.optimizer.optimizer:Float16OptimizerWithFloat16Params.__init__",
}

TYPE_NAMES = tuple(f"torch.cuda.{name}" for name in ("FloatTensor", "HalfTensor", "BFloat16Tensor"))
# Parts of torch.cuda that answer without CUDA.
WORK_WITHOUT_CUDA = {
    *TYPE_NAMES,
    "torch.cuda.OutOfMemoryError",
    "torch.cuda.amp.custom_bwd",
    "torch.cuda.amp.custom_fwd",
    "torch.cuda.device_count",
    "torch.cuda.empty_cache",
    "torch.cuda.is_available",
    "torch.cuda.memory_allocated",
    "torch.cuda.memory_reserved",
    "torch.cuda.memory_stats",
}
# Code that touches CUDA in other ways and that CPU training does not reach, by module or module:function.
OUT_OF_REACH = {
    "megatron.core.dist_checkpointing.strategies.async_utils:PersistentAsyncCaller": "the forked writer serves",
    "megatron.core.distributed.fsdp": "shards by NCCL",
    "megatron.core.extensions": "Transformer Engine and other libraries of kernels",
    "megatron.core.fp8_utils": "8-bit floats are a GPU's",
    "megatron.core.full_cuda_graph": "CUDA graphs",
    "megatron.core.fusions": "kernels behind *_fusion settings",
    "megatron.core.inference": "generates, does not train",
    "megatron.core.models.gpt.fine_grained_callables": "overlaps expert communication on streams",
    "megatron.core.nccl_allocator": "NCCL's memory",
    "megatron.core.optimizer.optimizer_cuda_graph": "CUDA graphs",
    "megatron.core.pipeline_parallel.fine_grained_activation_offload": "moves activations off the GPU",
    "megatron.core.ssm": "state-space layers are not among the models here",
    "megatron.core.tensor_parallel.inference_layers": "generates, does not train",
    "megatron.core.tensor_parallel.layers:": "names CUDA's autocast when imported, which is never on here",
    "megatron.core.tensor_parallel.random:CudaRNGStatesTracker.__init__": "asked for by CUDA graphs",
    "megatron.core.transformer.cuda_graphs": "CUDA graphs",
    "megatron.core.transformer.experimental_attention_variant": "attention kernels",
    "megatron.core.transformer.moe": "mixture of experts is not among the models here",
    "megatron.core.utils:StragglerDetector": "watches a GPU's clock and temperature; off by default",
}


@pytest.fixture(scope="module")
def places(ranks: RankPool) -> tuple[dict[str, tuple[str, ...]], list[tuple[str, str]]]:
    """What install() replaced on a rank, and all uses of CUDA in the megatron-core modules loaded there."""
    installed, files = ranks.run(1, f"{WORKERS}:patched_places")[0]
    return installed, [use for module, path in files.items() for use in cuda_uses(module, path)]


def cuda_uses(module: str, path: str) -> Iterator[tuple[str, str]]:
    """Each use of `torch.cuda.NAME`, a device literal or a type name, with "module:function" that holds it."""

    def visit(node: ast.AST, names: list[str], in_function: bool) -> Iterator[tuple[str, str]]:
        place = f"{module}:{'.'.join(names)}"
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Attribute) and re.fullmatch(r"torch\.cuda(\.\w+)+", ast.unparse(child)):
                yield ast.unparse(child), place
            elif isinstance(child, ast.Constant) and child.value in ("cuda", *TYPE_NAMES):
                yield child.value, place
            elif isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                is_function = not isinstance(child, ast.ClassDef)
                inner = names if in_function else [*names, child.name]
                yield from visit(child, inner, in_function or is_function)
            elif not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
                yield from visit(child, names, in_function)

    yield from visit(ast.parse(Path(path).read_text()), [], False)


def test_every_patch_finds_its_targets(places: Any) -> None:
    installed, uses = places
    assert set(installed) == {patch.__name__ for patch in patches.PATCHES}
    assert not [name for name, targets in installed.items() if not targets]
    assert DEVICE_LITERALS - set(installed["device_literals"]) == set()
    assert TENSOR_TYPE_NAMES - set(installed["tensor_type_names"]) == set()
    assert set(STAND_INS) - {use for use, _ in uses} == set(), "no longer used by megatron-core"


def test_no_use_of_cuda_is_left_unpatched(places: Any) -> None:
    installed, uses = places
    rewritten = {*installed["device_literals"], *installed["tensor_type_names"]}
    left = [
        f"{use} in {place}"
        for use, place in uses
        if use not in STAND_INS and use not in WORK_WITHOUT_CUDA and place not in rewritten
        if not place.startswith(tuple(OUT_OF_REACH))
    ]
    assert not left, "patch these, or say in OUT_OF_REACH why CPU training does not get there"


def test_install_is_inert_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot() -> list[Any]:
        owners = [torch.cuda, torch.cuda.random, torch.cuda.nvtx, torch.Tensor, torch.nn.Module]
        for name in ("tensor_parallel.random", "transformer.torch_norm", "optimizer.clip_grads"):
            owners.append(importlib.import_module(f"megatron.core.{name}"))
        values = [value for owner in owners for value in vars(owner).values()]
        codes = [value.__code__ for value in values if isinstance(value, FunctionType)]
        return [*map(id, values), *map(id, codes), id(WrappedTorchNorm.__new__)]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # As in a process that never installed, in case another test did.
    monkeypatch.setattr(installing, "_installed", {})
    before = snapshot()
    assert install() is False
    assert snapshot() == before
    assert installed_patches() == {}


def test_install_twice_is_install_once(ranks: RankPool) -> None:
    assert ranks.run(1, f"{WORKERS}:install_again") == [True]


def config(**settings: Any) -> TransformerConfig:
    return TransformerConfig(num_layers=1, hidden_size=48, num_attention_heads=4, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("normalization", "ours", "theirs"),
    [("LayerNorm", LayerNorm, torch.nn.LayerNorm), ("RMSNorm", RMSNorm, torch.nn.RMSNorm)],
)
def test_norm_is_bit_identical_to_torch(normalization: str, ours: type, theirs: type, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    norm = Norm(config(normalization=normalization), 48, eps=1e-6).to(dtype)
    expected = theirs(48, eps=1e-6).to(dtype)
    assert isinstance(norm, ours)
    assert not any(p.sequence_parallel for p in norm.parameters())
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter.normal_()
    norm.load_state_dict(expected.state_dict())
    inputs = [torch.randn(7, 2, 48).to(dtype).requires_grad_() for _ in range(2)]
    with torch.no_grad():
        inputs[1].copy_(inputs[0])
    outputs = [norm(inputs[0]), expected(inputs[1])]
    for output in outputs:
        output.square().sum().backward()
    assert torch.equal(*outputs)
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    for a, b in zip(norm.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_norm_refuses_what_needs_a_fused_kernel() -> None:
    with pytest.raises(ValueError, match="layernorm_zero_centered_gamma"):
        Norm(config(layernorm_zero_centered_gamma=True), 48)
    with pytest.raises(ValueError, match="'L2Norm'"):
        Norm(config(normalization="L2Norm"), 48)


def test_constants_are_replaced_at_every_depth() -> None:
    def outer(device: str = "cuda", *, other: str = "cuda") -> list[Any]:
        def inner() -> tuple[str, bool]:
            return "cuda", "cuda" in ("cpu", "cuda")

        return [device, other, inner(), "cudax"]

    alias = outer
    assert replace_in_function(outer, {"cuda": "CPU"})
    assert alias() == ["CPU", "CPU", ("CPU", True), "cudax"]
    assert not replace_in_function(outer, {"cuda": "CPU"})


def test_gradients_are_scaled_in_place_and_a_rank_may_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("megatron.core.optimizer.clip_grads")
    monkeypatch.setattr(module, "multi_tensor_scale_impl", None)  # put back after the test
    patches.gradient_scaling()
    scale = module.multi_tensor_scale_impl
    gradients, copies = [torch.ones(3), torch.full((2,), 2.0)], [torch.zeros(3), torch.zeros(2)]
    scale(0, None, [gradients, copies], 0.5)
    assert [one.tolist() for one in (*gradients, *copies)] == [[1.0] * 3, [2.0] * 2, [0.5] * 3, [1.0] * 2]
    scale(0, None, [gradients, gradients], 0.5)
    assert [one.tolist() for one in gradients] == [[0.5] * 3, [1.0] * 2]
    scale(0, None, [[], []], 0.5)


def test_importing_the_package_changes_nothing_and_install_does() -> None:
    program = """
import sys
import dslm_patches.cpu
others = {"torch", "megatron", "apex", "transformer_engine"}
assert not others & set(sys.modules), "imported or hidden"

import torch
def state():
    return torch.compile, torch.cuda.current_device, torch.Tensor.cuda, torch.nn.Module.cuda
before = state()
assert dslm_patches.cpu.installed_patches() == {}
assert "megatron.core" not in sys.modules

assert dslm_patches.cpu.install()
assert sys.modules["apex"] is None and sys.modules["transformer_engine"] is None
assert "megatron.core.optimizer" in sys.modules
assert state()[0] is before[0], "put back"
assert not any(map(lambda a, b: a is b, state()[1:], before[1:]))
from dslm_patches.cpu import *
assert {LayerNorm, Norm, RMSNorm, install, installed_patches, keep_freed_memory, resume_distributed_adam}
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "imported already" not in done.stderr


@pytest.mark.slow
def test_what_needs_a_gpu_is_not_found_without_one(tmp_path: Path) -> None:
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex" / "__init__.py").write_text("found = True\n")
    late = "import megatron.core.optimizer, dslm_patches.cpu as cpu; assert cpu.install() and cpu.install()"
    early = "import dslm_patches.cpu; dslm_patches.cpu.install(); import apex"
    warning = "megatron-core on CPU: apex was imported already"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    for program, rank, code, times in ((late, "0", 0, 1), (late, "1", 0, 0), (early, "0", 1, 0)):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**environment, "RANK": rank},
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == code, done.stderr
        assert done.stderr.count(warning) == times
        assert ("ModuleNotFoundError" in done.stderr) == (program == early)


@pytest.mark.slow
def test_the_compiler_is_imported_by_what_megatron_core_compiles(tmp_path: Path) -> None:
    program = """
import sys
import dslm_patches.cpu
dslm_patches.cpu.install()
assert "torch._dynamo" not in sys.modules, "imported at the start"

import torch
import torch.nn.functional as F
assert torch.compile.__module__ == "torch"

from megatron.core.fusions.fused_bias_gelu import bias_gelu
x, bias = torch.randn(4, 8), torch.randn(8)
torch._dynamo.config.disable = True
torch.testing.assert_close(bias_gelu(bias, x), F.gelu(x + bias, approximate="tanh"))

graphs = []
def backend(graph, inputs):
    graphs.append(graph)
    return graph

from dslm_patches.cpu.late_compile import compiled_late
torch._dynamo.config.disable = False
double = compiled_late(lambda function: torch.compile(function, backend=backend), lambda x: 2 * x)
assert not graphs
torch.testing.assert_close([double(x), double(x)], [2 * x, 2 * x])
assert len(graphs) == 1
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
