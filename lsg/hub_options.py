"""How a checkpoint is found and loaded: those keywords of `from_pretrained` that a conversion takes."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils import cached_file


@dataclass(frozen=True)
class HubOptions:
    """Keywords of `from_pretrained`, with its names and meanings.

    Args:
        dtype: number format of the model; None or "auto" for that of the checkpoint.
        trust_remote_code: whether the tokenizer's own code may run.
    """

    token: str | bool | None = field(default=None, repr=False)
    revision: str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool | None = None
    force_download: bool | None = None
    subfolder: str | None = None
    dtype: str | torch.dtype | None = None
    trust_remote_code: bool | None = None

    @classmethod
    def take_from(cls, keywords: dict[str, Any]) -> "HubOptions":
        """Remove these options from keywords, in place, and return them."""
        return cls(**{name: keywords.pop(name) for name in HUB_FIELDS if name in keywords})

    def for_files(self) -> dict[str, Any]:
        """Return the keywords that are set, for functions that read or list files."""
        own = ("dtype", "trust_remote_code")
        return {name: value for name, value in vars(self).items() if value is not None and name not in own}

    def for_model(self) -> dict[str, Any]:
        """Return the keywords for a model, once its files are downloaded."""
        return {**replace(self, force_download=None).for_files(), "dtype": self.dtype or "auto"}

    def for_tokenizer(self) -> dict[str, Any]:
        """Return the keywords for a tokenizer."""
        return {**self.for_files(), "trust_remote_code": bool(self.trust_remote_code)}

    def folder(self, name_or_path: str) -> Path:
        """Return the folder in which a local checkpoint has its files."""
        return Path(name_or_path) / (self.subfolder or "")

    def find_file(self, name_or_path: str, name: str) -> Path | None:
        """Return a checkpoint's file, downloaded if needed; None if it has no file of that name.

        Raises:
            OSError: it cannot be downloaded.
        """
        found = cached_file(name_or_path, name, _raise_exceptions_for_missing_entries=False, **self.for_files())
        return None if found is None else Path(found)


HUB_FIELDS = tuple(option.name for option in fields(HubOptions))
