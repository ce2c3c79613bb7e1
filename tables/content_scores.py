"""score: what a content was scored. Key: hash of the content. Kept for a day: equal content is scored once."""

from __future__ import annotations

from avro.records import Score
from tables.values import shape, to_json
from topics.state import Table

KEPT_MS = 86_400_000

CONTENT_SCORES: Table[Score] = Table(1, "content_scores", to_json, shape(Score), expires=True)
