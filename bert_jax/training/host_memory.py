"""Host memory settings for training on a CPU."""

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def tune_malloc() -> None:
    """Make the C library keep freed memory instead of returning it to the system. Call it before JAX starts threads.

    XLA's CPU client allocates temporary buffers again at every step. glibc maps and unmaps large allocations, so each step pays for
    hundreds of megabytes of page faults, a third of the CPU time of a narrow model. With these settings, every step reuses the same
    pages. All threads must allocate from the main arena, because per-thread arenas are limited to 64 MiB per block and map the rest. A
    trim threshold of -1 disables trimming; any value that fits an int is smaller than what two steps of a base model free. Without
    glibc, this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 2**26)):
        mallopt(parameter, value)
