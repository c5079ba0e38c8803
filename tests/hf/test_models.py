"""The models as transformers' models: saving, initialisation, attention, gradients, generation, losses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

import dslm_patches.hf as hf
from dslm_patches.hf import (
    DslmBertConfig,
    DslmBertForMaskedLM,
    DslmBertForPreTraining,
    DslmBertForSequenceClassification,
    DslmGPTForCausalLM,
)
from tests.hf.small import MODELS, MODERN, SMALL, small


def batch(choices: bool = False) -> dict[str, torch.Tensor]:
    """Ids and mask of three sequences, the last two padded on the right."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 300, (3, 24), generator=generator)
    mask = (torch.arange(24) < torch.tensor([[24], [20], [9]])).long()
    return {
        name: one.unsqueeze(1) if choices else one for name, one in {"input_ids": ids, "attention_mask": mask}.items()
    }


def run(model: Any) -> torch.Tensor:
    """The first output of a model in eval mode, at tokens that are no padding."""
    inputs = batch(choices="MultipleChoice" in type(model).__name__)
    with torch.no_grad():
        output = model.eval()(**inputs)[0]
    return output[inputs["attention_mask"].bool()] if output.shape[:2] == (3, 24) else output


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("settings", [{}, {**MODERN, "tie_word_embeddings": False}], ids=["plain", "modern"])
def test_saved_and_loaded_it_is_the_same(model_class: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    model = small(model_class, **settings)
    model.save_pretrained(tmp_path)
    loaded, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.state_dict().keys() == loaded.state_dict().keys()
    assert all(torch.equal(one, loaded.state_dict()[name]) for name, one in model.state_dict().items())
    # Products with few columns depend on how memory is aligned, in the last bit.
    torch.testing.assert_close(run(model), run(loaded), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model_class", [DslmBertForPreTraining, DslmGPTForCausalLM])
@pytest.mark.parametrize("settings", [{}, MODERN], ids=["plain", "modern"])
def test_sdpa_is_eager(model_class: Any, settings: dict[str, Any]) -> None:
    model = small(model_class, **settings)
    model.set_attn_implementation("eager")
    eager = run(model)
    with torch.no_grad():
        weights = model(**batch(), output_attentions=True).attentions
    assert len(weights) == 4
    assert weights[0].shape == (3, 4, 24, 24)
    model.set_attn_implementation("sdpa")
    assert (run(model) - eager).abs().max() < 1e-5


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
@pytest.mark.parametrize("model_class", [DslmBertForMaskedLM, DslmGPTForCausalLM])
def test_gradient_checkpointing_gives_the_same_gradients(model_class: Any) -> None:
    model = small(model_class).train()
    inputs = batch()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.base_model.layers[0].gradient_checkpointing
        model.zero_grad()
        torch.manual_seed(2)
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("settings", [{}, {**MODERN, "norm_placement": "post"}], ids=["plain", "modern"])
def test_generation_with_cache_is_without(settings: dict[str, Any]) -> None:
    model = small(DslmGPTForCausalLM, **settings).eval()
    ids = batch()["input_ids"][:, :12]
    # Padding stands on the left of what is to be continued.
    mask = (torch.arange(12) >= torch.tensor([[0], [3], [7]])).long()
    common = {"attention_mask": mask, "max_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
    cached = model.generate(ids, use_cache=True, **common)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **common))
    alone = model.generate(ids[1:2, 3:], max_new_tokens=10, do_sample=False, pad_token_id=0)
    assert torch.equal(alone[0], cached[1, 3:])
    with torch.no_grad():
        first = model(ids[:, :8], use_cache=True)
        second = model(ids[:, 8:], past_key_values=first.past_key_values).logits
        assert (second - model(ids).logits[:, 8:]).abs().max() < 1e-5
        assert (model(ids, logits_to_keep=1).logits - model(ids).logits[:, -1:]).abs().max() < 1e-6


def test_losses_are_transformers() -> None:
    ids, mask = batch().values()
    model = small(DslmBertForPreTraining).eval()
    labels = torch.where(mask.bool(), ids, -100)
    output = model(ids, mask, labels=labels, next_sentence_label=torch.tensor([0, 1, 1]))
    lm = torch.nn.functional.cross_entropy(output.prediction_logits.transpose(1, 2), labels)
    nsp = torch.nn.functional.cross_entropy(output.seq_relationship_logits, torch.tensor([0, 1, 1]))
    assert output.loss.item() == pytest.approx((lm + nsp).item(), rel=1e-5)
    masked = small(DslmBertForMaskedLM).eval()
    kept = (labels != -100).sum()
    mean = masked(ids, mask, labels=labels).loss.item()
    assert masked(ids, mask, labels=labels, num_items_in_batch=2 * kept).loss.item() == pytest.approx(
        mean / 2, rel=1e-5
    )
    kinds = {
        "regression": (1, torch.tensor([0.5, 1.0, -1.0])),
        "single_label_classification": (3, torch.tensor([2, 0, 1])),
        "multi_label_classification": (3, torch.tensor([[1.0, 0.0, 1.0]] * 3)),
    }
    for kind, (count, targets) in kinds.items():
        classifier = small(DslmBertForSequenceClassification, num_labels=count).eval()
        result = classifier(ids, mask, labels=targets)
        assert classifier.config.problem_type == kind
        expected = {
            "regression": lambda logits, t: torch.nn.functional.mse_loss(logits.squeeze(), t),
            "single_label_classification": torch.nn.functional.cross_entropy,
            "multi_label_classification": torch.nn.functional.binary_cross_entropy_with_logits,
        }[kind](result.logits, targets)
        assert result.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    choice = small(hf.DslmBertForMultipleChoice).eval()
    result = choice(ids.expand(2, 3, 24), mask.expand(2, 3, 24), labels=torch.tensor([1, 2]))
    assert result.logits.shape == (2, 3)
    causal = small(DslmGPTForCausalLM).eval()(ids, labels=ids)
    shifted = torch.nn.functional.cross_entropy(causal.logits[:, :-1].transpose(1, 2), ids[:, 1:])
    assert causal.loss.item() == pytest.approx(shifted.item(), rel=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("model_class", [DslmBertForMaskedLM, DslmGPTForCausalLM])
def test_the_vocabulary_can_grow(model_class: Any, tied: bool, tmp_path: Path) -> None:
    model = small(model_class, tie_word_embeddings=tied)
    before = run(model)
    model.resize_token_embeddings(320, mean_resizing=False)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) is tied
    std = model.config.model_std("word_embedding")
    assert model.get_input_embeddings().weight[300:].std().item() == pytest.approx(std, rel=0.2)
    after = run(model)
    assert after.shape[-1] == 320
    assert torch.allclose(after[..., :300], before, atol=1e-6)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(run(model_class.from_pretrained(tmp_path)), after, rtol=1e-6, atol=1e-6)


def test_auto_classes_know_the_models(tmp_path: Path) -> None:
    config = DslmBertConfig(**SMALL)
    assert type(AutoModel.from_config(config)) is hf.DslmBertModel
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    assert type(AutoModelForMaskedLM.from_pretrained(tmp_path)) is DslmBertForMaskedLM
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path)) is DslmBertForSequenceClassification
    assert type(AutoModel.from_pretrained(tmp_path)) is hf.DslmBertModel


def test_too_long_a_sequence_is_named() -> None:
    with pytest.raises(ValueError, match="input_ids: 41 tokens, more than max_position_embeddings 40"):
        small(DslmGPTForCausalLM)(torch.zeros(1, 41, dtype=torch.long))
