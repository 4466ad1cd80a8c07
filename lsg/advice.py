"""What a converted model is good for, task by task, for `--help` and model cards.

README's "When to use it, and when not" has the same rows, with what was measured, how, and by which command.
"""

TASKS = {
    "tag or fill in tokens": "TAG",
    "answer questions": "ANSWER",
    "classify a document": "CLASSIFY",
    "rank documents for a query": "RANK",
    "one vector per document": "VECTOR",
    "find passages": "PASSAGES",
    "summarize": "SUMMARIZE",
}
# the tasks of a head, by how the name of its class ends; the last one is any other class
HEADS = (
    (("ForQuestionAnswering",), ("answer questions",)),
    (("ForSequenceClassification",), ("classify a document", "rank documents for a query")),
    (("ForMultipleChoice", "ForNextSentencePrediction"), ("rank documents for a query",)),
    (("ForConditionalGeneration",), ("summarize",)),
    (
        ("ForTokenClassification", "ForMaskedLM", "ForPreTraining", "ForCausalLM", "LMHeadModel"),
        ("tag or fill in tokens",),
    ),
    (("",), ("one vector per document", "find passages")),
)


def advice_for(class_name: str) -> dict[str, str]:
    """Return the tasks of a model's class, and what to do for each."""
    tasks = next(tasks for ends, tasks in HEADS if class_name.endswith(ends))
    return {task: TASKS[task] for task in tasks}
