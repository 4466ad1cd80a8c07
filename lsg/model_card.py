"""The README.md of a converted checkpoint."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from transformers import PreTrainedConfig
from transformers.utils import cached_file

from .self_test import SelfTestReport, markdown_table

TEXT = """
# {name}

{origin}, converted to LSG attention (Local + Sparse + Global, [arXiv 2210.15497](https://arxiv.org/abs/2210.15497)):
it reads up to {length:,} tokens at a cost that grows linearly with the length. It was not trained any further.

## How to load it

```python
from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("{name}", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("{name}")
```

**Always pass `trust_remote_code=True`.** Without it transformers loads the dense original class, without an error (all
that it may say is that `global_embeddings` are unexpected): full attention, no global tokens, and a cost that grows
with the square of the length.
Any other AutoClass of the family works as well; a head that the checkpoint lacks starts untrained.

## LSG parameters

Change them at load time, as in `from_pretrained(..., trust_remote_code=True, block_size=64)`.

{parameters}

## Test of this conversion

{test}
"""


def source_card(name_or_path: str, hub: dict[str, Any]) -> ModelCardData:
    """Read the front matter of the source's card; an empty one if there is none or it cannot be read."""
    try:
        file = cached_file(name_or_path, "README.md", _raise_exceptions_for_missing_entries=False, **hub)
        return ModelCard.load(file).data if file else ModelCardData()
    except (OSError, ValueError):
        return ModelCardData()  # a card is not worth a failed conversion


def auto_class_of(config: PreTrainedConfig, class_name: str) -> str:
    """Find the AutoClass that loads an LSG class."""
    return next(name for name, item in config.to_dict()["auto_map"].items() if item.endswith("." + class_name))


def write_model_card(
    folder: Path,
    name: str,
    source: str,
    length: int,
    hub: dict[str, Any],
    config: PreTrainedConfig,
    class_name: str,
    report: SelfTestReport | None,
) -> None:
    """Write README.md into the folder.

    Args:
        name: name of the converted checkpoint.
        source: folder or Hub name of the original; a folder's path is not told, only its last part.
        length: tokens that the model reads.
        hub: `token` and `revision` of the original.
        config, class_name: of the converted model.
        report: what the self test found, if it was run.
    """
    original = source_card(source, hub)
    is_local = Path(source).exists()
    data = ModelCardData(
        base_model=original.get("base_model") if is_local else source,
        language=original.get("language"),
        license=original.get("license"),
        license_name=original.get("license_name"),
        license_link=original.get("license_link"),
        library_name="transformers",
        tags=["lsg", "long-context", "custom_code"],
    )
    auto_class = auto_class_of(config, class_name)
    rows = [(field, f"`{getattr(config, field)!r}`") for field in sorted(config.lsg_defaults)]
    text = TEXT.format(
        name=name,
        origin=f"`{Path(source).resolve().name}`" if is_local else f"[{source}](https://huggingface.co/{source})",
        length=length,
        auto_class=auto_class,
        parameters=markdown_table(("field", "value"), rows),
        test=report.to_markdown() if report else "Not run; convert with `--run_test` to have its figures here.",
    )
    (folder / "README.md").write_text(f"---\n{data.to_yaml()}\n---\n{text}", encoding="utf-8")
