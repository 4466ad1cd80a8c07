"""Settings of LSG: their fields, and their names in tables."""

from typing import Any

from transformers import PreTrainedConfig


def lsg_fields(
    sparsity_type: str, block_size: int, sparse_block_size: int = 0, sparsity_factor: int = 1
) -> dict[str, Any]:
    """Return the LSG fields of a setting."""
    return {
        "sparsity_type": sparsity_type,
        "block_size": block_size,
        "sparse_block_size": sparse_block_size,
        "sparsity_factor": sparsity_factor,
    }


def describe(config: PreTrainedConfig, fields: dict[str, Any]) -> str:
    """Return the sizes of a converted model, and the further fields that were set, in words."""
    b, s, f = config.block_size, config.sparse_block_size, config.sparsity_factor
    sizes = f"b = s = {b}, f = {f}" if s == b else f"b = {b}, s = {s}, f = {f}"
    further = [f"{name} = {value}" for name, value in fields.items() if name not in lsg_fields("none", 1)]
    is_sparse = config.lsg_pattern().has_sparse
    return ", ".join([str(config.sparsity_type), sizes if is_sparse else f"b = {b}", *further])
