"""Huge pages for the large temporaries of a training step on a CPU."""

import os
import sys

TUNABLES = "GLIBC_TUNABLES"


def restart_with_huge_pages() -> None:
    """Restart this process with huge pages enabled in glibc's allocator; settings of the user take precedence.

    XLA's CPU backend allocates a step's temporaries with malloc and frees them each step, so with small pages the
    kernel's page faults took half of a step's time. The allocator reads the setting only when a process starts.
    """
    if TUNABLES in os.environ or not _is_glibc():
        return
    os.environ[TUNABLES] = "glibc.malloc.hugetlb=1"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_glibc() -> bool:
    try:
        return sys.platform == "linux" and (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):
        return False
