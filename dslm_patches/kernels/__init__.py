"""Operations of a training step on CPU, in fewer passes over memory than torch's own put together."""

from dslm_patches.kernels.attention import dropout_attention
from dslm_patches.kernels.cross_entropy import cross_entropy
from dslm_patches.kernels.dropout import Dropout, dropout
from dslm_patches.kernels.linear import linear
from dslm_patches.kernels.residual import residual_add

__all__ = ["Dropout", "cross_entropy", "dropout", "dropout_attention", "linear", "residual_add"]
