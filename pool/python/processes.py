"""Descendants of a process, read from /proc."""
import _signal  # the C module: signal.signal looks each number up among enums
import os

SIGKILL = int(_signal.SIGKILL)


def descendants(pid):
    found, queue = [], [pid]
    while queue:
        below = children(queue.pop())
        found += below
        queue += below
    return found


def children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                found += [int(child) for child in f.read().split()]
    except OSError:
        pass   # the process has ended
    return found


def belongs(pid, top):
    """Whether a process, or a thread of one, is top or a descendant of it."""
    while pid > 1 and pid != top:
        try:
            with open(f"/proc/{pid}/stat", "rb") as f:
                pid = int(f.read().rpartition(b")")[2].split()[1])   # the parent comes second after the name
        except OSError:
            return False   # it has ended
    return pid == top
