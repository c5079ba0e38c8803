"""Which parts make up a program's configuration, in the order of --help, and all settings by name."""

import functools
import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence

from megatron.dslm.config.data import DataConfig, FinetuningConfig, TokenizerConfig
from megatron.dslm.config.model import DepthSchemeConfig, ModelConfig
from megatron.dslm.config.outputs import CheckpointConfig, LoggingConfig, TracingConfig
from megatron.dslm.config.setting import OnResume, Setting, settings_of, spelled
from megatron.dslm.config.training import (
    LearningRateConfig,
    OptimizerConfig,
    ParallelismConfig,
    PretrainingConfig,
    TrainingConfig,
)
from megatron.dslm.models.family import families, family

_RUN = (ParallelismConfig, TrainingConfig, OptimizerConfig, LearningRateConfig)
_OUTPUTS = (CheckpointConfig, LoggingConfig, TracingConfig)


def model_sections(model: str) -> tuple[type, ...]:
    """What describes a model of a family at initialisation."""
    return (ModelConfig, *family(model).model_settings, DepthSchemeConfig)


def data_sections(model: str) -> tuple[type, ...]:
    """What describes its vocabulary and corpus."""
    return (TokenizerConfig, DataConfig, *family(model).data_settings)


def pretraining_sections(model: str) -> tuple[type, ...]:
    """Of the program that pretrains a family."""
    return (*model_sections(model), *_RUN, PretrainingConfig, *data_sections(model), *_OUTPUTS)


def finetuning_sections(model: str) -> tuple[type, ...]:
    """Of finetune.py, for models of a family."""
    return (FinetuningConfig, *model_sections(model), *_RUN, TokenizerConfig, *_OUTPUTS)


@functools.cache
def all_settings() -> dict[str, Setting]:
    """Every setting of any program by its name."""
    sections = [
        section for one in families() for section in (*finetuning_sections(one.name), *pretraining_sections(one.name))
    ]
    return {name: one for section in sections for name, one in settings_of(section).items()}


def names(on_resume: OnResume, sections: Sequence[type] | None = None) -> tuple[str, ...]:
    """The settings of a class, of some sections or of all."""
    settings = all_settings() if sections is None else {k: v for one in sections for k, v in settings_of(one).items()}
    return tuple(name for name, one in settings.items() if one.on_resume is on_resume)


def settings_given(args: Namespace, sections: Sequence[type], defaults: Mapping[str, object]) -> dict[str, object]:
    """The settings of parsed flags that are not their defaults, by name.

    Args:
        defaults: of the program, in place of the settings' own.
    """
    settings = {name: one for section in sections for name, one in settings_of(section).items()}
    usual = {name: one.default for name, one in settings.items()} | dict(defaults)
    return {name: getattr(args, name) for name in settings if getattr(args, name) != usual[name]}


def as_flags(given: dict[str, object]) -> str:
    """Settings as they would stand on a command line."""
    words = []
    for name, value in given.items():
        if value is False:
            words.append(f"--no-{name.replace('_', '-')}")
        else:
            words.append(spelled(name))
            words += [] if value is True else map(str, value) if isinstance(value, list) else [str(value)]
    return shlex.join(words)
