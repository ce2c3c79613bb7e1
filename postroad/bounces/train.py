"""Train the model of `model.py`: python -m postroad.bounces.train CORPORA_FOLDER [--check]

Reads bounces/sisimai and smtp-replies/zone-mta there (README.md of the corpora), and the samples and phrases of our own
rules. Deterministic: the same corpora give the same bytes. Words that only one text has are left out, so that no text can
be read back. --check writes nothing and prints what 5-fold cross-validation says of rules and model together.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import exp, sqrt
from pathlib import Path
from typing import Any, NamedTuple

from postroad.bounces import model as models
from postroad.bounces.index import RULES
from postroad.bounces.judge import inner_of, judge
from postroad.bounces.model import Model, features
from postroad.bounces.reasons import FROM_SISIMAI
from postroad.bounces.rules import is_loose
from postroad.bounces.words import words_of

FOLDS = 5
EPOCHS = 12
STEP = 0.4
SHRINK = 0.0015  # L2
LIGHT = 5  # hundredths: weights below are left out

ZONE_MTA = {
    "blacklist": "blocked",
    "recipient": "user-unknown",
    "spam": "spam-detected",
    "policy": "policy",
    "network": "network",
}


class Example(NamedTuple):
    """One text with its label; `accepted`: reasons that count as right; `file`: examples of one stay in one fold."""

    code: int
    status: str
    text: str
    reason: str
    accepted: frozenset[str]
    file: str
    label: str = ""  # the corpus's own name

    def features(self) -> list[str]:
        """What the model sees of it."""
        return features(self.code, self.status, words_of(inner_of(self.text)))


def sisimai(folder: Path) -> list[Example]:
    """The labelled replies. Codes that Sisimai made up are left out; where its versions disagree both count."""
    truth = {(row["file"], row["index"]): row for row in _rows(folder / "bounces/sisimai/truth.jsonl")}
    found = []
    for row in _rows(folder / "bounces/sisimai/replies.jsonl"):
        known = truth.get((row["file"], row["index"]), {})
        reason = FROM_SISIMAI[row["reason"]]
        other = None if known.get("label_stable", True) else known.get("alt")
        accepted = {reason} | ({FROM_SISIMAI[other["reason"]]} if other else set())
        status = "" if known.get("status_is_pseudo") else row["status"]
        code = int(row["replycode"] or 0)
        found.append(
            Example(code, status, _mended(row["reply"]), reason, frozenset(accepted), row["file"], row["reason"])
        )
    return found


def _mended(text: str) -> str:
    """UTF-8 that was read as Latin-1, read as what it is."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def zone_mta(folder: Path) -> list[Example]:
    """The sample replies whose rule matches them."""
    return [
        Example(int(row["reply"][:3]), "", row["reply"], ZONE_MTA[row["category"]], frozenset(), "")
        for row in _rows(folder / "smtp-replies/zone-mta/samples.jsonl")
        if row["rule_matches"] and row["category"] in ZONE_MTA
    ]


