"""Write the README.md of a converted checkpoint."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData, metadata_load
from transformers.utils import logging
from yaml import YAMLError

from .advice import advice_for
from .errors import one_line
from .hub_options import HubOptions
from .onnx_check import OnnxReport
from .saving import SavedModel
from .self_test import SelfTestReport, markdown_table

logger = logging.get_logger(__name__)

ADDED_TAGS = ["lsg", "long-context", "custom_code"]
# tags of the original that are not true of the output: of file formats, and of servers that cannot run it
DROPPED_TAGS = {"pytorch", "tf", "jax", "rust", "onnx", "openvino", "gguf", "flax", "text-embeddings-inference"}

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

**Always pass `trust_remote_code=True`.** Without it transformers loads the dense original class, with no error (at most
it reports that `global_embeddings` are unexpected): full attention, no global tokens, and a cost that grows with the
square of the length.
Any other AutoClass of the family works as well; a head that the checkpoint lacks is untrained.

{question}## What it is good for

{advice}

Measured on documentation in English, with small models. The README of lsg-converter has the intervals and the commands.

## LSG parameters

They can be changed when loading, as in `from_pretrained(..., trust_remote_code=True, block_size=64)`.

{parameters}

{onnx}## Test of this conversion

{test}
"""
ONNX = """\
## Without remote code

`{file}` is the same model for ONNX Runtime, in float32, for any number of rows and up to {length:,} tokens. It
needs neither transformers nor torch, and runs no code of this repository.
Inputs: {inputs}. Outputs: {outputs}.

```python
import numpy, onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{name}/tokenizer.json")
tokenizer.enable_truncation({length})
session = onnxruntime.InferenceSession("{name}/{file}")
text = tokenizer.encode("A very long text. " * 500)
arrays = {{"input_ids": text.ids, "attention_mask": text.attention_mask, "token_type_ids": text.type_ids}}
inputs = {{item.name: numpy.array([arrays[item.name]]) for item in session.get_inputs()}}
outputs = dict(zip([item.name for item in session.get_outputs()], session.run(None, inputs)))
```

{summary}.

"""


QUESTION = """\
## How to ask a question

{pinned}```python
import torch

question, document = "Where is the key?", "The key is in the tower. " * 500
options = {{"truncation": "only_second", "return_offsets_mapping": True, "return_tensors": "pt"}}
inputs = tokenizer(question, document, **options)
offsets = inputs.pop("offset_mapping")[0]
in_document = torch.tensor([part == 1 for part in inputs.sequence_ids()])
with torch.no_grad():
    outputs = model(**inputs)
start, end = (x[0].masked_fill(~in_document, -torch.inf) for x in (outputs.start_logits, outputs.end_logits))
# of each first token, the scores of answers of 1 to 30 tokens
scores = start[:, None] + torch.nn.functional.pad(end, (0, 29), value=-torch.inf).unfold(0, 30, 1)
first, more = divmod(scores.argmax().item(), 30)
print(document[offsets[first, 0] : offsets[first + more, 1]])
```

"""
PINNED = """\
The question is pinned (`pin_first_segment`): every token of the document attends to it. It goes first, the document
second.

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
set, which hides token 0, as the global token represents it.

"""


def read_front_matter(name_or_path: str, hub: HubOptions) -> dict[str, Any]:
    """Return the front matter of the original's card; empty if there is none, or, with a warning, if it is damaged."""
    try:
        file = hub.find_file(name_or_path, "README.md")
        return (metadata_load(file) or {}) if file else {}
    except (OSError, ValueError, TypeError, YAMLError) as error:  # a conversion should not fail because of its card
        logger.warning(f"{name_or_path}: nothing of README.md's front matter is kept: {one_line(error)}")
        return {}


def card_data(
    original: dict[str, Any], base_model: Any, is_sentence_encoder: bool, added_tags: list[str]
) -> ModelCardData:
    """Return the front matter of a converted checkpoint's card.

    Args:
        original: that of the original. For a sentence encoder its task and tags are kept, as they are still true.
        base_model: the original, or what that was made from.
        is_sentence_encoder: whether the output is a sentence-transformers checkpoint.
        added_tags: tags that the original does not have.
    """
    names = ("language", "license", "license_name", "license_link", *(["pipeline_tag"] if is_sentence_encoder else []))
    fields: dict[str, Any] = {name: original.get(name) for name in names}
    tags = []
    if is_sentence_encoder:
        given = original.get("tags")
        given = given if isinstance(given, list) else [given]
        tags = ["sentence-transformers", *(tag for tag in given if isinstance(tag, str) and tag not in DROPPED_TAGS)]
    library = "sentence-transformers" if is_sentence_encoder else "transformers"
    return ModelCardData(base_model=base_model, library_name=library, tags=[*tags, *added_tags], **fields)


def sentence_snippet(name: str, config: Any) -> str:
    """Return the part of the card that shows how to load a sentence encoder, and says if short texts are exact."""
    is_exact = config.mask_first_token and config.pool_with_global and config.num_global_tokens == 1
    exact = EXACT.format(short=config.exact_length) if is_exact else ""
    return SENTENCES.format(name=name, exact=exact)


def question_section(saved: SavedModel) -> str:
    """Return the part of the card that shows how to ask a question; empty if the model does not answer questions."""
    if not saved.class_name.endswith("ForQuestionAnswering"):
        return ""
    return QUESTION.format(pinned=PINNED if saved.config.pin_first_segment else "")


def onnx_section(name: str, saved: SavedModel, onnx: OnnxReport) -> str:
    """Return the part of the card that shows how to run the ONNX file, and how far it is from the model."""
    inputs, outputs = (", ".join(f"`{one}`" for one in names) for names in (onnx.inputs, onnx.outputs))
    return ONNX.format(
        name=name, file=onnx.file, length=saved.max_length, inputs=inputs, outputs=outputs, summary=onnx.summary()
    )


def write_model_card(
    folder: Path,
    name: str,
    saved: SavedModel,
    hub: HubOptions,
    test: SelfTestReport | None,
    onnx: OnnxReport | None = None,
) -> None:
    """Write README.md into the folder.

    Args:
        name: name of the converted checkpoint.
        saved: the model; of a local original's path only the last part is written.
        hub: how to find the original's files.
        test: result of the self test, if it was run.
        onnx: the ONNX file, if there is one.
    """
    source = saved.source
    original = read_front_matter(source, hub)
    is_local = Path(source).exists()
    added = [*ADDED_TAGS, *(["onnx"] if onnx else [])]
    data = card_data(original, original.get("base_model") if is_local else source, saved.is_sentence_encoder, added)
    text = TEXT.format(
        name=name,
        origin=f"`{Path(source).resolve().name}`" if is_local else f"[{source}](https://huggingface.co/{source})",
        length=saved.max_length,
        auto_class=saved.auto_class,
        sentences=sentence_snippet(name, saved.config) if saved.is_sentence_encoder else "",
        question=question_section(saved),
        advice="\n".join(f"* **{task.capitalize()}**: {text}" for task, text in advice_for(saved.class_name).items()),
        parameters=markdown_table(("field", "value"), [(k, f"`{v!r}`") for k, v in saved.lsg_fields.items()]),
        onnx=onnx_section(name, saved, onnx) if onnx else "",
        test=test.to_markdown() if test else "Not run; convert with `--run_test` to see its results here.",
    )
    (folder / "README.md").write_text(f"---\n{data.to_yaml()}\n---\n{text}", encoding="utf-8")
