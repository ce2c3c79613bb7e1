"""What a process says: one JSON object a line on stderr, an operational event each, with nothing in it of people, mails or keys.

Faust's, aiokafka's, uvicorn's and our own loggers are the standard library's; structlog renders all of them in one way
(docs/logs.md has the fields). Ours begin at the setting `log_level`, those of libraries at warning. Before a line is written
it is masked (log_masking.py) and counted (log_repeats.py). Nothing here runs for a message that goes its way.
"""

from __future__ import annotations

import json
import logging
import logging.config
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, TextIO

import structlog
from structlog.contextvars import bind_contextvars, merge_contextvars
from structlog.processors import ExceptionRenderer, TimeStamper
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.tracebacks import ExceptionDictTransformer

from postroad.log_masking import Mask, secrets_of
from postroad.log_repeats import Repeats

if TYPE_CHECKING:
    from types import TracebackType

    from structlog.typing import Processor

    from postroad.settings import Settings

OURS = ("postroad", "agents", "topics", "tables", "gateway", "analytics", "deploy")
FRAMES_MAX = 20  # of a traceback: the outermost half and the innermost half
FIELDS = ("kind", "more")  # of `extra`, what a line shows (log_repeats.py)
log = logging.getLogger(__name__)
_here: dict[str, Any] = {}  # what every line of this process has; empty until `set_up`


class Handler(logging.StreamHandler[TextIO]):
    """To stderr. The standard one prints a record that it cannot format, with all its values, as plain text."""

    def handleError(self, record: logging.LogRecord) -> None:
        kind = getattr(sys.exc_info()[0], "__name__", "")
        told = {"level": "error", "logger": record.name, "event": "a log line could not be written", "error": kind,
                "at": f"{record.pathname}:{record.lineno}", **_here}  # fmt: skip
        try:
            self.stream.write(json.dumps(told) + self.terminator)
        except Exception:  # stderr is gone: there is nobody to tell
            pass

    def close(self) -> None:
        """Nothing stays counted and untold."""
        for each in self.filters:
            if isinstance(each, Repeats):
                each.tell(all_of_them=True)
        super().close()


def set_up(process: str, settings: Settings) -> None:
    """For the whole process, once, before anything is logged. `process`: what it is, such as worker or api."""
    logging.config.dictConfig(config(process, settings))
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda told: log.error("an exception that nobody could catch", exc_info=told.exc_value)


def is_set_up() -> bool:
    """Whether this process says all it has to say through its log."""
    return bool(_here)


def in_stage(name: str) -> None:
    """Lines of this task, and of those that it starts, name the stage."""
    bind_contextvars(stage=name)


def config(process: str, settings: Settings) -> dict[str, Any]:
    """The same as logging.config takes it, and Faust."""
    _here.update(process=process, pid=os.getpid())
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": lambda: formatter(Mask(secrets_of(settings)), as_json)}},
        "filters": {"repeats": {"()": Repeats}, "steps": {"()": lambda: _no_step_of_a_service}},
        "handlers": {"stderr": {"()": Handler, "formatter": "line", "filters": ["steps", "repeats"]}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {name: {"level": settings.log_level.upper()} for name in OURS},
    }


def formatter(mask: Mask, as_json: bool = True) -> ProcessorFormatter:
    """Makes the line of a record."""
    exception: Processor = ExceptionRenderer(ExceptionDictTransformer(show_locals=False, max_frames=FRAMES_MAX))
    for_json: list[Processor] = [exception, mask, structlog.processors.JSONRenderer(default=str, allow_nan=False)]
    colours = sys.stderr.isatty()
    plain = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
    for_people: list[Processor] = [structlog.processors.format_exc_info, mask, _one_line, plain]
    return ProcessorFormatter(
        foreign_pre_chain=[merge_contextvars, add_log_level, add_logger_name, ExtraAdder(FIELDS), TimeStamper("iso", utc=True), _whose],
        processors=[ProcessorFormatter.remove_processors_meta, *(for_json if as_json else for_people)],
    )  # fmt: skip


def _no_step_of_a_service(record: logging.LogRecord) -> bool:
    """Faust's services that we derive from log under our names when they start, stop, and what they do in between: 200 lines a start."""
    return record.levelno > logging.INFO or not str(record.msg).startswith("[^")


def _whose(logger: Any, method: str, told: Any) -> Any:
    return {**_here, **told}


def _one_line(logger: Any, method: str, told: Any) -> Any:
    """What people see of a value has no line of its own making: only a traceback has several, each drawn in."""
    for name, value in told.items():
        if isinstance(value, str):
            lines = value.splitlines() if name in ("exception", "stack") else [value]
            told[name] = "\n".join(
                (" | " if len(lines) > 1 else "") + "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
                for line in lines
            )
    return told


def _uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    log.critical("an exception that nobody caught", exc_info=(kind, error or kind(), traceback))
