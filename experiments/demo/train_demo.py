#!/usr/bin/env python3
"""Train the demo checkpoint: a small RoBERTa masked language model, made offline on a CPU.

The training text is the English prose in the documentation strings of packages that every user of
this project already has: the Python standard library, torch, transformers, numpy and
huggingface_hub. Their files are parsed, never imported or run. The result is a plain Hugging Face
folder that ``pipeline("fill-mask", ...)`` reads.

    python train_demo.py --minutes 45            # train, and write everything beside this script
    python train_demo.py --evaluate roberta-demo # held-out figures and fill-mask examples, no training
    python train_demo.py --corpus-only text # write the text that would be trained on, and stop
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from corpus import collect_documents, split_documents
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import AutoModelForMaskedLM, AutoTokenizer, RobertaConfig, RobertaForMaskedLM, RobertaTokenizer

HERE = Path(__file__).resolve().parent
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BOS, PAD, EOS, UNK, MASK = range(5)
SHORT, LENGTH = 64, 512  # tokens in a window: at first mostly SHORT, in the last third of the training only LENGTH
MODEL = {  # with these sizes the checkpoint stays under 3,000,000 bytes
    "vocab_size": 3400,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": LENGTH + 2,  # RoBERTa counts positions from pad_token_id + 1
    "type_vocab_size": 1,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "hidden_dropout_prob": 0.0,  # a small model and few passes over the text
    "attention_probs_dropout_prob": 0.0,
    "tie_word_embeddings": True,
    "initializer_range": 0.06,
}
TRAINING = {
    "batch_tokens": 2048,
    "peak_learning_rate": 2e-3,
    "weight_decay": 0.01,
    "warmup_share": 0.02,  # of the budget
    "full_length_from": 0.67,  # share of the budget after which all windows have LENGTH tokens; one in four before
    "masked_share": 0.2,  # of the tokens
    "steps_between_log_entries": 200,
}
EXAMPLES = (
    "Return True if the two arrays are <mask>, False otherwise.",
    "The model was trained on a single <mask>.",
    "If the file does not exist, an <mask> is raised.",
    "This method is called when the server receives a new <mask> from the client.",
    "The learning <mask> is multiplied by a factor after every epoch.",
)


def train_tokenizer(texts: list[str]) -> RobertaTokenizer:
    """Train a byte-level BPE vocabulary and wrap it as a RoBERTa tokenizer."""
    bpe = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator(texts, vocab_size=MODEL["vocab_size"], min_frequency=2, special_tokens=SPECIALS)
    state = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) for pair in state["merges"]]
    mask = tokenizers.AddedToken("<mask>", lstrip=True, normalized=False, special=True)
    tokenizer = RobertaTokenizer(vocab=state["vocab"], merges=merges, mask_token=mask, model_max_length=LENGTH)
    if tokenizer.convert_tokens_to_ids(SPECIALS) != list(range(5)):
        raise RuntimeError("the special tokens did not get the ids 0 to 4")
    return tokenizer


def token_stream(texts: list[str], tokenizer: RobertaTokenizer) -> torch.Tensor:
    """Return all documents as one sequence of token ids, </s> between them."""
    encoded = tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return torch.tensor([token for ids in encoded for token in (*ids, EOS)])


def all_windows(stream: torch.Tensor, length: int) -> torch.Tensor:
    """Cut the whole stream into consecutive windows of `length` tokens, each <s> ... </s>."""
    rows = stream[: len(stream) // (length - 2) * (length - 2)].view(-1, length - 2)
    return torch.cat([rows.new_full((len(rows), 1), BOS), rows, rows.new_full((len(rows), 1), EOS)], dim=1)


def random_windows(stream: torch.Tensor, length: int, rng: torch.Generator) -> torch.Tensor:
    """Draw one batch of windows that start anywhere in the stream, each <s> ... </s>."""
    starts = torch.randint(1, len(stream) - length, (TRAINING["batch_tokens"] // length, 1), generator=rng)
    rows = stream[starts + torch.arange(length) - 1]
    rows[:, 0], rows[:, -1] = BOS, EOS
    return rows


def choose(ids: torch.Tensor, share: float, rng: torch.Generator) -> torch.Tensor:
    """Choose a random share of the tokens that are not special tokens, as a boolean mask."""
    return (torch.rand(ids.shape, generator=rng) < share) & (ids > MASK)


def corrupt(ids: torch.Tensor, chosen: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Replace 80 % of the chosen tokens by <mask> and 10 % by random tokens; leave 10 % as they are."""
    fate = torch.rand(ids.shape, generator=rng)
    random = torch.randint(MASK + 1, MODEL["vocab_size"], ids.shape, generator=rng)
    return torch.where(chosen & (fate < 0.8), MASK, torch.where(chosen & (fate >= 0.9), random, ids))


