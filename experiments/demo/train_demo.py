#!/usr/bin/env python3
"""Train the demo checkpoint: a small RoBERTa masked language model, trained offline on a CPU.

The training text is the English prose in the documentation strings of packages that every user of this project has
installed: the Python standard library, torch, transformers, numpy and huggingface_hub. Their files are parsed, never
imported or run. The result is a plain Hugging Face folder that `pipeline("fill-mask", ...)` reads.

    python train_demo.py --minutes 45            # train, and write everything beside this script
    python train_demo.py --evaluate roberta-demo # held-out figures and fill-mask examples, no training
    python train_demo.py --corpus-only text      # write the training and held-out text, and stop
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import RobertaForMaskedLM, RobertaTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.masked_lm import chosen_logits, join_texts
from experiments.common.results import environment
from experiments.common.script import run_script
from experiments.demo.corpus import collect_documents, split_documents
from experiments.demo.model import EOS, LENGTH, MASK, MODEL, new_model, train_tokenizer
from experiments.demo.windows import all_windows, choose, corrupt, random_positions, random_windows
from lsg.cli.arguments import OneLineParser

HERE = Path(__file__).resolve().parent
SHORT = 64  # tokens in most windows of the first part of the training
TRAINING: dict[str, Any] = {
    "batch_tokens": 2048,
    "peak_learning_rate": 2e-3,
    "weight_decay": 0.01,
    "warmup_share": 0.02,  # fraction of the budget
    "full_length_from": 0.67,  # fraction of the budget; before it, one window in four has LENGTH tokens, then all
    "masked_share": 0.2,  # fraction of the tokens
    "steps_between_log_entries": 200,
}
EXAMPLES = (
    "Return True if the two arrays are <mask>, False otherwise.",
    "The model was trained on a single <mask>.",
    "If the file does not exist, an <mask> is raised.",
    "This method is called when the server receives a new <mask> from the client.",
    "The learning <mask> is multiplied by a factor after every epoch.",
)


@torch.no_grad()
def evaluate(model: RobertaForMaskedLM, stream: torch.Tensor, length: int, repeats: int = 1) -> dict[str, Any]:
    """Return loss and accuracy with 15 % of the tokens replaced by <mask>, the same ones in every call."""
    rng = torch.Generator().manual_seed(0)
    losses, hits, places = [], [], []
    for ids in (rows for _ in range(repeats) for rows in all_windows(stream, length).split(8192 // length)):
        chosen = choose(ids, 0.15, rng)
        logits = chosen_logits(model, torch.where(chosen, MASK, ids), chosen)
        losses.append(cross_entropy(logits, ids[chosen], reduction="none"))
        hits.append((logits.argmax(-1) == ids[chosen]).float())
        places.append(chosen.nonzero()[:, 1] * 4 // length)
    loss, hit, place = torch.cat(losses), torch.cat(hits), torch.cat(places)
    quarters = [round(hit[place == quarter].mean().item(), 4) for quarter in range(4)]
    return {
        "length": length,
        "masked": len(hit),
        "loss": round(loss.mean().item(), 4),
        "accuracy": round(hit.mean().item(), 4),
        "accuracy_by_quarter_of_the_window": quarters,
    }


def learning_rate(progress: float) -> float:
    """Return the rate at a fraction of the budget: a linear warm-up, then a cosine down to zero."""
    peak, warmup = TRAINING["peak_learning_rate"], TRAINING["warmup_share"]
    if progress < warmup:
        return peak * max(progress / warmup, 1e-3)
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def train(
    model: RobertaForMaskedLM, stream: torch.Tensor, held_out: torch.Tensor, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Train to the end of the budget, at first mostly on short windows; yield the entries of the log."""
    rng = torch.Generator().manual_seed(args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=TRAINING["weight_decay"])
    recent: list[float] = []
    step, progress, start = 0, 0.0, time.monotonic()
    bar = tqdm(
        total=100.0, desc="training", bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}", mininterval=2
    )
    while progress < 1:
        length = LENGTH if progress >= TRAINING["full_length_from"] or step % 4 == 0 else SHORT
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress)
        ids = random_windows(stream, (TRAINING["batch_tokens"] // length, length), rng)
        chosen = choose(ids, TRAINING["masked_share"], rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            masked, positions = corrupt(ids, chosen, rng), random_positions(ids, rng)
            logits = chosen_logits(model, masked, chosen, position_ids=positions)
        loss = cross_entropy(logits, ids[chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        recent.append(loss.item())
        minutes = (time.monotonic() - start) / 60
        progress = min(1.0, step / args.steps if args.steps else minutes / args.minutes)
        bar.update(100 * progress - bar.n)
        if step % TRAINING["steps_between_log_entries"] == 0 or progress >= 1:
            held = evaluate(model, held_out[:20_000], LENGTH)
            entry = {"step": step, "minutes": round(minutes, 2), "lr": learning_rate(progress)}
            entry["train_loss"] = round(sum(recent) / len(recent), 4)
            yield entry | {"held_out_loss": held["loss"], "held_out_accuracy": held["accuracy"]}
            bar.set_postfix(step=step, train=entry["train_loss"], held_out=held["loss"], accuracy=held["accuracy"])
            recent = []
    bar.close()


def save(model: RobertaForMaskedLM, tokenizer: RobertaTokenizer, folder: Path) -> None:
    """Write the checkpoint with float16 weights (half the size) and a config that loads as float32."""
    model.eval().half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8")) | {"dtype": "float32"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def report(folder: Path, held_out: list[str]) -> dict[str, Any]:
    """Load a saved checkpoint as a user would; return its figures on the held-out documents, and filled-in examples."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    stream = join_texts(held_out, tokenizer, EOS)
    figures = {f"held_out_{length}": evaluate(model, stream, length, repeats=4) for length in (32, 128, LENGTH)}
    fill = transformers.pipeline("fill-mask", model=model.eval(), tokenizer=tokenizer)
    examples = {text: {r["token_str"].strip(): round(r["score"], 3) for r in fill(text, top_k=5)} for text in EXAMPLES}
    return figures | {"examples": examples}


def plot(log: list[dict[str, Any]], path: Path) -> None:
    """Draw the losses and the held-out accuracy against the step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="tight")
    left = figure.subplots()
    right = left.twinx()
    rows = (left, "train_loss", "C0"), (left, "held_out_loss", "C3"), (right, "held_out_accuracy", "C2")
    for axis, key, color in rows:
        label = key.replace("_", " ").replace("held out", "held-out")
        left.plot([], [], color=color, label=label)
        axis.plot([entry["step"] for entry in log], [entry[key] for entry in log], color=color)
    left.set(xlabel="step", ylabel="cross-entropy of the masked tokens (nats)")
    right.set(ylabel="accuracy on the masked tokens", ylim=(0, 1))
    left.legend(loc="upper center")
    figure.savefig(path, dpi=110)


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=45, help="training time; the learning rate is zero at its end (default 45)")
    add("--steps", type=int, help="number of steps instead of --minutes, which depends on the machine")
    add("--seed", type=int, default=0, help="seed of the weights, the windows and the masking (default 0)")
    add("--threads", type=int, default=2, help="CPU threads (default 2)")
    add("--bf16", action="store_true", help="train under bfloat16 autocast; faster only on CPUs that compute in it")
    add("--out", type=Path, default=HERE, help="folder for roberta-demo/, training_log.jsonl and training.png")
    add("--evaluate", type=Path, metavar="FOLDER", help="measure this checkpoint, print the figures as JSON, and stop")
    add("--corpus-only", type=Path, metavar="FOLDER", help="write train.txt and held_out.txt there, and stop")
    return parser


def work(args: argparse.Namespace) -> None:
    """Collect the text, then do what the options say."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    training, held_out = split_documents(collect_documents())
    if args.corpus_only:
        args.corpus_only.mkdir(parents=True, exist_ok=True)
        for name, texts in (("train", training), ("held_out", held_out)):
            (args.corpus_only / f"{name}.txt").write_text("\n\n".join(texts), "utf-8")
    elif args.evaluate:
        print(json.dumps(report(args.evaluate, held_out), indent=2))
    else:
        make_checkpoint(args, training, held_out)


def make_checkpoint(args: argparse.Namespace, training: list[str], held_out: list[str]) -> None:
    """Train, save, and measure the saved checkpoint; write the log and its plot."""
    tokenizer = train_tokenizer(training)
    stream, held_stream = join_texts(training, tokenizer, EOS), join_texts(held_out, tokenizer, EOS)
    model = new_model(stream)
    about: dict[str, Any] = {
        **environment("cpu", "torch", "transformers", "tokenizers", "numpy"),
        "training_dtype": "bfloat16 autocast" if args.bf16 else "float32",
        "budget": {"steps": args.steps} if args.steps else {"minutes": args.minutes},
        "seed": args.seed,
        "model": MODEL | {"parameters": sum(p.numel() for p in model.parameters())},
        "training": TRAINING,
    }
    for name, texts, tokens in (("corpus", training, stream), ("held_out", held_out, held_stream)):
        about[name] = {"documents": len(texts), "characters": sum(map(len, texts)), "tokens": len(tokens)}
    print(json.dumps(about))
    log = []
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "training_log.jsonl", "w", encoding="utf-8", buffering=1) as file:
        file.write(json.dumps(about) + "\n")
        for entry in train(model, stream, held_stream, args):
            log.append(entry)
            file.write(json.dumps(entry) + "\n")
        save(model, tokenizer, args.out / "roberta-demo")
        result = report(args.out / "roberta-demo", held_out)
        file.write(json.dumps({"final": result}) + "\n")
    print(json.dumps(result, indent=2))
    plot(log, args.out / "training.png")


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), "train_demo.py")


if __name__ == "__main__":
    sys.exit(main())
