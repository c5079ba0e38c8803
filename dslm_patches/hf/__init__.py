"""BERT and GPT under a depth scheme for Hugging Face transformers, without megatron-core.

Importing this registers them: AutoConfig, AutoModel and AutoModelFor... know "dslm_bert" and "dslm_gpt".
"""

import transformers

from .configuration_dslm import DslmBertConfig, DslmGPTConfig
from .modeling_dslm_bert import (
    DslmBertForMaskedLM,
    DslmBertForMultipleChoice,
    DslmBertForPreTraining,
    DslmBertForSequenceClassification,
    DslmBertModel,
)
from .modeling_dslm_gpt import DslmGPTForCausalLM, DslmGPTModel

__all__ = [
    "DslmBertConfig",
    "DslmBertForMaskedLM",
    "DslmBertForMultipleChoice",
    "DslmBertForPreTraining",
    "DslmBertForSequenceClassification",
    "DslmBertModel",
    "DslmGPTConfig",
    "DslmGPTForCausalLM",
    "DslmGPTModel",
]

_MODELS = (
    DslmBertModel,
    DslmBertForPreTraining,
    DslmBertForMaskedLM,
    DslmBertForSequenceClassification,
    DslmBertForMultipleChoice,
    DslmGPTModel,
    DslmGPTForCausalLM,
)


def _register() -> None:
    models = {f"{model.__module__.rpartition('.')[2]}.{model.__name__}": model for model in _MODELS}
    for config_class in (DslmBertConfig, DslmGPTConfig):
        transformers.AutoConfig.register(config_class.model_type, config_class)
        config_class.register_for_auto_class()
        for auto_class, name in config_class.auto_classes.items():
            if auto_class != "AutoConfig":
                getattr(transformers, auto_class).register(config_class, models[name])
                models[name].register_for_auto_class(auto_class)


_register()
