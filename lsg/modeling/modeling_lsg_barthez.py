"""BARThez is mBART with another tokenizer: the same classes."""

from .modeling_lsg_mbart import (
    LSGMBartConfig,
    LSGMBartForCausalLM,
    LSGMBartForConditionalGeneration,
    LSGMBartForQuestionAnswering,
    LSGMBartForSequenceClassification,
    LSGMBartModel,
)
