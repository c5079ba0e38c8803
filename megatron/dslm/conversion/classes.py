"""Which of transformers' model classes a checkpoint becomes."""

from typing import Any

from dslm_patches.errors import UserError
from megatron.dslm.models.family import family
from megatron.dslm.tasks import TASKS

PARTS = {
    "ForPreTraining": {"lm_head", "pooler", "binary_head"},
    "ForMaskedLM": {"lm_head"},
    "ForSequenceClassification": {"pooler", "classifier"},
    "ForMultipleChoice": {"pooler", "classifier"},
    "ForCausalLM": {"lm_head"},
    "Model": {"pooler"},
}
"""Parts of `dslm_patches.hf.tensor_names`, besides the body, that each class has a place for."""


def default_class(saved: dict[str, Any]) -> str:
    """The class that has all the heads of a checkpoint with these recorded arguments."""
    if saved.get("task") is not None:
        return "ForMultipleChoice" if TASKS[saved["task"]].choices > 1 else "ForSequenceClassification"
    return family(saved["model"]).hf_class(saved)


def check_class(chosen: str, saved: dict[str, Any]) -> None:
    """Refuses a class that does not go with a checkpoint.

    Raises:
        UserError: it does not; --model-class is named.
    """
    known = family(saved["model"]).hf_classes
    if chosen not in known:
        raise UserError(
            f"--model-class {chosen} does not go with a {family(saved['model']).title}: give one of {', '.join(known)}"
        )
    if saved.get("task") is not None and chosen not in (default_class(saved), "Model"):
        raise UserError(f"--model-class {chosen}: a model fine-tuned for {saved['task']} is {default_class(saved)}")
    if saved.get("bert_no_binary_head") and saved.get("task") is None and chosen == "ForPreTraining":
        raise UserError("--model-class ForPreTraining: this BERT has no next-sentence head; give ForMaskedLM")


def labels(saved: dict[str, Any]) -> dict[str, Any]:
    """The configuration's fields of a fine-tuned model's classes."""
    task = None if saved.get("task") is None else TASKS[saved["task"]]
    if task is None or task.choices > 1:
        return {}
    if task.regression:
        return {"num_labels": 1, "problem_type": "regression"}
    return {
        "id2label": dict(enumerate(task.labels)),
        "label2id": {label: index for index, label in enumerate(task.labels)},
        "problem_type": "single_label_classification",
    }
