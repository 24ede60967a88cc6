"""Hides the sandbox's own frames from user code. The thread state of the interpreter has a pointer to the running frame. A function
that is called from C takes that frame for its caller, and a frame that returns does not read the pointer. So a worker clears the
pointer before it calls a program: then the program's first frame has none below it, as in `python main.py`, and what shows the
stack (faulthandler, traceback.print_stack, inspect.stack) shows only the program's frames. Where the pointer lies depends on the
interpreter's version, so it is searched for and then tried, in a fork. Where it is not found, programs run all the same, and see
the sandbox's frames."""
import ctypes
import os
import struct
import sys
from _functools import partial

_thread_state = ctypes.PyDLL(None)["PyThreadState_Get"]
_thread_state.restype = ctypes.c_void_p
_WORDS, _NEAR = 128, 8   # how many words are searched: of the thread state, and behind each pointer in it
_INTERPRETER_FRAME = 3 * 8   # offset in a frame object of the pointer to its frame, since 3.11; before, the object is the frame
_offsets = ()   # of the pointer in the thread state; or of a pointer there, and of the frame's behind it; empty when not found


class Nowhere:
    value = None


def place():
    """Return where the pointer lies in the calling thread: assigning None to the result's value clears the pointer."""
    if not _offsets:
        return Nowhere
    address = _thread_state() + _offsets[0]
    for offset in _offsets[1:]:
        address = ctypes.c_void_p.from_address(address).value + offset
    return ctypes.c_void_p.from_address(address)


def find():
    """Find the place of the pointer. Called once, in the template."""
    global _offsets
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return   # free-threaded: the collector walks the stack, and would miss what the frames below hold
    try:
        deep = _search_deeper()
        candidates = [offsets for offsets in _search() if offsets in deep]
    except (OSError, struct.error):
        return   # no /proc/self/mem
    for _offsets in candidates:
        if _serves():
            return
    _offsets = ()


# The same search, one frame deeper. Only a place that changes with the running frame is found by both.
def _search_deeper():
    return _search()


def _search():
    """Return the offsets of all places with a pointer to this frame. It calls no Python function, which would change them."""
    frame, found = sys._getframe(), []
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        memory.seek(id(frame) + _INTERPRETER_FRAME)
        wanted = {id(frame), struct.unpack("P", memory.read(8))[0]}
        memory.seek(_thread_state())
        for i, word in enumerate(struct.unpack(f"{_WORDS}P", memory.read(8 * _WORDS))):
            if word in wanted:
                found.append((8 * i,))
            if word % 8 or not 1 << 12 < word < 1 << 47:
                continue
            try:
                memory.seek(word)
                behind = struct.unpack(f"{_NEAR}P", memory.read(8 * _NEAR))
            except (OSError, struct.error):
                continue   # not a pointer
            for j, word in enumerate(behind):
                if word in wanted:
                    found.append((8 * i, 8 * j))
    return found


_TRY = """
import sys
frame, deep, late = sys._getframe(), lambda: sys._getframe(1), []
class Late:
    def __del__(self): late.append(sys._getframe(1).f_back)
Late()
alone = frame.f_back is None and deep() is frame and late == [None]
del frame
raise KeyError
"""


def _serves():
    """Whether, with the pointer at _offsets cleared, a program has no frame below it and its caller goes on as before. Tried in a fork,
    since wrong offsets may crash the process."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(not all(_try() for _ in range(20)))   # often, since the interpreter specializes bytecode as it runs
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _try():
    scope, here = {"__builtins__": __builtins__}, place()
    here.value = None
    try:
        exec(compile(_TRY, "try", "exec"), scope)
    except KeyError as e:
        here.value = None
        partial(_name, scope)()
        return scope["alone"] and scope["bottom"] is None and e.__traceback__.tb_frame.f_code is _try.__code__


def _name(scope):
    scope["bottom"] = sys._getframe().f_back

