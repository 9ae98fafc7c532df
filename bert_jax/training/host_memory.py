"""Memory of the host while a CPU trains."""

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Makes the C library keep what is freed instead of giving it back to the system.

    XLA's CPU client allocates the temporary arrays of a step anew at every step. glibc maps large ones and unmaps them
    again, so each step pays for hundreds of megabytes of page faults: a quarter of all CPU time of a narrow model. Kept,
    the same pages serve every step. Without glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26)):
        mallopt(parameter, value)
