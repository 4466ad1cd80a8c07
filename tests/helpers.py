"""What several test files need: the tiny checkpoints, and scripts run where this repository is out of reach."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers
from forks import run_fork

import lsg.command
from lsg import ConversionError
from lsg.model_types import MODEL_TYPES

GOLDEN = Path(__file__).parent / "golden"  # checkpoints, and what the published converter made of them
ROOT = Path(__file__).parents[1]

# Types that the published converter does not know: whose golden tokenizer is theirs, too, and fields of a tiny config.
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
DECODER = {
    f"{part}_{name}": value
    for part in ("encoder", "decoder")
    for name, value in {"layers": 2, "attention_heads": 4, "ffn_dim": 32}.items()
}
DECODER |= {"d_model": 16, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
LENGTH = {"max_position_embeddings": 512}
BERT_TOKENS = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
RANDOM: dict[str, tuple[str, dict]] = {
    "bert-generation": ("bert", {**SMALL, "pad_token_id": 0}),
    "blenderbot": ("bart", {**DECODER, "max_position_embeddings": 512, "scale_embedding": True}),
    "blenderbot-small": ("bart", {**DECODER, "max_position_embeddings": 512, "scale_embedding": True}),
    "data2vec-text": ("roberta", {**SMALL, "max_position_embeddings": 514, "type_vocab_size": 1}),
    "ernie": ("bert", {**SMALL, "use_task_id": True}),
    "esm": (
        "bert",
        {
            **SMALL,
            **BERT_TOKENS,
            "max_position_embeddings": 512,
            "mask_token_id": 4,
            "position_embedding_type": "rotary",
        },
    ),
    "eurobert": (
        "bert",
        {**SMALL, **BERT_TOKENS, "max_position_embeddings": 512, "mask_token_id": 4, "num_key_value_heads": 2},
    ),
    "gte": ("bert", {**SMALL, **LENGTH, "pad_token_id": 0, "type_vocab_size": 2}),
    "jina_embeddings_v3": ("bert", {**SMALL, **BERT_TOKENS, **LENGTH, "type_vocab_size": 2}),
    "layoutlm": ("bert", {**SMALL, "max_2d_position_embeddings": 128}),
    "m2m_100": ("bart", {**DECODER, "max_position_embeddings": 512, "scale_embedding": True}),
    "marian": ("bart", {**DECODER, "max_position_embeddings": 512, "scale_embedding": True}),
    "markuplm": (
        "roberta",
        {**SMALL, "max_position_embeddings": 514, "pad_token_id": 1, "max_depth": 5, "xpath_unit_hidden_size": 4},
    ),
    "modernbert": (
        "bert",
        {**SMALL, **BERT_TOKENS, "max_position_embeddings": 512, "local_attention": 64},
    ),
    "mpnet": ("roberta", {**SMALL, "max_position_embeddings": 514}),
    "nomic_bert": ("bert", {**SMALL, "max_position_embeddings": 512}),
    "plbart": ("bart", {**DECODER, "max_position_embeddings": 512, "scale_embedding": True}),
    "roberta-prelayernorm": ("roberta", {**SMALL, "max_position_embeddings": 514, "type_vocab_size": 1}),
    "roc_bert": ("bert", {**SMALL, "pronunciation_embed_dim": 6, "shape_embed_dim": 5}),
    "splinter": ("bert", {**SMALL, "question_token_id": 1}),
    "xlm-roberta-xl": ("roberta", {**SMALL, "max_position_embeddings": 514}),
    "xmod": (
        "xlm-roberta",
        {**SMALL, "max_position_embeddings": 514, "languages": ["en_XX", "de_DE"], "default_language": "de_DE"},
    ),
}
# Types whose parts are those of other types, or transformers' own. Tests that take seconds for each type, as they start
# a process or export a graph, leave them to others, unless LSG_TEST_ALL_TYPES is set; every type passes `--run_test` in
# test_self_test, and LayoutLM, X-MOD and ModernBERT, which have parts of their own, are exported in test_onnx.
ALIKE = set() if os.environ.get("LSG_TEST_ALL_TYPES") else RANDOM.keys() - {"ernie"}
NEW_INTERPRETER = {"bert", "bart"}  # one of each kind; the others are tested in forks of one process
ROTARY = {"esm", "eurobert", "gte", "jina_embeddings_v3", "modernbert", "nomic_bert"}
NO_BOS = {"barthez", "mbart", "pegasus"}  # their inputs do not begin with BOS, for which global 0 stands

NEEDS_DECODER_INPUT = ("Pegasus", "Marian", "Blenderbot", "M2M100")  # the others make it of input_ids

random_checkpoints = TemporaryDirectory(prefix="lsg-tests-checkpoints-")


@cache
def initial(model_type: str) -> Path:
    """Return the tiny original checkpoint of a type."""
    if model_type not in RANDOM:
        return GOLDEN / model_type / "initial"
    folder = Path(random_checkpoints.name) / model_type
    tokenizer_type, fields = RANDOM[model_type]
    tokenizer = transformers.AutoTokenizer.from_pretrained(initial(tokenizer_type))
    config = transformers.AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **fields)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, MODEL_TYPES[model_type].default_architecture)(config)
        for weight in model.parameters():  # biases and norms are constant in a new model
            weight.data.add_(torch.randn_like(weight), alpha=0.1)
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    return folder


def loads_here(model_type: str) -> bool:
    """Return whether transformers has the type, and can read the original: 5.4 refuses the config of every mBART."""
    try:
        _ = MODEL_TYPES[model_type].module
    except ConversionError:  # a release without the type
        return False
    try:
        transformers.AutoConfig.from_pretrained(initial(model_type))
        return True
    except Exception:
        if not transformers.__version__.startswith("5.4."):
            raise
        return False


TYPES = [model_type for model_type in sorted(MODEL_TYPES) if loads_here(model_type)]
HEADS = [(name, architecture) for name in TYPES for architecture in MODEL_TYPES[name].architectures]
SEQ2SEQ = {name for name in TYPES if "AutoModelForSeq2SeqLM" in MODEL_TYPES[name].auto_classes}
ENCODERS = [name for name in TYPES if name not in SEQ2SEQ]
GOLDEN_TYPES = [name for name in TYPES if name not in RANDOM]
# exact on short input: token 0 is masked, global 0 stands for it
EXACT = {"mask_first_token": True, "num_global_tokens": 1, "pool_with_global": True}


def architecture_of(model_type: str, auto_class: str) -> str:
    """Return the name of the original's class for an AutoClass."""
    return MODEL_TYPES[model_type].auto_classes[auto_class].__name__.removeprefix("LSG")


