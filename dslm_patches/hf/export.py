"""Writes a folder that transformers loads anywhere: weights, configuration, its own code, tokenizer, model card."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer, processors
from torch import Tensor
from transformers.dynamic_module_utils import custom_object_save

from dslm_patches.files import new_folder
from dslm_patches.hf_folder import require_new

from .card import model_card
from .configuration_dslm import DslmConfig
from .modeling_dslm_bert import DslmBertModel
from .modeling_dslm_gpt import DslmGPTModel


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer to go with a model.

    Attributes:
        backend: as used in training, without special tokens in text and around it; these are added here.
        special: transformers' names of the special tokens, as cls_token, and the tokens.
        files: vocabulary files to copy, by their names in the folder.
    """

    backend: Tokenizer
    special: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)


def export_model(
    state: Mapping[str, Tensor],
    config: DslmConfig,
    folder: str,
    *,
    model_class: str,
    tokenizer: TokenizerFiles | None = None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Writes the folder aside and renames it, so that it is there complete or not at all.

    Args:
        state: by the names of the classes with heads (`convert.to_hf`).
        model_class: name of the class that the weights are of.
        facts: what the model card tells besides, as name and value.

    Raises:
        ValueError: the folder is there and not empty.
    """
    require_new(folder, "folder")
    with new_folder(Path(folder)) as aside:
        config.architectures = [model_class]
        config.dtype = next(iter(state.values())).dtype
        config.save_pretrained(aside)
        custom_object_save(DslmGPTModel if config.causal else DslmBertModel, aside)
        save_file(
            {name: tensor.contiguous() for name, tensor in state.items()}, aside / "model.safetensors", {"format": "pt"}
        )
        if config.causal:
            _write_json(aside / "generation_config.json", _generation(config))
        if tokenizer is not None:
            _write_tokenizer(tokenizer, config, aside)
        (aside / "README.md").write_text(model_card(config, model_class, facts or {}), encoding="utf-8")


def _generation(config: DslmConfig) -> dict[str, Any]:
    """Generation's defaults: the rows that pad the vocabulary are never chosen."""
    known = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    settings: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    padding = list(range(config.tokenizer_vocab_size or config.vocab_size, config.vocab_size))
    return {**settings, "suppress_tokens": padding} if padding else settings


def _write_tokenizer(tokenizer: TokenizerFiles, config: DslmConfig, folder: Path) -> None:
    """tokenizer.json and its configuration, for transformers' class that takes the file as it is.

    BertTokenizerFast and GPT2TokenizerFast build their tokenizer anew from the vocabulary, with limits of their own:
    a word above 100 characters would be unknown.
    """
    backend = Tokenizer.from_str(tokenizer.backend.to_str())
    special = dict(tokenizer.special)
    backend.add_special_tokens(sorted(set(special.values())))
    inputs = ["input_ids", "attention_mask"]
    if "cls_token" in special:
        cls, sep = special["cls_token"], special["sep_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{cls} $A {sep}",
            pair=f"{cls} $A {sep} $B:1 {sep}:1",
            special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
        )
        if config.type_vocab_size:
            inputs.insert(1, "token_type_ids")
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_position_embeddings,
        "model_input_names": inputs,
        "clean_up_tokenization_spaces": False,
        **special,
    }
    _write_json(folder / "tokenizer_config.json", settings)
    for name, source in tokenizer.files.items():
        shutil.copyfile(source, folder / name)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
