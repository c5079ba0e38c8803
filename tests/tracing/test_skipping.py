"""Which modules the tracer takes for ones that skip what nobody looks at."""

import pytest
import torch
from megatron.core.models.bert.bert_model import BertModel
from megatron.core.transformer.dot_product_attention import DotProductAttention

from dslm_patches.mcore.cpu_attention import CpuAttention
from dslm_patches.tracing.names import COMPUTED
from dslm_patches.tracing.skipping import SkipsSite
from megatron.dslm.models.bert.labelled import LabelledBert


@pytest.mark.parametrize("kind", [CpuAttention, LabelledBert])
def test_what_skips_a_site_is_one_by_its_shape(kind: type[torch.nn.Module]) -> None:
    module = kind.__new__(kind)
    torch.nn.Module.__init__(module)
    assert isinstance(module, SkipsSite)
    assert module.skips_site in COMPUTED
    assert module.in_full is False, "until a tracer measures the site"


@pytest.mark.parametrize("kind", [DotProductAttention, BertModel, torch.nn.Module])
def test_other_modules_are_none(kind: type[torch.nn.Module]) -> None:
    module = kind.__new__(kind)
    torch.nn.Module.__init__(module)
    assert not isinstance(module, SkipsSite)
