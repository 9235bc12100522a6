"""
Become another program that dies with its parent.

    python -I -S launch.py DEATH_SIGNAL PARENT UID GID -- PROGRAM ARGUMENTS…

Run as a script, never imported: it changes the process it runs in, then replaces it, so the process id stays.
A process of its own rather than a hook between fork and exec: such a hook may deadlock in a parent with threads.
UID and GID of -1 keep the user.
The death of the parent is told by Linux alone; elsewhere the next start ends what was left.
"""

from __future__ import annotations

import ctypes
import os
import sys

# The number of the call in prctl(2); it has been 1 since Linux 2.1.57.
PR_SET_PDEATHSIG = 1
KEEP = -1


def main(arguments: list[str]) -> None:
    """Replace this process; returns only by raising."""
    death_signal, parent, uid, gid = (int(argument) for argument in arguments[:4])
    program = arguments[5:]
    if uid != KEEP:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, which would clear it.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the parent ended before its child began")
    os.execv(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
