"""The README.md of a converted checkpoint."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData, metadata_load
from transformers import PreTrainedConfig
from transformers.utils import cached_file, logging
from yaml import YAMLError

from .errors import one_line
from .self_test import SelfTestReport, markdown_table
from .sentence_parts import MODULES

logger = logging.get_logger(__name__)

OUR_TAGS = ["lsg", "long-context", "custom_code"]
# tags of files that an output does not have, and of servers that do not run it
FOREIGN_TAGS = {"pytorch", "tf", "jax", "rust", "onnx", "openvino", "gguf", "flax", "text-embeddings-inference"}

TEXT = """
# {name}

{origin}, converted to LSG attention (Local + Sparse + Global, [arXiv 2210.15497](https://arxiv.org/abs/2210.15497)):
it reads up to {length:,} tokens at a cost that grows linearly with the length. It was not trained any further.

## How to load it

{sentences}```python
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


SENTENCES = """\
```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}", trust_remote_code=True)
embeddings = model.encode(["A short text.", "A very long text. " * 900])
```

{exact}The model without its pooling:

"""
EXACT = """\
Texts of up to {short} tokens, as far as the original reads them whole, embed as by the original: `mask_first_token` is
set, which hides token 0 behind the global token that stands for it.

"""


def source_card(name_or_path: str, hub: dict[str, Any]) -> dict[str, Any]:
    """Return the front matter of the source's card; nothing if there is none, or, with a warning, if it is damaged."""
    try:
        file = cached_file(name_or_path, "README.md", _raise_exceptions_for_missing_entries=False, **hub)
        return (metadata_load(file) or {}) if file else {}
    except (OSError, ValueError, TypeError, YAMLError) as error:  # a card is not worth a failed conversion
        logger.warning(f"{name_or_path}: nothing of README.md's front matter is kept: {one_line(error)}")
        return {}


def card_data(original: dict[str, Any], base_model: Any, is_sentence_encoder: bool) -> ModelCardData:
    """Return the front matter of a converted checkpoint's card.

    Args:
        original: that of the source. What says what a sentence encoder is for stays true of the output.
        base_model: the source, or what that was made of.
        is_sentence_encoder: the output is a sentence-transformers checkpoint.
    """
    names = ("language", "license", "license_name", "license_link", *(["pipeline_tag"] if is_sentence_encoder else []))
    fields = {name: original.get(name) for name in names}
    tags = []
    if is_sentence_encoder:
        given = original.get("tags")
        given = given if isinstance(given, list) else [given]
        tags = ["sentence-transformers", *(tag for tag in given if isinstance(tag, str) and tag not in FOREIGN_TAGS)]
    library = "sentence-transformers" if is_sentence_encoder else "transformers"
    return ModelCardData(base_model=base_model, library_name=library, tags=[*tags, *OUR_TAGS], **fields)


def sentence_snippet(name: str, config: PreTrainedConfig) -> str:
    """Return how to load a sentence encoder, and what it does to short texts."""
    is_exact = config.mask_first_token and config.pool_with_global and config.num_global_tokens == 1
    exact = EXACT.format(short=2 * config.block_size) if is_exact else ""
    return SENTENCES.format(name=name, exact=exact)


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
    is_sentence_encoder = (folder / MODULES).is_file()
    data = card_data(original, original.get("base_model") if is_local else source, is_sentence_encoder)
    auto_class = auto_class_of(config, class_name)
    rows = [(field, f"`{getattr(config, field)!r}`") for field in sorted(config.lsg_defaults)]
    text = TEXT.format(
        name=name,
        origin=f"`{Path(source).resolve().name}`" if is_local else f"[{source}](https://huggingface.co/{source})",
        length=length,
        auto_class=auto_class,
        sentences=sentence_snippet(name, config) if is_sentence_encoder else "",
        parameters=markdown_table(("field", "value"), rows),
        test=report.to_markdown() if report else "Not run; convert with `--run_test` to have its figures here.",
    )
    (folder / "README.md").write_text(f"---\n{data.to_yaml()}\n---\n{text}", encoding="utf-8")