def own() -> list[Example]:
    """Samples and phrases of our rules: words that a rule wants in a row mean the same elsewhere."""
    found = []
    for rule in RULES:
        code = int(rule.sample[:3]) if rule.sample[:3].isdigit() else 0
        found.append(Example(code, "", rule.sample, rule.reason, frozenset(), ""))
        found += [
            Example(0, "", phrase.replace("/", " ").replace("..", " "), rule.reason, frozenset(), "")
            for phrase in rule.phrases
            if not is_loose(phrase)
        ]
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def train(examples: Iterable[Example]) -> Model:
    """AdaGrad over the examples in their order; features of two texts or more."""
    seen = [(example.features(), example.reason) for example in examples]
    count = Counter(one for row, _ in seen for one in row)
    reasons = tuple(sorted({reason for _, reason in seen}))
    number = {reason: place for place, reason in enumerate(reasons)}
    weights: dict[str, list[float]] = {one: [0.0] * len(reasons) for one, times in count.items() if times > 1}
    steps: dict[str, list[float]] = {one: [1e-2] * len(reasons) for one in weights}
    rows = [([one for one in row if one in weights], number[reason]) for row, reason in seen]
    for _ in range(EPOCHS):
        for row, right in rows:
            held = [weights[one] for one in row]
            sums = [sum(column) for column in zip(*held, strict=True)] if held else [0.0] * len(reasons)
            highest = max(sums)
            powers = [exp(one - highest) for one in sums]
            total = sum(powers)
            slopes = [power / total - (place == right) for place, power in enumerate(powers)]
            for one, weight in zip(row, held, strict=True):
                step = steps[one]
                for place, slope in enumerate(slopes):
                    pull = slope + SHRINK * weight[place]
                    if abs(pull) > 1e-3:
                        step[place] += pull * pull
                        weight[place] -= STEP * pull / sqrt(step[place])
    return Model(
        reasons,
        {
            one: {
                place: round(models.SCALE * value)
                for place, value in enumerate(row)
                if abs(value) * models.SCALE >= LIGHT
            }
            for one, row in sorted(weights.items())
        },
    )


def packed(model: Model) -> bytes:
    """The artefact: JSON, deterministic gzip."""
    flat = {one: [part for pair in sorted(row.items()) for part in pair] for one, row in model.weights.items() if row}
    text = json.dumps({"reasons": model.reasons, "weights": flat}, ensure_ascii=False, separators=(",", ":"))
    return gzip.compress(text.encode(), 9, mtime=0)


def check(examples: Sequence[Example], others: Sequence[Example]) -> str:
    """Cross-validation by file: rules and model together, the model where rules are silent, and the model by itself."""
    files = sorted({example.file for example in examples})
    fold_of = {file: place % FOLDS for place, file in enumerate(files)}
    right: Counter[str] = Counter()
    right_all: dict[str, list[bool]] = defaultdict(list)
    for fold in range(FOLDS):
        model = train([*(one for one in examples if fold_of[one.file] != fold), *others])
        for one in (one for one in examples if fold_of[one.file] == fold):
            words = words_of(inner_of(one.text))
            alone, _ = models.guess(one.code, one.status, words, model)
            found = judge(one.code, one.status, one.text)
            silent = found.rule == "model" or found.rule.startswith("unknown-")
            reason = alone if silent else found.reason
            right_all[one.label].append(reason in one.accepted)
            right["all"] += reason in one.accepted
            right["alone"] += alone in one.accepted
            right["alone wrong"] += alone not in one.accepted and alone != "undetermined"
            right["silent"] += silent
            right["silent right"] += silent and reason in one.accepted
            right["silent wrong"] += silent and reason not in one.accepted and reason != "undetermined"
    macro = sum(sum(row) / len(row) for row in right_all.values()) / len(right_all)
    return (
        f"rules and model: macro {macro:.4f}, micro {right['all'] / len(examples):.4f} of {len(examples)};"
        f" rules are silent on {right['silent']}: model right on {right['silent right']}, wrong on {right['silent wrong']};"
        f" model alone: right {right['alone'] / len(examples):.4f}, wrong {right['alone wrong'] / len(examples):.4f}"
    )


def main(arguments: Sequence[str]) -> int:
    """0, or 2 and a word on how to call it."""
    folders = [Path(one) for one in arguments if one != "--check"]
    if len(folders) != 1 or not (folders[0] / "bounces/sisimai/replies.jsonl").exists():
        print("python -m postroad.bounces.train CORPORA_FOLDER [--check]: the folder holds bounces/ and smtp-replies/", file=sys.stderr)  # fmt: skip
        return 2
    examples, others = sisimai(folders[0]), [*zone_mta(folders[0]), *own()]
    if "--check" in arguments:
        print(check(examples, others))
        return 0
    raw = packed(train([*examples, *others]))
    Path(__file__).with_name(models.FILE).write_bytes(raw)
    print(f"{models.FILE}: {len(raw)} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
