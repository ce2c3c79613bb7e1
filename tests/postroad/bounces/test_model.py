"""The model: what it says when unsure, and that training gives the same bytes and keeps no text."""

from pathlib import Path

import pytest

from postroad.bounces import REASONS, model
from postroad.bounces.train import Example, main, packed, train
from postroad.bounces.words import words_of

HARD = Example(550, "", "nobody lives in that house", "user-unknown", frozenset({"user-unknown"}), "a")
FULL = Example(552, "", "the cellar overflows with letters", "mailbox-full", frozenset({"mailbox-full"}), "b")
ONCE = Example(552, "", "overflows secretword", "mailbox-full", frozenset({"mailbox-full"}), "c")
EXAMPLES = [HARD, FULL, HARD, FULL, ONCE]


def test_it_learns_and_says_so_when_it_knows_too_little() -> None:
    made = train(EXAMPLES)
    assert model.guess(550, "", words_of("nobody lives in that house now"), made)[0] == "user-unknown"
    assert model.guess(552, "", words_of("our cellar overflows with letters"), made)[0] == "mailbox-full"
    assert model.guess(550, "", words_of("house"), made) == ("undetermined", 0.0)
    assert model.guess(550, "", [], made) == ("undetermined", 0.0)
    torn = train([HARD, HARD._replace(reason="mailbox-full")] * 3)
    assert model.guess(550, "", words_of(HARD.text), torn)[0] == "undetermined"


def test_the_same_examples_give_the_same_bytes_and_no_word_of_one_text_only() -> None:
    made = train(EXAMPLES)
    assert packed(made) == packed(train(EXAMPLES))
    assert "secretword" not in made.weights and "overflows" in made.weights


def test_the_artefact_is_small_and_holds_words_only() -> None:
    path = Path(model.__file__).with_name(model.FILE)
    assert path.stat().st_size <= 300_000
    made = model._load()
    assert set(made.reasons) <= set(REASONS)
    assert max(name.count(" ") for name in made.weights) == 1
    assert not any(c.isdigit() or c in "@." for name in made.weights if name[0] != "=" for c in name)


def test_training_without_corpora_says_what_it_wants(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 2
    assert "CORPORA_FOLDER" in capsys.readouterr().err
