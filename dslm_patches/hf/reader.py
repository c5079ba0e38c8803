"""Reads a Hugging Face folder, of a Dslm model or a stock BERT, tensor by tensor, without building its model."""

from contextlib import ExitStack
from types import TracebackType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dslm_patches.hf_folder import read_config, weight_files

from .configuration_dslm import DslmBertConfig, DslmConfig, DslmGPTConfig
from .convert import present
from .stock import from_stock_names, stock_bert_config
from .tensor_names import Correspondence, full_names


class FolderReader:
    """The tensors of a folder by the names of the classes with heads, read when they are asked for. A context manager.

    Attributes:
        config: the model's; a stock BERT's as a DslmBertConfig.
        names: of the tensors that are there.

    Raises:
        ValueError: no such folder, pickled weights, tensors of another model; the file or tensor is named.
    """

    def __init__(self, folder: str, flag: str = "--load") -> None:
        config = read_config(folder, flag)
        self.config: DslmConfig
        if config["model_type"] == "bert":
            self.config = stock_bert_config(config)
        else:
            kind = DslmBertConfig if config["model_type"] == "dslm_bert" else DslmGPTConfig
            self.config = kind.from_pretrained(folder)
        self._open = ExitStack()
        files = [self._opened(path, flag) for path in weight_files(folder, flag)]
        self._files: dict[str, Any] = {name: file for file in files for name in file.keys()}  # noqa: SIM118  # no dict
        self._given = self._stored_names(stock=config["model_type"] == "bert")
        self.names = set(self._given)

    def _opened(self, path: str, flag: str) -> Any:
        try:
            return self._open.enter_context(safe_open(path, framework="pt"))
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{flag}: {path} cannot be read: {error}") from None

    def __enter__(self) -> "FolderReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def tensor(self, name: str) -> Tensor:
        """The tensor of a name in `names`."""
        given = self._given[name]
        return self._files[given].get_tensor(given)

    def correspondences(self, *, strict: bool = True) -> list[Correspondence]:
        """The tensors of Megatron's model that the folder holds; unless strict, others are left out."""
        return present(self.names, self.config, strict=strict)

    def _stored_names(self, *, stock: bool) -> dict[str, str]:
        if stock:
            assert isinstance(self.config, DslmBertConfig)
            return from_stock_names(self._files, self.config)
        return full_names(self._files, self.config)
