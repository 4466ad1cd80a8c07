"""The embedding tables of a model that conversion reads and writes."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass
class EmbeddingTables:
    """The embeddings of one model.

    Args:
        words: (V, D), word embeddings.
        word_scale: factor with which the model adds words to positions.
        positions: the position tables, the encoder's first; none where positions are rotary.
        globals_: the global embeddings; None for a decoder alone.
        token_type: (D,), embedding of type 0, the sum over all tables of types (ERNIE has task types, too), in single
            precision; None where there are none.
        embeddings: the module with the tables, of an encoder type; its `position_ids` and `token_type_ids` are as long
            as the position table.
    """

    words: Tensor
    positions: list[nn.Embedding]
    globals_: nn.Embedding | None
    token_type: Tensor | None = None
    embeddings: Any = None
    word_scale: float = 1.0

    @property
    def first_positions(self) -> Tensor | None:
        """The (encoder's) position table, (rows, D); None where positions are rotary."""
        return table_of(self.positions[0]) if self.positions else None

    def embed_words(self, special_inputs: dict[str, Any] | None, words: Tensor) -> Tensor:
        """Return what the model adds to positions and token types for special tokens, (k, D) in single precision.

        Args:
            special_inputs: what the embeddings read of such a token besides its id, each input's value for one token;
                None if they are no more than a sum of words, positions and types.
            words: (k, D), word embeddings of the tokens.
        """
        if special_inputs is None:
            return words.float() * self.word_scale
        count, module, sums = len(words), self.embeddings, []
        values = {name: torch.tensor(value) for name, value in special_inputs.items()}
        values = {name: value.expand(1, count, *value.shape) for name, value in values.items()}
        types, start = torch.zeros(1, count, dtype=torch.long), module.position_offset
        hook = module.LayerNorm.register_forward_pre_hook(lambda layer, inputs: sums.append(inputs[0]))
        with torch.no_grad():
            embeds = words[None].to(self.words)
            module(inputs_embeds=embeds, position_ids=types + start, token_type_ids=types, **values)
        hook.remove()
        others = table_of(self.positions[0])[start].float()
        return sums[0][0].float() - others - (0 if self.token_type is None else self.token_type)

    def set_positions(self, index: int, table: Tensor) -> None:
        """Replace the `index`-th position table by a longer one (rows, D), and extend the buffers."""
        module: Any = self.positions[index]
        if hasattr(module, "make_weights"):  # M2M100's, which is computed
            module.num_positions = len(table) - module.offset
            module.make_weights(len(table), module.embedding_dim, module.padding_idx)
            return
        module.weight = nn.Parameter(table, requires_grad=module.weight.requires_grad)
        module.num_embeddings = len(table)
        if self.embeddings is not None:
            self.embeddings.position_ids = torch.arange(len(table), device=table.device)[None]
            if hasattr(self.embeddings, "token_type_ids"):
                self.embeddings.token_type_ids = torch.zeros(1, len(table), dtype=torch.long, device=table.device)


def table_of(module: Any) -> Tensor:
    """Return a module's position table, (rows, D); M2M100's is a buffer of another name."""
    return module.weights if hasattr(module, "make_weights") else module.weight.data


def find_tables(model: PreTrainedModel) -> EmbeddingTables:
    """Return the tables of an LSG model, with or without a head."""
    base: Any = model.base_model
    if hasattr(base, "embeddings"):
        embeddings = base.embeddings
        words = embeddings.word_embeddings.weight.data
        positions = [table for name, table in embeddings.named_children() if name == "position_embeddings"]
        tables = [table for name, table in embeddings.named_children() if name.endswith("_type_embeddings")]
        # ERNIE has token types and task types
        token_type = torch.stack([table.weight.data[0].float() for table in tables]).sum(0) if tables else None
        return EmbeddingTables(words, positions, embeddings.global_embeddings, token_type, embeddings)
    decoder = base.decoder
    if not hasattr(base, "encoder"):
        return EmbeddingTables(decoder.embed_tokens.weight.data, [decoder.embed_positions], None)
    words = base.encoder.embed_tokens.weight.data
    positions = [base.encoder.embed_positions, decoder.embed_positions]
    scale = math.sqrt(model.config.d_model) if model.config.scale_embedding else 1.0
    return EmbeddingTables(words, positions, base.encoder.global_embeddings, word_scale=scale)
