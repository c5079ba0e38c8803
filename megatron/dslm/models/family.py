"""What a model family is, found by its name. A room each below this one; torch is imported when a model is built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from megatron.core.transformer import TransformerConfig
    from megatron.core.transformer.module import MegatronModule

    from dslm_patches.schemes import WeightRole

NAMES = ("bert", "gpt")


class ModelProvider(Protocol):
    """Builds one chunk of a model: `vp_stage` of this pipeline rank."""

    def __call__(
        self,
        args: Namespace,
        config: TransformerConfig,
        *,
        pre_process: bool,
        post_process: bool,
        vp_stage: int | None,
    ) -> MegatronModule: ...


class FamilyModel(Protocol):
    """The module `model` of a family's room, which imports torch and megatron-core.

    Attributes:
        provide_model: builds one chunk of the model.
    """

    provide_model: ModelProvider

    def dataset(self, args: Namespace) -> tuple[type, Any]:
        """Class and configuration of the samples, for `build_datasets`."""

    def forward_step(self, data_iterator: Iterator[Any], model: Any) -> tuple[Any, Any]:
        """One micro-batch through a chunk: its output, and the function from that to loss and reported losses."""

    def random_batch(self, args: Namespace, vocab_size: int) -> dict[str, Any]:
        """One micro-batch of random tokens that follow Zipf's law, with the keys of the samples."""


class Family(ABC):
    """A model family: what programs, checks, summaries and folders ask about it.

    Attributes:
        name: of its room, in checkpoints, and in the program's name.
        title: in texts.
        causal: each token sees those before it alone, and predicts the next.
        model_settings, data_settings: dataclasses of flags of its own.
        tokenizer_types: of --tokenizer-type that it can be trained with, its default first.
        published_vocabulary: tokens of the vocabulary that it was published with, where no other is given.
        hf_name: of transformers' classes: Dslm{hf_name}Config, Dslm{hf_name}Model.
        hf_classes: ends of the names of the classes that a checkpoint may become.
    """

    name: str
    title: str
    causal: bool
    model_settings: tuple[type, ...] = ()
    data_settings: tuple[type, ...] = ()
    tokenizer_types: tuple[str, ...]
    published_vocabulary: int
    hf_name: str
    hf_classes: tuple[str, ...]

    @property
    def program(self) -> str:
        """The entry point that pretrains it."""
        return f"pretrain_{self.name}.py"

    @property
    def hf_model_type(self) -> str:
        """`model_type` of a Hugging Face folder's config.json."""
        return f"dslm_{self.name}"

    def model(self) -> FamilyModel:
        """What builds, feeds and scores it."""
        return import_module(f"megatron.dslm.models.{self.name}.model")

    def check(self, args: Namespace) -> None:  # noqa: B027
        """Refuses what the family cannot do of checked model flags.

        Raises:
            UserError: the flag is named.
        """

    def has_segments(self, args: Namespace) -> bool:
        """Whether tokens have types, with a table of embeddings for them."""
        return False

    @abstractmethod
    def head_roles(self, args: Namespace) -> list[WeightRole]:
        """The weight roles above the layers, from the bottom up; without the output's matrix."""

    @abstractmethod
    def head_products(self, args: Namespace) -> float:
        """Weights that a token is multiplied with above the layers, in the mean over the tokens of a batch."""

    def units(self, lengths: np.ndarray, ends: np.ndarray) -> int:
        """How many parts of an index a split is cut by: its sequences.

        Args:
            lengths: tokens of each sequence, [sequences].
            ends: 0, and where each document ends among the sequences, [documents + 1].
        """
        return len(lengths)

    def check_documents(
        self, lengths: np.ndarray, ends: np.ndarray, begin: int, end: int, split: str, source: str, args: Namespace
    ) -> Any:
        """Counts of what samples leave out of `begin` to `end` of the `units`; None where all of it is used.

        Args:
            split, source: for messages: "train", and the flag and prefix of the data.

        Raises:
            UserError: nothing of it can be used; `source` is named.
        """
        return None

    def describe_unused(self, counts: dict[str, Any]) -> str:
        """What `check_documents` counted of each split, in words; "" where all of it is used."""
        return ""

    def upgrade(self, saved: dict[str, Any]) -> None:  # noqa: B027
        """Corrects in a checkpoint's recorded arguments what earlier versions recorded wrongly."""

    @abstractmethod
    def objective(self, saved: dict[str, Any]) -> str:
        """What a checkpoint with these recorded arguments was pretrained for."""

    @abstractmethod
    def hf_class(self, saved: dict[str, Any]) -> str:
        """The one of hf_classes that has all the heads of a pretrained checkpoint with these recorded arguments."""

    def hf_fields(self, saved: dict[str, Any]) -> dict[str, Any]:
        """Fields of its own in a Hugging Face configuration, for a checkpoint's recorded arguments."""
        return {}

    @abstractmethod
    def hf_arguments(self, fields: dict[str, Any], folder: str, flag: str) -> dict[str, Any]:
        """The inverse of `hf_fields`, and tokenizer_type as far as the folder tells it.

        Raises:
            UserError: a model that the family's flags cannot describe; `flag` and the field are named.
        """


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in NAMES:
        raise ValueError(f"no model family {name!r}: known are {', '.join(NAMES)}")
    found: Family = import_module(f"megatron.dslm.models.{name}").FAMILY
    return found


def families() -> list[Family]:
    """All of them."""
    return [family(name) for name in NAMES]
