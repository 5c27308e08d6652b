"""How many processors there are for this process."""

import os


def cores() -> int:
    """Those that it may run on; where the system does not tell (macOS), all that the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
