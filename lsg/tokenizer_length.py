"""The length that a tokenizer cuts texts to, and pads them to, where nobody says otherwise."""

from transformers import PreTrainedTokenizerBase


def set_length(tokenizer: PreTrainedTokenizerBase, length: int) -> None:
    """Have a tokenizer cut at `length`, in place, and pad to the longest text of a batch.

    transformers decides on both at every call. `Tokenizer.from_file("tokenizer.json")` and servers that are built on it
    do what that file says, which is what the original was made for: to cut at 128 tokens, say, and to pad up to them.
    Whoever relies on that cut must not run into too long a text now, so it stays a cut, at the new length. Padding
    every text up to that would be a waste, so it is to the longest of a batch. What the file leaves out stays out.
    """
    tokenizer.model_max_length = length
    # the tokenizer_config.json that save_pretrained writes repeats the number
    if tokenizer.init_kwargs.get("max_length") is not None:
        tokenizer.init_kwargs["max_length"] = length
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a tokenizer without tokenizer.json
        return
    if backend.truncation is not None:
        backend.enable_truncation(**{**backend.truncation, "max_length": length})
    if backend.padding is not None:
        backend.enable_padding(**{**backend.padding, "length": None})
