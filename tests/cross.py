"""Convert with one version of transformers, load with another: `cross.py make FOLDER`, then `cross.py check FOLDER`.

`check` needs nothing but the folder: it loads every type through AutoModel and compares the outputs with those of the
version that converted it. `matrix.py` runs both.
"""

import sys
from pathlib import Path

import torch
import transformers
from packaging.version import Version
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-5
AUTO_CLASS = "AutoModel"


def first_output(model, inputs: dict) -> torch.Tensor:
    """Return the first output of a model in evaluation mode."""
    with torch.no_grad():
        return model.eval()(**inputs).to_tuple()[0].contiguous()


def make(root: Path) -> None:
    """Convert the tiny checkpoint of every type; save the folders, the inputs and the outputs."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from helpers import TYPES, initial, load_tokenizer, make_inputs

    from lsg import LSGConverter
    from lsg.model_types import MODEL_TYPES

    for model_type in TYPES:
        folder = root / model_type / f"lsg-{model_type}"
        base = MODEL_TYPES[model_type].auto_classes[AUTO_CLASS].__name__
        model, tokenizer = LSGConverter(1100).convert_from_pretrained(initial(model_type), base, block_size=16)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        inputs = make_inputs(load_tokenizer(model_type), model.config.vocab_size, [70, 40], base.removeprefix("LSG"))
        save_file(inputs, root / model_type / "inputs.safetensors")
        save_file({"output": first_output(model, inputs)}, root / model_type / "outputs.safetensors")
        (root / model_type / "since").write_text(MODEL_TYPES[model_type].since, encoding="utf-8")


def check(root: Path) -> None:
    """Load what another version converted, and compare the outputs. Raises AssertionError if they differ.

    Types that came to transformers after this version are left out.
    """
    sys.modules["lsg"] = None
    for parent in sorted(path for path in root.iterdir() if path.is_dir()):
        if Version(transformers.__version__) < Version((parent / "since").read_text("utf-8")):
            continue
        model = getattr(transformers, AUTO_CLASS).from_pretrained(parent / f"lsg-{parent.name}", trust_remote_code=True)
        assert type(model).__name__.startswith("LSG"), type(model)
        found = first_output(model, load_file(parent / "inputs.safetensors"))
        difference = (found - load_file(parent / "outputs.safetensors")["output"]).abs().max().item()
        assert difference < TOLERANCE, f"{parent.name}: differs by {difference}"


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2]))
