"""What a converted model is good for, task by task, for `--help` and model cards.

README's "When to use it, and when not" has the same tasks, with intervals, and how each was measured.
"""

from textwrap import fill, indent

TASKS = {
    "answer questions": "ANSWER",
    "one vector per document": (
        "convert a sentence encoder. Untrained, the vector of a whole document finds it as well as the mean of its "
        "chunks' vectors does, and better than that of its beginning (mean reciprocal rank of queries for a section "
        "+0.085, for a sentence +0.140)."
    ),
    "find passages": (
        "store a vector for each chunk, of the original model: for queries about a section, the mean reciprocal rank "
        "is 0.09 above that of one vector per document."
    ),
    "tag or fill in tokens": "TAG",
    "classify a document": (
        "convert, then fine-tune. Where the label depends on both ends of a text, the fine-tuned model is right in "
        "100 % of the cases, the original in 50 %."
    ),
    "rank documents": "RANK",
    "summarize": "convert, then fine-tune. There are no figures of ours; measure yours.",
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
    parts = (fill(f"{task}: {text}", 78, subsequent_indent="  ") for task, text in TASKS.items())
    return indent("\n".join(parts), "  ")
