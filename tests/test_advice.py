"""The advice of `--help` and model cards is that of the README."""

import re

import pytest
from helpers import ROOT

from lsg.advice import TASKS, advice_for, help_text
from lsg.cli.arguments import make_parser
from lsg.model_types import MODEL_TYPES

CLASSES = sorted({c.__name__ for row in MODEL_TYPES.values() for c in row.auto_classes.values()})
NUMBER = r"[-+]?\d[\d,.]*\d|\d"


def test_the_readme_has_the_same_tasks_and_figures() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    section = readme.split("## When to use it, and when not")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| \*\*(.+?)\*\* \|(.*)\|$", section, flags=re.MULTILINE))
    assert list(rows) == [task.capitalize() for task in TASKS]
    for task, text in TASKS.items():
        missing = [number for number in re.findall(NUMBER, text) if number not in rows[task.capitalize()]]
        assert not missing, (task, missing)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_has_advice(name: str) -> None:
    assert advice_for(name) and all(TASKS[task] == text for task, text in advice_for(name).items())


def test_advice_by_class() -> None:
    assert list(advice_for("LSGRobertaForQuestionAnswering")) == ["answer questions"]
    assert list(advice_for("LSGBertModel")) == ["one vector per document", "find passages"]
    assert list(advice_for("LSGBertLMHeadModel")) == ["tag or fill in tokens"]
    assert list(advice_for("LSGBertForSequenceClassification")) == ["classify a document", "rank documents"]


def test_help_has_all_advice_in_short_lines() -> None:
    text = make_parser("lsg-convert").format_help()
    assert help_text() in text and max(map(len, help_text().splitlines())) <= 80
    assert all(" ".join(advice.split()) in " ".join(text.split()) for advice in TASKS.values())
