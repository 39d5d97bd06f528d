"""Progress of one shard: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from datetime import timedelta

from tqdm import tqdm

#: Seconds between two lines in a log.
LOG_INTERVAL = 30.0


class Progress:
    """Counts sequences and tokens of one shard and shows them on stderr, with tokens per second and the time left.

    In a log a thread of its own writes a line every ``LOG_INTERVAL`` seconds, however long a batch takes.
    """

    def __init__(self, name: str, sequences: int, tokens: int) -> None:
        self._name = name
        self._sequences, self._tokens = sequences, tokens
        self._done_sequences = self._done_tokens = 0
        self._begun = time.monotonic()
        self._closed = threading.Event()
        self._bar: tqdm | None = None
        self._thread: threading.Thread | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=tokens, desc=name, unit=" tokens", unit_scale=True)
        else:
            self._thread = threading.Thread(target=self._log, name="progress", daemon=True)
            self._thread.start()

    def advance(self, sequences: int, tokens: int) -> None:
        """Count a finished batch."""
        self._done_sequences += sequences
        self._done_tokens += tokens
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._done_sequences:,} of {self._sequences:,} sequences", refresh=False)
            self._bar.update(tokens)

    def close(self) -> None:
        """Leave the bar as it stands, and write no more lines."""
        self._closed.set()
        if self._bar is not None:
            self._bar.close()
        if self._thread is not None:
            self._thread.join()

    def _log(self) -> None:
        while not self._closed.wait(LOG_INTERVAL):
            print(self._line(time.monotonic() - self._begun), file=sys.stderr, flush=True)

    def _line(self, elapsed: float) -> str:
        counted = f"{self._name}: {self._done_sequences:,} of {self._sequences:,} sequences"
        if not self._done_tokens:
            return f"{counted}, waiting for the first batch"
        left = timedelta(seconds=round(elapsed * max(self._tokens - self._done_tokens, 0) / self._done_tokens))
        return f"{counted}, {self._done_tokens / elapsed:,.0f} tokens/s, about {left} left"
