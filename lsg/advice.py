"""What a converted model is good for, task by task, for `--help` and model cards.

README's "When to use it, and when not" has the same tasks, with intervals, and how each was measured.
"""

from textwrap import TextWrapper, indent

TASKS = {
    "answer questions": (
        "convert a model that was trained on SQuAD or the like; the question is pinned. On long manuals, its exact "
        "match is that of windows with the question in each (+0.006), at 0.70 of their CPU time. A head that was "
        "trained without dropout lost 0.083: measure yours."
    ),
    "one vector per document": (
        "convert a sentence encoder, or take the mean of the chunks' vectors, which is as good untrained. Both find "
        "sections better than the vector of the first 512 tokens does (mean reciprocal rank +0.085), and sentences "
        "(+0.140)."
    ),
    "find passages": (
        "do not convert: store a vector for each chunk of 128 to 256 tokens (mean reciprocal rank of queries for a "
        "section +0.086 over one vector per document, for a sentence +0.043)."
    ),
    "tag or fill in tokens": (
        "overlapping windows, or convert with 2b + s*f as large as the tokens that the original reads, and f at most "
        "2: the masked-token loss is 0.015 nats below that on chunks, in windows 0.017. To train further, train the "
        "original on chunks, and convert then (0.022 below chunks)."
    ),
    "classify a document": (
        "fine-tune the original on the first tokens, which often say what a document is about: of manual pages, 0.581 "
        "were right by their first 512 tokens, and 0.535 by the model that was converted, then fine-tuned. Where the "
        "label depends on more, convert, then fine-tune: of texts whose label depends on both ends, 100 % were right, "
        "by the first 512 tokens 50 %."
    ),
    "rank documents": (
        "do not convert a classifier of pairs (a reranker): use the original on windows, and the best score. The right "
        "one of 8 long documents has a mean reciprocal rank of 1.000 then, and of 0.525 with the converted model."
    ),
    "summarize": "not measured, so no advice. Compare the fine-tuned model with the original on your documents.",
}
# the tasks of a head, by how the name of its class ends
HEADS = (
    ("ForQuestionAnswering", ("answer questions",)),
    ("ForSequenceClassification", ("classify a document", "rank documents")),
    ("ForMultipleChoice", ("rank documents",)),
    ("ForNextSentencePrediction", ("rank documents",)),
    ("ForConditionalGeneration", ("summarize",)),
    ("Model", ("one vector per document", "find passages")),
    ("LMHeadModel", ("tag or fill in tokens",)),
    ("", ("tag or fill in tokens",)),
)


def advice_for(class_name: str) -> dict[str, str]:
    """Return what to do, by task, with a converted model of this class."""
    ends = dict(HEADS)
    longest = max((end for end in ends if class_name.endswith(end)), key=len)
    return {task: TASKS[task] for task in ends[longest]}


def help_text() -> str:
    """Return the advice on all tasks, in lines of at most 80 characters."""
    wrapper = TextWrapper(78, subsequent_indent="  ", break_on_hyphens=False)
    parts = (wrapper.fill(f"{task}: {text}") for task, text in TASKS.items())
    return indent("\n".join(parts), "  ")
