"""What becomes of each flag when a run goes on from a checkpoint: whether it may change, and by whose leave.

Read without torch. Each setting says its class where it is defined, in megatron.dslm.config.
"""

from megatron.dslm.config.model import DepthSchemeConfig, ModelConfig
from megatron.dslm.config.setting import OnResume, spelled
from megatron.dslm.models.family import families
from megatron.dslm.models.sections import names

SCHEME = (*names(OnResume.NEVER, (DepthSchemeConfig,)), "seq_length")
"""Settings that make a model's depth scheme."""
_MODEL = (ModelConfig, *(section for one in families() for section in one.model_settings))
ARCHITECTURE = ("model", *(name for name in names(OnResume.NEVER, _MODEL) if name not in SCHEME))
"""Settings that make its function and its tensors."""
DROPOUT = names(OnResume.BY_NAME, (ModelConfig,))
"""Part of the scheme too under DeepScaleLM, whose head scale follows from them."""
TASK_DATA = ("train_data", "valid_data")
START = ("pretrained_checkpoint",)
"""What a run began from: it may be left out when the run goes on, but not be another."""
LAYOUT = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "data_parallel_size")
"""Recorded, for random states that belong to a layout; free to change."""

CLASSES: dict[OnResume, tuple[str, ...]] = {kind: names(kind) for kind in OnResume}
"""Each setting by its name."""
CLASSES[OnResume.NEVER] = ("model", *CLASSES[OnResume.NEVER])
CLASS_OF = {name: kind for kind, found in CLASSES.items() for name in found}


def markdown_table() -> str:
    """The classes as a table for the docs."""
    rows = ["| a resumed run may have another value | flags |", "|---|---|"]
    for kind, found in CLASSES.items():
        flags = ", ".join(f"`{spelled(name)}`" for name in found if name != "model")
        rows.append(f"| {kind.value} | {flags} |")
    return "\n".join(rows) + "\n"