def chosen_logits(
    model: RobertaForMaskedLM, ids: torch.Tensor, chosen: torch.Tensor, positions: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the logits at the chosen positions only: the head is a third of this model's work."""
    return model.lm_head(model.roberta(ids, position_ids=positions).last_hidden_state[chosen]).float()


def random_positions(ids: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Place each window at random among the model's positions, so that short windows train all of them."""
    rows, length = ids.shape
    return PAD + 1 + torch.randint(LENGTH - length + 1, (rows, 1), generator=rng) + torch.arange(length)


@torch.no_grad()
def evaluate(model: RobertaForMaskedLM, stream: torch.Tensor, length: int, repeats: int = 1) -> dict[str, Any]:
    """Measure loss and accuracy with 15 % of the held-out tokens replaced by <mask>, always the same ones."""
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


def cooccurrence_vectors(stream: torch.Tensor, size: int) -> torch.Tensor:
    """Factorise the positive pointwise mutual information of tokens at most three apart, as word vectors."""
    vocab = MODEL["vocab_size"]
    counts = torch.zeros(vocab * vocab)
    for distance in (1, 2, 3):
        counts += torch.bincount(stream[:-distance] * vocab + stream[distance:], minlength=vocab * vocab)
    counts = counts.view(vocab, vocab) + counts.view(vocab, vocab).T
    totals = counts.sum(1, keepdim=True) + 1
    information = (counts * totals.sum() / (totals * totals.T)).clamp(min=1).log()
    left, values, _ = torch.svd_lowrank(information, size, niter=3)
    rotation = torch.linalg.qr(torch.randn(size, size))[0]  # spreads the few strong directions over all of them
    vectors = (left * values.sqrt()) @ rotation
    return vectors / vectors.square().mean().sqrt()


@torch.no_grad()
def new_model(stream: torch.Tensor) -> RobertaForMaskedLM:
    """Build the untrained model, started so that it uses the neighbours of a <mask> from the first steps on.

    From the usual random start, a model this small learns nothing but the token frequencies for much of a
    short training. So the embeddings start as co-occurrence vectors, the output bias as the log frequencies,
    the positions as sinusoids, and the attention as an average over the tokens nearby. All of it is trained.
    """
    model, scale = RobertaForMaskedLM(RobertaConfig(**MODEL)), MODEL["initializer_range"]
    counts = torch.bincount(stream, minlength=MODEL["vocab_size"]) + 1.0
    model.lm_head.bias.copy_((counts / counts.sum()).log())
    words = model.roberta.embeddings.word_embeddings.weight
    words.copy_(scale * cooccurrence_vectors(stream, words.shape[1]))
    words[[PAD, MASK]] = 0
    positions = model.roberta.embeddings.position_embeddings.weight
    angles = torch.arange(len(positions))[:, None] * torch.logspace(0.2, -1.7, words.shape[1] // 2)
    positions.copy_(scale * 2**0.5 * torch.cat([angles.sin(), angles.cos()], dim=1))
    positions[PAD] = 0
    for layer in model.roberta.encoder.layer:
        attention = layer.attention.self
        attention.query.weight.mul_(2.1)
        attention.key.weight.copy_(attention.query.weight)
        torch.nn.init.orthogonal_(attention.value.weight)
        layer.attention.output.dense.weight.copy_(attention.value.weight.T)
    return model


def learning_rate(progress: float) -> float:
    """Warm up linearly, then fall to zero along a cosine at the end of the budget."""
    peak, warmup = TRAINING["peak_learning_rate"], TRAINING["warmup_share"]
    if progress < warmup:
        return peak * max(progress / warmup, 1e-3)
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def train(
    model: RobertaForMaskedLM, stream: torch.Tensor, held_out: torch.Tensor, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Train to the end of the budget, mostly on short windows first, and yield the entries of the log."""
    rng = torch.Generator().manual_seed(args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=TRAINING["weight_decay"])
    recent, step, progress, start = [], 0, 0.0, time.monotonic()
    bar = tqdm(
        total=100.0, desc="training", bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}", mininterval=2
    )
    while progress < 1:
        length = LENGTH if progress >= TRAINING["full_length_from"] or step % 4 == 0 else SHORT
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress)
        ids = random_windows(stream, length, rng)
        chosen = choose(ids, TRAINING["masked_share"], rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            logits = chosen_logits(model, corrupt(ids, chosen, rng), chosen, random_positions(ids, rng))
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
    """Write the checkpoint with float16 weights (half the size) and a configuration that asks for float32."""
    model.eval().half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8")) | {"dtype": "float32"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def report(folder: Path, held_out: list[str]) -> dict[str, Any]:
    """Load a saved checkpoint as a user would; measure it on the held-out documents and fill in the examples."""
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    stream = token_stream(held_out, tokenizer)
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
    for axis, key, colour in (
        (left, "train_loss", "C0"),
        (left, "held_out_loss", "C3"),
        (right, "held_out_accuracy", "C2"),
    ):
        label = key.replace("_", " ").replace("held out", "held-out")
        left.plot([], [], color=colour, label=label)
        axis.plot([entry["step"] for entry in log], [entry[key] for entry in log], color=colour)
    left.set(xlabel="step", ylabel="cross-entropy of the masked tokens (nats)")
    right.set(ylabel="accuracy on the masked tokens", ylim=(0, 1))
    left.legend(loc="upper center")
    figure.savefig(path, dpi=110)


def parse_arguments() -> argparse.Namespace:
    """Define the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=45, help="training time; the learning rate is zero at its end (default 45)")
    add("--steps", type=int, help="train for so many steps instead: repeatable, where --minutes depends on the machine")
    add("--seed", type=int, default=0, help="seed of the weights, the windows and the masking (default 0)")
    add("--threads", type=int, default=2, help="CPU threads (default 2)")
    add("--bf16", action="store_true", help="train under bfloat16 autocast; faster only on CPUs that compute in it")
    add("--out", type=Path, default=HERE, help="where roberta-demo/, training_log.jsonl and training.png are written")
    add("--evaluate", type=Path, metavar="FOLDER", help="measure this checkpoint, print the figures as JSON, and stop")
    add("--corpus-only", type=Path, metavar="FOLDER", help="write train.txt and held_out.txt there, and stop")
    return parser.parse_args()


def main() -> None:
    """Collect the text, train, save, and measure what was saved."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    training, held_out = split_documents(collect_documents())
    if args.corpus_only:
        args.corpus_only.mkdir(parents=True, exist_ok=True)
        for name, texts in (("train", training), ("held_out", held_out)):
            (args.corpus_only / f"{name}.txt").write_text("\n\n".join(texts), "utf-8")
        return
    if args.evaluate:
        print(json.dumps(report(args.evaluate, held_out), indent=2))
        return
    tokenizer = train_tokenizer(training)
    stream, held_stream = token_stream(training, tokenizer), token_stream(held_out, tokenizer)
    model = new_model(stream)
    about = {
        "python": platform.python_version(),
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, tokenizers, np)},
        "device": f"cpu, {args.threads} threads, {'bfloat16 autocast' if args.bf16 else 'float32'}",
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


if __name__ == "__main__":
    main()
