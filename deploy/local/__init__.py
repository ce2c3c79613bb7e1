"""The stack on one machine, nothing installed by hand: Kafka as a child process, the supervisor of `postroad up`."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".local"  # everything that is downloaded or kept, ignored by git
