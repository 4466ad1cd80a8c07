"""BARThez is mBART with another tokenizer: the same classes, under the name of its own."""

from .modeling_lsg_mbart import (
    LSGMBartConfig,
    LSGMBartForCausalLM,
    LSGMBartForConditionalGeneration,
    LSGMBartForQuestionAnswering,
    LSGMBartForSequenceClassification,
    LSGMBartModel,
)

__all__ = [
    "LSGMBartConfig",
    "LSGMBartForCausalLM",
    "LSGMBartForConditionalGeneration",
    "LSGMBartForQuestionAnswering",
    "LSGMBartForSequenceClassification",
    "LSGMBartModel",
]
