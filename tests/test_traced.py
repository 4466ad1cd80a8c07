"""Code that is compiled or exported: the same outputs and gradients, one graph, constants that repeat."""

import pytest
import torch
from helpers import load_tokenizer, make_inputs
from test_models import convert_tiny

from lsg.modeling.lsg_sparse import draw_projections


@pytest.mark.parametrize("kind", ["norm", "lsh"])
def test_compiled_without_a_graph_break(kind: str) -> None:
    """All of the model, the attention included, is one graph, and gives the same outputs and gradients."""
    draw_projections.cache_clear()
    torch._dynamo.reset()
    _, ours = convert_tiny("bert", "BertForMaskedLM", sparsity_type=kind)
    inputs = make_inputs(load_tokenizer("bert"), ours.config.vocab_size, [200])
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    results = []
    for model in (ours, compiled):
        ours.zero_grad()
        logits = model(**inputs).logits
        logits.square().mean().backward()
        results.append([logits.detach(), *(p.grad.clone() for p in ours.parameters() if p.grad is not None)])
    for expected, found in zip(*results, strict=True):
        assert (expected - found).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)


def test_projections_do_not_depend_on_defaults() -> None:
    expected = draw_projections.__wrapped__(2, 3, (4, 2), 5)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.device("meta"):
            found = draw_projections.__wrapped__(2, 3, (4, 2), 5)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found, expected) and not found.is_inference()


class LastHiddenState(torch.nn.Module):
    """A model whose output is a tensor."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids).last_hidden_state


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("is_warm", [False, True])
def test_exported_projections_are_constants(is_warm: bool, strict: bool) -> None:
    """What is exported repeats, and what exporting leaves in caches does no harm to the model itself."""
    _, ours = convert_tiny("bert", "BertModel", sparsity_type="lsh")
    ids = make_inputs(load_tokenizer("bert"), ours.config.vocab_size, [200])["input_ids"]
    with torch.no_grad():
        expected = ours(ids).last_hidden_state
        if not is_warm:
            draw_projections.cache_clear()
        exported = torch.export.export(LastHiddenState(ours), (ids,), strict=strict).module()
        for run in (exported, exported, LastHiddenState(ours)):
            assert (run(ids) - expected).abs().max().item() < 1e-5
