"""Memory of the host while a CPU trains."""

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def tune_malloc() -> None:
    """Makes the C library keep what is freed instead of giving it back to the system; call it before JAX has threads.

    XLA's CPU client allocates the temporary memory of a step anew at every step. glibc maps what is large and unmaps it
    again, so each step pays for hundreds of megabytes of page faults: a third of all CPU time of a narrow model. Kept, the
    same pages serve every step. Every thread must take from the main arena: those that threads get of their own cannot
    hold more than 64 MiB in one piece, and map the rest. A threshold of -1 is none: any that fits an int is less than what two steps of
    a base model leave free. Without glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 2**26)):
        mallopt(parameter, value)
