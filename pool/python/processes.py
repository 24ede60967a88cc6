"""Descendants of a process, read from /proc."""
import _signal  # the C module: signal.signal looks each number up among enums
import os

SIGKILL = int(_signal.SIGKILL)
PARENT, SESSION = 1, 3   # fields of /proc/PID/stat, counted from the one behind the name


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
        pid = _field(pid, PARENT)
    return pid == top


def session(pid):
    """Return the number of a process's session, 0 when it has ended."""
    return _field(pid, SESSION)


def _field(pid, number):
    """Return a number of /proc/PID/stat, counted from the one behind the name; 0 when the process has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return field_of(f.read(), number)
    except OSError:
        return 0


def field_of(stat, number):
    return int(stat.rpartition(b")")[2].split()[number])


def group_of(tid):
    """Return the pid of the process to which a thread belongs."""
    with open(f"/proc/{tid}/status", "rb") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(b"Tgid:"))
