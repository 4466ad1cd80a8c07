"""The process of the self test: loads and runs a converted folder as a user would, without this repository.

It is run as a file. It reads its task as JSON from standard input (folder, original, max_length, hub, compare,
has_mlm_head, report) and writes its results as JSON into the file `report`: {"checks": [{name, passed, detail}],
"fill_mask": [...]}.
"""

import json
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

sys.path.pop(0)  # the folder of this file
for name in ("lsg", "lsg_converter"):
    sys.modules[name] = None  # type: ignore[assignment] # their import fails now, even if they are installed

import torch  # noqa: E402
import transformers  # noqa: E402
from tqdm import tqdm  # noqa: E402

TOLERANCE = 1e-4  # largest difference of hidden states that count as equal
MAX_LOGITS = 2**30  # a language-modeling head with more is run on fewer tokens; the table shows how many
SHORT_LENGTH = 24
TEXT = "The library reads a whole file at once. It returns a list of lines, one for every line of the text."
MASKED_TEXTS = (
    "The capital of France is {mask}.",
    "She opened the {mask} and went inside.",
    "If the file does not exist, an {mask} is raised.",
)


def first_token(tokenizer: Any) -> int | None:
    """Return the token that inputs begin with: CLS, else BOS."""
    return tokenizer.bos_token_id if tokenizer.cls_token_id is None else tokenizer.cls_token_id


def make_inputs(tokenizer: Any, config: Any, length: int, auto_class: str) -> dict[str, torch.Tensor]:
    """Return two rows of random tokens, the second padded (one padded row if long), as the AutoClass needs them."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.tensor(sorted(set(range(config.vocab_size)) - set(tokenizer.all_special_ids)))
    batch = 2 if length == SHORT_LENGTH else 1
    input_ids = ids[torch.randint(len(ids), (batch, length), generator=generator)]
    attention_mask = torch.ones_like(input_ids)
    attention_mask[-1, length - length // 4 :] = 0
    first = first_token(tokenizer)
    last = tokenizer.eos_token_id if tokenizer.sep_token_id is None else tokenizer.sep_token_id
    if first is not None:
        input_ids[:, 0] = first
    if last is not None:  # BART's classifier needs it
        input_ids[torch.arange(batch), attention_mask.sum(1) - 1] = last
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    inputs = {"input_ids": input_ids.masked_fill(attention_mask == 0, pad), "attention_mask": attention_mask}
    if auto_class == "AutoModelForMultipleChoice":
        inputs = {name: x[:, None].repeat(1, 2, 1) for name, x in inputs.items()}
    if config.is_encoder_decoder and auto_class in ("AutoModel", "AutoModelForSeq2SeqLM"):
        inputs["decoder_input_ids"] = input_ids[:, :SHORT_LENGTH]
    return inputs


def full_length(auto_class: str, config: Any, length: int) -> int:
    """Return the longest length at which the AutoClass is run."""
    has_logits = auto_class in ("AutoModelForMaskedLM", "AutoModelForCausalLM", "AutoModelForPreTraining")
    return min(length, MAX_LOGITS // config.vocab_size) if has_logits else length


def check_auto_class(task: dict, tokenizer: Any, config: Any, auto_class: str) -> str:
    """Load the folder through one AutoClass and run it, short and at full length; return the detail to show."""
    # question answering needs a start and an end, whatever number of classes the checkpoint has
    extra: dict[str, dict[str, Any]] = {
        "AutoModelForCausalLM": {"is_decoder": True},
        "AutoModelForQuestionAnswering": {"num_labels": 2},
    }
    model = (
        getattr(transformers, auto_class)
        .from_pretrained(task["folder"], trust_remote_code=True, **extra.get(auto_class, {}))
        .eval()
    )
    expected = config.auto_map[auto_class].rsplit(".", 1)[-1]
    if type(model).__name__ != expected:
        raise AssertionError(f"it is a {type(model).__name__}, not a {expected}")
    lengths = [SHORT_LENGTH, full_length(auto_class, config, task["max_length"])]
    start = time.perf_counter()
    for length in lengths:
        with torch.inference_mode():
            outputs = model(**make_inputs(tokenizer, config, length, auto_class))
        if not all(x.isfinite().all() for x in outputs.to_tuple() if isinstance(x, torch.Tensor)):
            raise AssertionError(f"not all outputs are finite at {length} tokens")
    return f"{expected}, {' and '.join(map(str, lengths))} tokens, {time.perf_counter() - start:.1f} s"


def load_pair(task: dict, auto_class: str) -> tuple[Any, Any]:
    """Load the original and the converted model in single precision."""
    load = getattr(transformers, auto_class).from_pretrained
    original = load(task["original"], dtype=torch.float32, **task["hub"])
    return original.eval(), load(task["folder"], dtype=torch.float32, trust_remote_code=True).eval()


def hidden_states(model: Any, inputs: dict) -> list[torch.Tensor]:
    """Return all hidden states; of an encoder-decoder the decoder's, which depend on the encoder's."""
    with torch.inference_mode():
        outputs = model(**inputs, output_hidden_states=True)
    return list(outputs.decoder_hidden_states if model.config.is_encoder_decoder else outputs.hidden_states)


def is_exact(tokenizer: Any, config: Any) -> bool:
    """Return whether short texts must have the original's states: global 0 represents the BOS that they begin with."""
    is_float32 = str(config.dtype).endswith("float32")  # otherwise global 0 is rounded
    exact = config.mask_first_token and config.pool_with_global and config.num_global_tokens == 1
    return exact and is_float32 and tokenizer(TEXT)["input_ids"][0] == first_token(tokenizer)


