"""fork(2) for a process with one thread, which templates and lanes are. os.fork then also makes anew what threads that are
gone may have left as it was: the interpreter's lock, the list of its threads. Here that is as good as new, and making it costs
the fork copies of thirty pages. What modules have asked to be called at a fork (os.register_at_fork) is called here too."""
import ctypes
import os
import sys

_register = os.register_at_fork
_before, _in_child, _in_parent = [], [], []
_bare = ctypes.PyDLL(None)["fork"]   # with the C library's own handlers, and without a release of the interpreter's lock


def watch():
    """Take note of what modules register, until settle is called."""
    os.register_at_fork = _note


def _note(*, before=None, after_in_child=None, after_in_parent=None):
    given = {"before": before, "after_in_child": after_in_child, "after_in_parent": after_in_parent}
    _register(**{name: function for name, function in given.items() if function is not None})
    for functions, function in (_before, before), (_in_child, after_in_child), (_in_parent, after_in_parent):
        if function is not None:
            functions.append(function)


fork = os.fork


def settle(known):
    """Choose how to fork. known says whether watch has seen all that was registered."""
    global fork
    os.register_at_fork = _register
    if known and getattr(sys, "_is_gil_enabled", lambda: True)():
        fork = _with_hooks if _before or _in_child or _in_parent else _bare


def is_silent():
    """Whether os.fork calls no Python yet, as is so unless something that the interpreter loads by itself (a .pth file, a
    sitecustomize) has registered it."""
    calls = []
    sys.setprofile(lambda frame, event, argument: calls.append(event))
    child = os.fork()
    sys.setprofile(None)
    if child == 0:
        os._exit("call" in calls)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and "call" not in calls


def _with_hooks():
    _call(reversed(_before))
    child = _bare()
    _call(_in_parent if child else _in_child)
    return child


def _call(functions):
    for function in functions:
        try:
            function()
        except BaseException:
            pass   # os.fork shows it on standard error and goes on
