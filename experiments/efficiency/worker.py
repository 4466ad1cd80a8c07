"""One model in a process of its own: it reads one request from each line of stdin, and answers in one line of JSON.

It imports only torch and transformers, so that it also runs in the environment of the earlier lsg-converter.
"""

import argparse
import ctypes
import json
import os
import platform
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LSG = {  # name to config fields
    "LSG 256/0": {"block_size": 256, "sparse_block_size": 0, "sparsity_factor": 1, "sparsity_type": "none"},
    "LSG 128/128 norm": {"block_size": 128, "sparse_block_size": 128, "sparsity_factor": 2, "sparsity_type": "norm"},
    "LSG 32/32 norm": {"block_size": 32, "sparse_block_size": 32, "sparsity_factor": 4, "sparsity_type": "norm"},
}
WINDOW = 512  # tokens
WINDOWS = {f"windows of {WINDOW}, an eighth overlap": WINDOW // 8, f"windows of {WINDOW}, half overlap": WINDOW // 2}
LSG_MODERNBERT = "LSG ModernBERT"  # with the fields of "LSG 128/128 norm"
PEER = "lsg-converter 0.1.9, 128/128 norm"
MODELS = ("floor", "full attention", *WINDOWS, "Longformer", "BigBird", "ModernBERT", *LSG, LSG_MODERNBERT, PEER)


def build(name: str, layers: int, length: int, dropout: float, backend: str) -> Any:
    """Return a classifier with random weights."""
    import transformers

    fields: dict[str, Any] = {  # the sizes of RoBERTa-base
        "vocab_size": 50265,
        "hidden_size": 768,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": length + 2,
        "attention_probs_dropout_prob": dropout,
        "hidden_dropout_prob": 0.1,
        "pad_token_id": 1,
        "num_labels": 2,
    }
    if name in LSG:
        sys.path.insert(0, str(ROOT))
        from lsg.modeling.modeling_lsg_roberta import LSGRobertaConfig, LSGRobertaForSequenceClassification

        config = LSGRobertaConfig(**fields, **LSG[name], lsg_backend=backend)
        return LSGRobertaForSequenceClassification(config)
    if name == "Longformer":
        config = transformers.LongformerConfig(**fields, attention_window=512)
        return transformers.LongformerForSequenceClassification(config)
    if name == "BigBird":
        config = transformers.BigBirdConfig(**fields, attention_type="block_sparse", block_size=64)
        return transformers.BigBirdForSequenceClassification(config)
    if name in (
        "ModernBERT",
        LSG_MODERNBERT,
    ):  # its own proportions: GLU layers, and every third layer reads all tokens
        return build_modernbert(
            fields, None if name == "ModernBERT" else {**LSG["LSG 128/128 norm"], "lsg_backend": backend}
        )
    config = transformers.RobertaConfig(**fields)
    if name in WINDOWS:
        sys.path.insert(0, str(ROOT))
        from experiments.efficiency.windows import OnWindows

        config.max_position_embeddings = WINDOW + 2
        return OnWindows(transformers.RobertaForSequenceClassification(config), WINDOW, WINDOWS[name])
    if name == PEER:
        return build_peer(config, length)
    if name == "floor":
        register_floor()
    config._attn_implementation = "floor" if name == "floor" else "sdpa"
    return transformers.RobertaForSequenceClassification(config)


def build_modernbert(fields: dict[str, Any], lsg_fields: dict[str, Any] | None) -> Any:
    """Return a ModernBERT of the width and depth of the others; its layers have the sizes of ModernBERT-base.

    Args:
        lsg_fields: of its LSG variant; None for the original.
    """
    import transformers

    own = {name: x for name, x in fields.items() if name in transformers.ModernBertConfig().to_dict()}
    own |= {"intermediate_size": 1152, "attention_dropout": fields["attention_probs_dropout_prob"]}
    own |= {"mlp_dropout": fields["hidden_dropout_prob"], "num_labels": fields["num_labels"]}
    own |= {"bos_token_id": 0, "cls_token_id": 0, "eos_token_id": 2, "sep_token_id": 2}
    if lsg_fields is not None:
        sys.path.insert(0, str(ROOT))
        from lsg.modeling.modeling_lsg_modernbert import LSGModernBertConfig, LSGModernBertForSequenceClassification

        return LSGModernBertForSequenceClassification(LSGModernBertConfig(**own, **lsg_fields))
    config = transformers.ModernBertConfig(**own)
    config._attn_implementation = "sdpa"
    return transformers.ModernBertForSequenceClassification(config)


def register_floor() -> None:
    """Register an attention that returns the values unchanged: the cost of the rest of the model."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register("floor", lambda module, query, key, value, *_, **__: (value.transpose(1, 2), None))
    AttentionMaskInterface.register("floor", lambda *_, **__: None)


def build_peer(config: Any, length: int) -> Any:
    """Convert a RoBERTa with random weights with the earlier lsg-converter."""
    import transformers

    from lsg_converter import LSGConverter

    config.max_position_embeddings = 514
    with tempfile.TemporaryDirectory() as folder:
        transformers.RobertaForSequenceClassification(config).save_pretrained(folder)
        specials = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # the converter needs a tokenizer; it is not used here
        Path(folder, "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(specials)}))
        Path(folder, "merges.txt").write_text("#version: 0.2\n")
        converter = LSGConverter(max_sequence_length=length)
        fields: dict[str, Any] = {**LSG["LSG 128/128 norm"], "architecture": "RobertaForSequenceClassification"}
        return converter.convert_from_pretrained(folder, **fields)[0]


class Measured:
    """A model, and the cost of one forward pass or one training step."""

    def __init__(self, model: Any, memory_before: float, device: str, dtype: str) -> None:
        import torch

        self.torch, self.device = torch, device
        self.memory_before = memory_before
        self.dtype = getattr(torch, dtype)
        self.model = model.to(device)
        self.optimizer: Any = None

    def run(self, mode: str, lengths: list[int]) -> dict[str, float]:
        """Run once on rows of these lengths; return the seconds and the peak memory in GB.

        On a CPU, it is the memory of the process, less what it used before the model was built.
        """
        torch = self.torch
        inputs = self.make_inputs(lengths)
        step = self.infer if mode == "infer" else self.train
        self.reset_peak()
        start = time.perf_counter()
        step(inputs)
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() / 1e9 if self.device == "cuda" else peak_memory() - self.memory_before
        if self.device == "cpu":
            release_memory()
        return {"seconds": seconds, "gb": peak}

    def make_inputs(self, lengths: list[int]) -> dict[str, Any]:
        """Return random tokens, padded to the longest row; no mask if there is no padding."""
        torch = self.torch
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(5, 50000, (len(lengths), max(lengths)), generator=generator)
        key_mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]  # (n, t), True for tokens
        inputs = {"input_ids": ids.masked_fill(~key_mask, 1).to(self.device)}
        return inputs if bool(key_mask.all()) else {**inputs, "attention_mask": key_mask.long().to(self.device)}

    def infer(self, inputs: dict[str, Any]) -> None:
        """Run one forward pass."""
        self.model.eval().to(self.dtype)
        with self.torch.inference_mode():
            self.model(**inputs)

    def train(self, inputs: dict[str, Any]) -> None:
        """Run one step of Adam; bfloat16 by autocast over float32 weights."""
        torch = self.torch
        self.model.train().float()
        if self.optimizer is None:
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-5)
        is_half = self.dtype != torch.float32
        with torch.autocast(self.device, self.dtype) if is_half else nullcontext():
            labels = torch.zeros(len(inputs["input_ids"]), dtype=torch.long, device=self.device)
            loss = self.model(**inputs, labels=labels).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def reset_peak(self) -> None:
        """Reset the peak of memory."""
        if self.device == "cuda":
            self.torch.cuda.synchronize()
            self.torch.cuda.reset_peak_memory_stats()
        elif os.path.exists("/proc/self/clear_refs"):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """Return the peak resident memory of this process in GB, since the last reset where the system has one."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if platform.system() == "Darwin" else 1e6)


def release_memory() -> None:
    """Return freed memory to the system, for the other processes."""
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def answer(measured: Measured, line: str) -> dict[str, Any]:
    """Return one measurement, or the error of a model that cannot do it."""
    import torch

    try:
        return measured.run(**json.loads(line))
    except (RuntimeError, MemoryError, ValueError, IndexError, AttributeError, TypeError) as error:
        if measured.device == "cuda":
            torch.cuda.empty_cache()
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def main() -> None:
    """Build the model, write its device and versions, and answer line by line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--length", type=int, required=True, help="tokens of the longest request")
    parser.add_argument("--dropout", type=float, required=True, help="of attention weights")
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--backend", default="auto")
    args = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    before = peak_memory()
    model = build(args.model, args.layers, args.length, args.dropout, args.backend)
    measured = Measured(model, before, args.device, args.dtype)
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    about = {"device": device, "torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(measured, line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
