"""Progress of one shard: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

#: Seconds between two lines in a log.
LOG_INTERVAL = 30.0


class Progress:
    """Counts sequences and tokens of one shard and shows them on stderr."""

    def __init__(self, name: str, sequences: int) -> None:
        self._name = name
        self._total = sequences
        self._done = 0
        self._tokens = 0
        self._begun = time.monotonic()
        self._reported = self._begun
        self._bar = tqdm(total=sequences, desc=name, unit="seq", unit_scale=True) if sys.stderr.isatty() else None

    def advance(self, sequences: int, tokens: int) -> None:
        """Count a finished batch."""
        self._done += sequences
        self._tokens += tokens
        now = time.monotonic()
        rate = self._tokens / max(now - self._begun, 1e-9)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
            self._bar.update(sequences)
        elif now - self._reported >= LOG_INTERVAL:
            self._reported = now
            left = (now - self._begun) * (self._total - self._done) / max(self._done, 1)
            print(
                f"{self._name}: {self._done:,} of {self._total:,} sequences, {rate:,.0f} tokens/s, "
                f"about {left:,.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
