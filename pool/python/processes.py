"""Descendants of a process, read from /proc, for callers that end them one by one."""
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
