"""The process of the self test: loads and runs a converted folder as a user would, without this repository.

It is run as a file. It reads its task as JSON from standard input (folder, original, max_length, hub, fields, compare,
trained_head, report) and writes its results as JSON into the file `report`: {"checks": [{name, passed, detail}],
"fill_mask": [...], "questions": [...]}.
"""

import json
import logging
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
QUESTION, FACT = "Where is the silver key kept?", "The silver key is kept in the old clock tower."
PLACES = {"first part": 0.1, "last part": 0.9}  # where the fact stands in a long text
OTHER_FACTS = (
    "On day {i} the office at the harbour counted {j} letters.",
    "The ferry left at {j} minutes past nine, and {i} people were on board.",
    "House {i} was painted green, and its {j} windows were cleaned.",
    "Nobody in the village had seen the {i} sheep from the northern field.",
)
LONG_TEXT, WINDOW, LONGEST_ANSWER = 4096, 256, 30  # tokens; the original reads a long text in windows


def first_token(tokenizer: Any) -> int | None:
    """Return the token that inputs begin with: CLS, else BOS."""
    return tokenizer.bos_token_id if tokenizer.cls_token_id is None else tokenizer.cls_token_id


def make_inputs(tokenizer: Any, config: Any, length: int, auto_class: str) -> dict[str, torch.Tensor]:
    """Return two rows of random tokens, the second padded (one padded row if long), as the AutoClass needs them."""
    ids = torch.tensor(sorted(set(range(config.vocab_size)) - set(tokenizer.all_special_ids)))
    batch = 2 if length == SHORT_LENGTH else 1
    input_ids = ids[torch.randint(len(ids), (batch, length), generator=torch.Generator().manual_seed(length))]
    attention_mask = torch.ones_like(input_ids)
    attention_mask[-1, length - length // 4 :] = 0
    first = first_token(tokenizer)
    last = tokenizer.eos_token_id if tokenizer.sep_token_id is None else tokenizer.sep_token_id
    if first is not None:
        input_ids[:, 0] = first
    if last is not None:  # BART's classifier needs it
        input_ids[torch.arange(batch), attention_mask.sum(1) - 1] = last
    if config.pin_first_segment:  # a pair of texts
        input_ids[:, length // 4] = config.separator_token_id
    if auto_class == "AutoModelForPreTraining" and hasattr(config, "question_token_id"):  # Splinter asks there
        input_ids[:, 1] = config.question_token_id
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
        "AutoModelForCausalLM": {"is_decoder": True, "pin_first_segment": False},
        "AutoModelForQuestionAnswering": {"num_labels": 2},
    }
    expected = config.auto_map[auto_class].rsplit(".", 1)[-1]
    # another head may have a layer of the same name and another size; it is untrained
    options = {"ignore_mismatched_sizes": expected not in config.architectures, **task["fields"]}
    load = getattr(transformers, auto_class).from_pretrained
    model = load(task["folder"], trust_remote_code=True, **options, **extra.get(auto_class, {})).eval()
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
    load = partial(getattr(transformers, auto_class).from_pretrained, dtype=torch.float32, **task["fields"])
    original = load(task["original"], **task["hub"])
    return original.eval(), load(task["folder"], trust_remote_code=True).eval()


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
    inputs = dict(tokenizer(TEXT, return_tensors="pt", truncation=True, max_length=config.exact_length))
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


def make_sentences(tokenizer: Any, length: int, place: float) -> list[tuple[str, int]]:
    """Return the sentences of a made-up text with their numbers of tokens, `length` in all at most, the fact in it."""

    def with_size(sentence: str) -> tuple[str, int]:
        return sentence, len(tokenizer(f" {sentence}", add_special_tokens=False)["input_ids"])  # as behind another

    fact = with_size(FACT)
    sentences: list[tuple[str, int]] = []
    left = length - fact[1]
    while True:
        i = len(sentences)
        found = with_size(OTHER_FACTS[i % len(OTHER_FACTS)].format(i=i + 1, j=i * 7 % 50 + 2))
        left -= found[1]
        if left < 0:
            sentences.insert(int(place * len(sentences)), fact)
            return sentences
        sentences.append(found)


def cut_windows(sentences: list[tuple[str, int]], length: int) -> list[str]:
    """Return windows of at most `length` tokens; each begins in the middle of the one before."""
    windows, first = [], 0
    while True:
        last, size = first, 0
        while last < len(sentences) and size + sentences[last][1] <= length:
            size += sentences[last][1]
            last += 1
        windows.append(" ".join(sentence for sentence, _ in sentences[first:last]))
        if last == len(sentences) or last == first:
            return windows
        first = max(first + 1, (first + last) // 2)


def find_answer(model: Any, tokenizer: Any, texts: list[str], length: int) -> str:
    """Return the span, of any of the texts, with the largest sum of its start's and its end's logits.

    A text is cut where it is longer than `length` tokens with the question.
    """
    special, text_start = torch.tensor(tokenizer.all_special_ids), len(tokenizer(QUESTION)["input_ids"])
    best, answer = -float("inf"), ""
    for text in texts:
        inputs = dict(tokenizer(QUESTION, text, return_tensors="pt", truncation="only_second", max_length=length))
        if getattr(model.config, "type_vocab_size", 2) < 2:
            inputs.pop("token_type_ids", None)
        ids = inputs["input_ids"][0]
        with torch.inference_mode():
            outputs = model(**inputs)
        hidden = torch.isin(ids, special) | (torch.arange(len(ids)) < text_start)
        start, end = (outputs[name][0].masked_fill(hidden, -float("inf")) for name in ("start_logits", "end_logits"))
        for extra in range(min(LONGEST_ANSWER, len(ids))):
            score, first = (start[: len(ids) - extra] + end[extra:]).max(0)
            if score.item() > best:
                best, answer = score.item(), tokenizer.decode(ids[first : first + extra + 1]).strip()
    return answer


def ask_question(task: dict, tokenizer: Any) -> list[dict]:
    """Return what the original, on windows, and the converted model answer about long texts that state a fact."""
    # the tokens around a pair's text, and some more: sentences side by side can have others than alone
    spare = len(tokenizer(QUESTION, "")["input_ids"]) + 16
    length = min(task["max_length"], LONG_TEXT)
    models = dict(zip(("original", "converted"), load_pair(task, "AutoModelForQuestionAnswering"), strict=True))
    rows = []
    for place, part in PLACES.items():
        sentences = make_sentences(tokenizer, length - spare, part)
        sizes = {"original": min(WINDOW, models["original"].config.max_position_embeddings - 2), "converted": length}
        texts = {name: cut_windows(sentences, size - spare) for name, size in sizes.items()}
        answers = {name: find_answer(model, tokenizer, texts[name], sizes[name]) for name, model in models.items()}
        rows.append({"question": QUESTION, "fact": FACT, "tokens": length, "place": place, **answers})
    return rows


def is_decoder_alone(config: Any) -> bool:
    """Return whether the folder has a decoder without the encoder of its family: no other class can load it.

    Nor can the original be compared: transformers leaves the word embeddings of such a decoder random.
    """
    return "AutoModelForSeq2SeqLM" in config.auto_map and not config.is_encoder_decoder


def describe_error(error: Exception) -> str:
    """Return an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def run_check(name: str, step: Callable[[], Any]) -> dict[str, Any]:
    """Run one check; it fails if it raises an error, or returns False in a tuple (passed, detail)."""
    try:
        result = step()
        passed, detail = (True, result) if isinstance(result, str) else result
    except Exception as error:  # noqa: BLE001 (a failed check is a row of the table)
        passed, detail = False, describe_error(error)
    return {"name": name, "passed": passed, "detail": detail}


def run_checks(task: dict) -> dict[str, list]:
    """Run all checks of a task; return the report."""
    config = transformers.AutoConfig.from_pretrained(task["folder"], trust_remote_code=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["folder"])
    shown: dict[str, list[dict]] = {"fill_mask": [], "questions": []}

    def fill() -> str:
        shown["fill_mask"] = compare_fill_mask(task, tokenizer)
        return "see below"

    def ask() -> tuple[None, str]:
        try:
            shown["questions"] = ask_question(task, tokenizer)
            return None, "see below"
        except Exception as error:  # noqa: BLE001 (reported, not judged)
            return None, describe_error(error)

    alone = is_decoder_alone(config)
    auto_classes = ["AutoModelForCausalLM"] if alone else [name for name in config.auto_map if name != "AutoConfig"]
    steps: dict[str, Callable] = {
        name: partial(check_auto_class, task, tokenizer, config, name) for name in auto_classes
    }
    if task["compare"] and not alone:
        name = "same as the original" if is_exact(tokenizer, config) else "difference to the original"
        steps[name] = partial(compare_hidden_states, task, tokenizer, config)
        if task["trained_head"] == "masked words" and tokenizer.mask_token_id is not None:
            steps["fill-mask beside the original"] = fill
        if task["trained_head"] == "answers":
            steps["a question about a long text"] = ask
    checks = [run_check(*step) for step in tqdm(steps.items(), desc="Testing the output", unit="check")]
    return {"checks": checks, **shown}


def main() -> None:
    """Read the task, run it, write the report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent kills this process
    task = json.load(sys.stdin)
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    report = run_checks(task)
    with open(task["report"], "w", encoding="utf-8") as file:
        json.dump(report, file)


if __name__ == "__main__":
    main()
