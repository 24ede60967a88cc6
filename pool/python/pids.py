"""Calls that tell something of any process by its number. In a sandbox without a pid namespace the seccomp filter asks the lane about
them, and they are refused for a process that is not of the run, as if there were none with that number."""
import ctypes
import errno
import os

import _sandbox_processes as processes

# Which argument of each call names a process, and the value with which the argument before it says that it does (None: there is none).
_NUMBERS = dict.fromkeys(("getpgid", "getsid", "sched_getaffinity", "sched_getscheduler", "sched_getparam", "sched_getattr",
                          "sched_rr_get_interval", "pidfd_open"), (0, None)) | {"getpriority": (1, 0), "ioprio_get": (1, 1)}
_CLOCKS = ("clock_gettime", "clock_getres", "clock_nanosleep", "timer_create")
CALLS = (*_NUMBERS, *_CLOCKS)
_KIND, _OF_DESCRIPTOR = 7, 3   # the lower bits of the number of a clock, and those of a clock that a descriptor stands for


def refused(name, values):
    """Return the errno with which a call is refused, or 0."""
    if name in _CLOCKS:
        clock = _signed(values[0])
        return 0 if clock & _KIND == _OF_DESCRIPTOR or _own(~(clock >> 3)) else errno.EINVAL
    argument, means_process = _NUMBERS[name]
    return 0 if means_process in (None, _signed(values[0])) and _own(_signed(values[argument])) else errno.ESRCH


class Sessions:
    """Bounds the sessions of processes of a run, for the reason that Go's sessions.go tells."""

    MOST = 16   # as there

    def __init__(self):
        self.granted = set()   # processes that may have called setsid since, but need not

    def grant(self, pid):
        lane = os.getpid()
        tree = processes.descendants(lane)
        self.granted.intersection_update(tree)
        leaders = self.granted.union(filter(None, map(processes.session, tree))) - {processes.session(lane)}
        if len(leaders) >= self.MOST and pid not in leaders:
            return False
        self.granted.add(pid)
        return True


def _signed(value):
    return ctypes.c_int(value & 0xffffffff).value


def _own(pid):
    """Whether pid is a process of the run, or a thread of one, or 0, which means the caller."""
    return pid == 0 or processes.belongs(pid, os.getpid())
