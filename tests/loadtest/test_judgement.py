"""bench-judgement measures what it says: macro and hard/soft by hand-made rows, folds, the other tool's column, the end of a run."""

import json
import sys

import pytest

from loadtest.judgement import __main__ as bench
from loadtest.judgement import corpora, cross, hostile, never, ours, reasons, recipients, replies, theirs
from loadtest.judgement.corpora import Case
from postroad.bounces import Judgement
from postroad.bounces import model as models
from postroad.feedback import Feedback, Recipient

needs_corpora = pytest.mark.skipif(not corpora.there(), reason="the corpora are not here")


def row(name: str, reason: str, hard: int = 0, **more) -> dict:
    return {
        "file": name,
        "index": 1,
        "recipient": "r@there.test",
        "reason": reason,
        "hardbounce": hard,
        "mta": f"lhost-{name}",
        **more,
    }


def bounce(reason: str, bounce_class: str = "soft", address: str = "R@there.test", kind: str = "bounce") -> Feedback:
    judgement = Judgement(bounce_class, reason, "r", 1.0)
    return Feedback(kind, "dsn", (Recipient(address, judgement),))


def figures(*pairs: tuple[dict, Feedback]) -> reasons.Figures:
    paths = [corpora.Path(f"{number}.eml") for number in range(len(pairs))]
    cases = [Case(path, [given]) for path, (given, _) in zip(paths, pairs, strict=True)]
    return reasons.judge({path: found for path, (_, found) in zip(paths, pairs, strict=True)}, cases)


def test_macro_is_the_mean_of_reasons_not_of_rows():
    found = figures(
        (row("a", "userunknown", 1), bounce("user-unknown", "hard")),
        (row("b", "userunknown", 1), bounce("user-unknown", "hard")),
        (row("c", "userunknown", 1), bounce("mailbox-full")),
        (row("d", "expired"), bounce("policy")),
    )
    assert found.macro == pytest.approx((2 / 3 + 0) / 2)
    assert (found.micro.right, found.micro.of) == (2, 4)
    assert (found.hard_soft.right, found.hard_soft.of) == (3, 4)
    assert dict(found.confused) == {("userunknown", "mailbox-full"): 1, ("expired", "policy"): 1}


def test_either_label_counts_where_the_tables_disagree():
    alt = {"reason": "userunknown", "hardbounce": 1}
    found = figures((row("a", "filtered", alt=alt), bounce("user-unknown", "hard")))
    assert found.micro.share == found.hard_soft.share == 1
    assert figures((row("a", "filtered"), bounce("user-unknown", "hard"))).hard_soft.share == 0


def test_what_is_not_found_is_wrong_and_kinds_answer_for_themselves():
    other = Feedback("other", "none")
    assert figures((row("a", "expired"), other)).micro.share == 0
    assert figures((row("a", "vacation"), Feedback("vacation", "x"))).micro.share == 1
    assert figures((row("a", "feedback"), Feedback("complaint", "x"))).micro.share == 1
    # a delay is no hard bounce, whatever its recipient is taken for
    assert figures((row("a", "userunknown", 1), bounce("user-unknown", "hard", kind="delay"))).hard_soft.share == 0
    # one on both sides is the same, though the address differs; two are not
    assert figures((row("a", "expired"), bounce("expired", address="x@y.test"))).micro.share == 1
    two = Feedback("bounce", "dsn", bounce("expired", address="x@y.test").recipients * 2)
    assert figures((row("a", "expired"), two)).micro.share == 0


def test_folds_keep_a_kind_of_mta_together_and_are_balanced():
    kinds = ["lhost-aol", "rhost-aol", *(f"lhost-k{number % 12}" for number in range(60))]
    cases = [Case(corpora.Path(str(number)), [{"mta": kind}]) for number, kind in enumerate(kinds)]
    dealt = reasons.folds(cases)
    assert sorted(case.path for fold in dealt for case in fold) == sorted(case.path for case in cases)
    where = {}
    for number, fold in enumerate(dealt):
        for case in fold:
            kind = case.rows[0]["mta"].partition("-")[2]
            assert where.setdefault(kind, number) == number
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 5
    assert dealt == reasons.folds(cases)


def test_words_are_what_texts_have_in_common():
    assert reasons.words("550 5.1.1 <a@b.test>: No such user") == reasons.words("551 <c@d.test> no such USER")
    assert reasons.words("no such user") != reasons.words("no such host")


def test_a_share_of_nothing_is_no_success():
    assert recipients.share({}).share == 0


