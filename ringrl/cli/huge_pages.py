"""Huge pages for the large temporaries of a training step on a CPU."""

import os
import sys

TUNABLES = "GLIBC_TUNABLES"


def restart_with_huge_pages() -> None:
    """Restart this process with glibc's allocator asking for huge pages; whatever the user has set stays.

    XLA's CPU backend takes a step's temporaries from malloc and gives them back each step, so with small pages the
    kernel's page faults took half of a step's time. The allocator reads its switch only when a process starts.
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