def compare_hidden_states(task: dict, tokenizer: Any, config: Any) -> tuple[bool | None, str]:
    """Compare every hidden state with the original's on a short text; None if nothing limits the difference."""
    inputs = dict(tokenizer(TEXT, return_tensors="pt", truncation=True, max_length=2 * config.block_size))
    inputs.pop("token_type_ids", None)
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    states = [hidden_states(model, inputs) for model in load_pair(task, "AutoModel")]
    differences = [(a - b).abs().max().item() for a, b in zip(*states, strict=True)]
    exact = is_exact(tokenizer, config)
    wanted = f"must be below {TOLERANCE:g}" if exact else "no limit: only mask_first_token, in float32, makes it exact"
    listed = ", ".join(f"{difference:.1e}" for difference in differences)
    return max(differences) < TOLERANCE if exact else None, f"largest difference per layer {listed} ({wanted})"


def compare_fill_mask(task: dict, tokenizer: Any) -> list[dict]:
    """Return the five likeliest words for a masked one, of the original and of the converted model."""
    rows: list[dict] = []
    models = load_pair(task, "AutoModelForMaskedLM")
    for text in MASKED_TEXTS:
        inputs = tokenizer(text.format(mask=tokenizer.mask_token), return_tensors="pt")
        position = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0, 0]
        row: dict[str, Any] = {"text": text.format(mask="[MASK]")}
        for name, model in zip(("original", "converted"), models, strict=True):
            with torch.inference_mode():
                top = model(**inputs).logits[0, position].softmax(-1).topk(5)
            row[name] = [
                [tokenizer.decode([int(i)]).strip(), round(float(p), 3)]
                for p, i in zip(top.values, top.indices, strict=True)
            ]
        rows.append(row)
    return rows


def is_decoder_alone(config: Any) -> bool:
    """Return whether the folder has a decoder without the encoder of its family: no other class can load it.

    Nor can the original be compared: transformers leaves the word embeddings of such a decoder random.
    """
    return "AutoModelForSeq2SeqLM" in config.auto_map and not config.is_encoder_decoder


def run_check(name: str, step: Callable[[], Any]) -> dict[str, Any]:
    """Run one check; it fails if it raises an error, or returns False in a tuple (passed, detail)."""
    try:
        result = step()
        passed, detail = (True, result) if isinstance(result, str) else result
    except Exception as error:  # noqa: BLE001 (a failed check is a row of the table)
        passed, detail = False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return {"name": name, "passed": passed, "detail": detail}


def run_checks(task: dict) -> dict[str, list]:
    """Run all checks of a task; return the report."""
    config = transformers.AutoConfig.from_pretrained(task["folder"], trust_remote_code=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["folder"])
    fill_mask: list[dict] = []

    def fill() -> str:
        fill_mask.extend(compare_fill_mask(task, tokenizer))
        return "see below"

    alone = is_decoder_alone(config)
    auto_classes = ["AutoModelForCausalLM"] if alone else [name for name in config.auto_map if name != "AutoConfig"]
    steps: dict[str, Callable] = {
        name: partial(check_auto_class, task, tokenizer, config, name) for name in auto_classes
    }
    if task["compare"] and not alone:
        name = "same as the original" if is_exact(tokenizer, config) else "difference to the original"
        steps[name] = partial(compare_hidden_states, task, tokenizer, config)
        if task["has_mlm_head"] and tokenizer.mask_token_id is not None:
            steps["fill-mask beside the original"] = fill
    checks = [run_check(*step) for step in tqdm(steps.items(), desc="Testing the output", unit="check")]
    return {"checks": checks, "fill_mask": fill_mask}


def main() -> None:
    """Read the task, run it, write the report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent kills this process
    task = json.load(sys.stdin)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    report = run_checks(task)
    with open(task["report"], "w", encoding="utf-8") as file:
        json.dump(report, file)


if __name__ == "__main__":
    main()
