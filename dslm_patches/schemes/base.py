"""The vocabulary of depth schemes: weight roles, a user's options, and what a scheme prescribes for a model's shape."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from dslm_patches.errors import UserError
from dslm_patches.theory.shape import ModelShape

NormPlacement = Literal["pre", "post"]


class WeightRole(Enum):
    """What a weight does, whatever the model and whatever matrix it is fused into."""

    WORD_EMBEDDING = "word embedding"
    POSITION_EMBEDDING = "position embedding"
    TOKENTYPE_EMBEDDING = "token-type embedding"
    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    ATTENTION_OUTPUT = "attention output"
    CROSS_QUERY = "cross query"
    CROSS_KEY = "cross key"
    CROSS_VALUE = "cross value"
    CROSS_OUTPUT = "cross output"
    FFN_UP = "FFN up"
    FFN_DOWN = "FFN down"
    LM_HEAD_TRANSFORM = "LM head transform"
    OUTPUT = "output (untied)"
    POOLER = "pooler"
    BINARY_HEAD = "binary head"


@dataclass(frozen=True)
class SchemeOptions:
    """What a user may set about a scheme; each scheme reads its own.

    Attributes:
        norm_placement: LayerNorm on the branch's input ("pre") or on the skip itself ("post").
        init_method_std: standard deviation of the `megatron` scheme.
        k, alpha: beta^2 = k / N^alpha over N layers, lambda^2 = 1 - beta^2.
        lambda_sq, beta_sq: the same given outright; one of them is enough.
    """

    norm_placement: NormPlacement = "pre"
    init_method_std: float = 0.02
    k: float = 2.0
    alpha: float = 1.0
    lambda_sq: float | None = None
    beta_sq: float | None = None


class OptionError(UserError):
    """Options that a scheme cannot hold, told by the fields of `SchemeOptions`; `worded` tells them in other words.

    Attributes:
        template: the message, with the field's name in braces where it speaks of an option.
        fields: the fields that it speaks of.
    """

    def __init__(self, template: str, *fields: str) -> None:
        super().__init__(template, *fields)
        self.template, self.fields = template, fields

    def __str__(self) -> str:
        return self.worded(str)

    def worded(self, spell: Callable[[str], str]) -> str:
        """The message with each option as `spell` writes its field: as a flag, or as an argument of another name."""
        return self.template.format(**{field: spell(field) for field in self.fields})


@dataclass(frozen=True)
class LayerPrescription:
    """One layer: the std of each of its weight roles and the residual x' = skip x + branch f(x)."""

    std: Mapping[WeightRole, float]
    skip_scale: float = 1.0
    branch_scale: float = 1.0


@dataclass(frozen=True)
class DepthScheme:
    """What a depth scheme prescribes for one model: plain data, applied by `dslm_patches.mcore`.

    Attributes:
        layers: one prescription a layer, from the bottom.
        model_std: std of the weights outside the layers.
        head_scale: factor on the hidden states just before the output logits.
        shape: the model that it was reckoned for; None of one that was written by hand.
    """

    name: str
    norm_placement: NormPlacement
    layers: tuple[LayerPrescription, ...]
    model_std: Mapping[WeightRole, float]
    head_scale: float = 1.0
    shape: ModelShape | None = None

    def std(self, role: WeightRole, layer_number: int | None = None) -> float:
        """Std of a role, in layer `layer_number` (from 1) or outside the layers (None)."""
        table = self.model_std if layer_number is None else self.layers[layer_number - 1].std
        return table[role]