@needs_corpora
def test_a_fold_is_judged_by_a_model_that_has_not_seen_it(monkeypatch):
    trained = []
    monkeypatch.setattr(cross.train, "train", lambda examples: trained.append(list(examples)) or models.Model((), {}))
    monkeypatch.setattr(models, "guess", lambda *given: ("undetermined", 0.0))
    cases = [case for case in corpora.judged("sisimai") if "-01" in case.path.name]
    assert cross.read(cases).keys() == {case.path for case in cases}
    folds = reasons.folds(cases)
    assert len(trained) == len(folds)
    every = {reasons.words(one.text) for one in cross.train.sisimai(corpora.CORPORA)}
    for fold, examples in zip(folds, trained, strict=True):
        files = {row["file"] for case in fold for row in case.rows}
        hidden = {reasons.words(one.text) for one in cross.train.sisimai(corpora.CORPORA) if one.file in files}
        shown = [one for one in examples if one.file]
        assert hidden and shown and not files & {one.file for one in shown}
        assert not hidden & {reasons.words(one.text) for one in shown} and hidden < every


@needs_corpora
def test_the_model_in_force_comes_back():
    before = models._load
    assert cross.without_zone_mta(lambda: models._load is not before)
    assert models._load is before


@needs_corpora
def test_small_parts_of_the_corpora():
    assert recipients.rfc3464().of >= 5 and recipients.arf().of >= 10
    for name, paths, test in never.kinds():
        assert never.wrong(name, paths[:10], test, {}).theirs is None and paths, name
    done = hostile.measure(corpora.mails("mime/cpython")[:20])
    assert done.messages == 20 and done.crashes == [] and done.slowest[0] > 0
    assert replies.zone_mta().of >= 50


def test_a_crash_is_counted(tmp_path, monkeypatch, capsys):
    path = tmp_path / "bad.eml"
    path.write_bytes(b"x")
    monkeypatch.setattr(ours.feedback, "read", lambda raw: 1 / 0)
    assert hostile.measure([path]).crashes == ["bad.eml"]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_other_tool_is_left_out_where_it_cannot_be_had(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(theirs, "FOLDER", tmp_path / "venv")
    monkeypatch.setattr(theirs.venv, "create", lambda *_, **__: (_ for _ in ()).throw(OSError("no disk")))
    assert theirs.read([tmp_path]) == {}
    assert "no column" in capsys.readouterr().err


def test_the_child_tells_of_each_file(monkeypatch, tmp_path):
    """With a stand-in for flufl.bounce that fails on one mail."""
    package = tmp_path / "flufl"
    package.mkdir()
    (package / "bounce.py").write_text(
        "def all_failures(msg):\n    if msg['x']: raise ValueError\n    return {b'T@x.test'}, {b'P@x.test'}\n"
    )
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(b"Subject: a\n\n")
    bad.write_bytes(b"x: 1\n\n")
    monkeypatch.setattr(theirs, "python", lambda: sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = theirs.read([good, bad])
    assert found[good].recipients == {"t@x.test", "p@x.test"} and found[good].permanent == {"p@x.test"}
    assert found[bad].error == "ValueError"


def run(monkeypatch, capsys, parts, *arguments):
    monkeypatch.setattr(bench, "PARTS", parts)
    monkeypatch.setattr(bench.corpora, "there", lambda: True)
    monkeypatch.setattr(sys, "argv", ["judgement", *arguments])
    status = bench.main()
    lines = capsys.readouterr().out.splitlines()
    return status, lines, json.loads(lines[-1].removeprefix("RESULT "))


def test_the_last_line_has_every_figure_and_a_broken_must_ends_with_1(monkeypatch, capsys):
    def good(sheet):
        for name, must in bench.MUSTS.items():
            sheet.row(name, "x", "", name, must.limit)

    status, _, result = run(monkeypatch, capsys, {"all": good})
    assert status == 0 and list(result) == list(bench.FIGURES) and result["seconds"] >= 0

    def bad(sheet):
        good(sheet)
        sheet.share("ZoneMTA", recipients.share({"said [bold]x": False}), None, "zone_mta")

    status, lines, result = run(monkeypatch, capsys, {"all": bad}, "--wrong")
    assert status == 1 and result["zone_mta"] == 0
    assert "MUST BROKEN zone_mta: 0.0, must be >= 0.95" in lines and "  said [bold]x" in lines
    assert "  said [bold]x" not in run(monkeypatch, capsys, {"all": bad})[1]


def test_without_the_corpora_there_is_nothing_to_measure(monkeypatch, capsys):
    monkeypatch.setattr(bench.corpora, "there", lambda: False)
    monkeypatch.setattr(sys, "argv", ["judgement"])
    assert bench.main() == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("RESULT ")) == dict.fromkeys(bench.FIGURES)
