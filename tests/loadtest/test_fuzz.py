"""The fuzz targets on their seeds and on mutations from a fixed seed, without atheris; and inputs that have broken one."""

import pytest

from loadtest.fuzz.__main__ import corpus
from loadtest.fuzz.mutate import INPUT_MAX, mutations
from loadtest.fuzz.targets import TARGETS, seeds

BROKE = {
    "mime": [  # a blank before a colon passed the checks and could not be signed
        b"\x02\x91news\xff\xff\xff\x00r\xff\xff\x00From: news@acme.test\r\ncB :cBcx@y.test\r\n z\r\n\r\nhello\xff",
    ],
    "reading": [  # no score for a long number; seconds for a codec under another name
        b"Content-Type: text/html\n\n&#" + b"1" * 5_000 + b";",
        b"Content-Type: text/plain; charset=-Punycode!\n\na-" + b"zzzz9" * 3_000,
    ],
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", TARGETS)
def test_target_holds_on_seeds_and_mutations(name: str) -> None:
    given = list(seeds(name))
    assert given, "a target needs something to begin with"
    for data in [*given, *BROKE.get(name, ()), *mutations(given, 400, seed=4)]:
        try:
            TARGETS[name](data)
        except BaseException as error:
            error.add_note(f"input: {data!r}")
            raise


def test_mutations_are_the_same_each_time_and_bounded() -> None:
    first, again = (list(mutations([b"a" * 2 * INPUT_MAX, b"From: x"], 200, seed=1)) for _ in range(2))
    assert first == again != list(mutations([b"a" * 2 * INPUT_MAX, b"From: x"], 200, seed=2))
    assert max(map(len, first)) == INPUT_MAX


def test_the_corpus_keeps_what_earlier_runs_have_found(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("loadtest.fuzz.__main__.KEPT", tmp_path)
    folder = corpus("replies")
    (folder / "found").write_bytes(b"x")
    assert corpus("replies") == folder
    assert len(list(folder.iterdir())) == len(set(seeds("replies"))) + 1
