"""What an attack has found wrong, and the figures of what it tried."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MOST_SAID = 30


@dataclass
class Findings:
    """Violations by rule; `figures` holds what was tried and measured, by part of the campaign."""

    broken: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def violation(self, rule: str, sentence: str) -> None:
        """Note that a rule was broken."""
        with self._lock:
            self.counts[rule] += 1
            said = self.broken.setdefault(rule, [])
            if len(said) < MOST_SAID:
                said.append(sentence[:1000])

    def require(self, true: bool, rule: str, sentence: str) -> None:
        """Note a violation unless `true`."""
        if not true:
            self.violation(rule, sentence)

    def note(self, part: str, **figures: Any) -> None:
        """Keep figures of a part."""
        with self._lock:
            self.figures.setdefault(part, {}).update(figures)