def encoders_with(auto_class: str) -> list[str]:
    """Return the encoder types that have a class for an AutoClass."""
    return [name for name in ENCODERS if auto_class in MODEL_TYPES[name].auto_classes]


CAUSAL = [(name, architecture_of(name, "AutoModelForCausalLM")) for name in encoders_with("AutoModelForCausalLM")]


def load_dense(model_type: str, architecture: str, **config_fields):
    """Load the original checkpoint into transformers' own class; a head it lacks is random, always the same."""
    torch.manual_seed(0)
    model_class = getattr(transformers, architecture)
    return model_class.from_pretrained(initial(model_type), **config_fields).eval()


def load_tokenizer(model_type: str):
    return transformers.AutoTokenizer.from_pretrained(initial(model_type))


def make_inputs(tokenizer, vocab_size: int, lengths: list[int], architecture: str = "", seed: int = 0) -> dict:
    """Rows of random tokens that begin with BOS, padded on the right to the longest."""
    generator = torch.Generator().manual_seed(seed)
    start = tokenizer.bos_token_id if tokenizer.cls_token_id is None else tokenizer.cls_token_id
    end = tokenizer.eos_token_id if tokenizer.sep_token_id is None else tokenizer.sep_token_id
    ids = torch.tensor(sorted(set(range(vocab_size)) - set(tokenizer.all_special_ids)))
    input_ids = ids[torch.randint(len(ids), (len(lengths), max(lengths)), generator=generator)]
    attention_mask = torch.ones_like(input_ids)
    if start is not None:
        input_ids[:, 0] = start
    for row, length in enumerate(lengths):
        attention_mask[row, length:] = 0
        input_ids[row, length - 1] = end  # BART's classifier looks for it
    input_ids = input_ids.masked_fill(attention_mask == 0, tokenizer.pad_token_id)
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if architecture.endswith("ForMultipleChoice"):
        inputs = {name: x[:, None].repeat(1, 2, 1) for name, x in inputs.items()}
    if architecture == "SplinterForPreTraining":
        input_ids[:, min(1, max(lengths) - 1)] = RANDOM["splinter"][1]["question_token_id"]
    if architecture.startswith(NEEDS_DECODER_INPUT) and not architecture.endswith("ForCausalLM"):
        inputs["decoder_input_ids"] = input_ids[:, :8].contiguous()  # the others make them of input_ids
    return inputs


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def meanwhile(monkeypatch, action: Callable[[], object]) -> None:
    """Have something happen, once, while the next conversion by the command runs."""
    save = lsg.command.save_checkpoint

    def save_and_act(*args, **kwargs) -> None:
        monkeypatch.setattr(lsg.command, "save_checkpoint", save)
        save(*args, **kwargs)
        action()

    monkeypatch.setattr(lsg.command, "save_checkpoint", save_and_act)


def assert_nothing_hidden(folder: Path) -> None:
    assert [file.name for file in folder.iterdir() if file.name.startswith(".")] == []


def run_elsewhere(script: str, folder: Path, *args: object, fork: bool = True) -> subprocess.CompletedProcess:
    """Run a script in a process of its own, in `folder`, where lsg cannot be imported; in a new interpreter if told."""
    env = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules_cache"), "HF_HUB_OFFLINE": "1"}
    env.pop("PYTHONPATH", None)
    block = "import sys; sys.modules['lsg'] = sys.modules['lsg_converter'] = None\n"
    command = ["-c", block + script, *map(str, args)]
    if fork:
        return run_fork(command, folder, env)
    return subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=600)


def bare_environment(folder: Path) -> dict[str, str]:
    """Make a folder of packages that has neither torch nor transformers, and return the environment to use it."""
    folder.mkdir()
    for name in ("numpy", "numpy.libs", "onnxruntime", "tokenizers"):
        spec = importlib.util.find_spec(name.partition(".")[0])
        place = Path(spec.origin).parents[1] / name
        if place.exists():
            (folder / name).symlink_to(place)
    return {"PYTHONPATH": str(folder), "HOME": str(folder)}


def run_bare(script: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-S", "-c", script]  # -S: no other packages
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
