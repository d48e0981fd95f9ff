"""What this process holds open, for tests that nothing stays behind."""

import gc
import threading
from pathlib import Path


def held() -> tuple[int, int]:
    """(open files, threads) now. Garbage is collected first: what an earlier test left in a cycle would go at any moment."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def no_more(before: tuple[int, int], files: int = 0) -> bool:
    """Whether at most `files` more files are open than before, and no more threads. Fewer are no leak: some end late."""
    now = held()
    return now[0] <= before[0] + files and now[1] <= before[1]
