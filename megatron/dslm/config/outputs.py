"""What a run keeps, shows and measures."""

from dataclasses import dataclass

from dslm_patches.tracing.names import SITES
from megatron.dslm.config.setting import NOT_NEGATIVE, POSITIVE, OnResume, setting

BY_NAME, FREE = OnResume.BY_NAME, OnResume.FREE


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """checkpoints"""

    save: str = setting(FREE, None)
    """folder for checkpoints; saved at the end too"""
    load: str = setting(FREE, None)
    """folder to resume from; a folder without a checkpoint starts anew"""
    override_settings: list[str] = setting(FREE, [], metavar="NAME")
    """go on from --load with these flags' values of the settings that may be taken over by name (docs/reliability.md
    lists them)"""
    save_interval: int = setting(FREE, None, bounds=POSITIVE)
    """iterations between checkpoints"""
    keep_last: int = setting(FREE, None, bounds=POSITIVE, metavar="N")
    """checkpoints that --save keeps; default all"""
    async_save: bool = setting(FREE, False)
    """write checkpoints while training goes on"""
    pretrained_checkpoint: str = setting(BY_NAME, None, metavar="FOLDER")
    """weights to start from where --load holds no checkpoint: what --save wrote, in any layout, or a Hugging Face
    folder; without it the model starts from its depth scheme's initialisation"""


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """logging"""

    log_interval: int = setting(FREE, 10, bounds=POSITIVE)
    """iterations between progress lines"""
    tensorboard_dir: str = setting(FREE, None)
    """where TensorBoard events go"""


@dataclass(frozen=True, kw_only=True)
class TracingConfig:
    """tracing: every layer's signal, measured over the whole batch in any layout, to TensorBoard and trace.jsonl"""

    trace_interval: int = setting(FREE, None, bounds=NOT_NEGATIVE)
    """iterations between traced ones, the first among them; 0 traces nothing; default 10 where there is a folder for
    traces"""
    trace_sites: list[str] = setting(FREE, None, choices=tuple(SITES))
    """what to trace; default layer"""
    trace_dir: str = setting(FREE, None)
    """folder of trace.jsonl; default --tensorboard-dir"""
    trace_theory: bool = setting(FREE, False)
    """draw the theory's prediction for the initial weights beside it"""
    trace_halt_on: str = setting(FREE, None, choices=("non-finite",))
    """stop all ranks when a traced tensor is not finite, and say which"""
    trace_growth_limit: float = setting(FREE, 1.02, bounds=POSITIVE)
    """warn when gradient variance changes, in three traced steps in a row after the warm-up, by more than this factor a
    layer and by more than 100 in all"""
    trace_correlation_limit: float = setting(FREE, 0.98, bounds=POSITIVE)
    """warn when, as long, the tokens of a layer are more correlated than this"""
