"""Where the interpreter keeps the frame that runs. A call from C takes what lies there for its caller, and a frame returns to
its caller without a look at it. So a worker empties the place before it calls a program: then the program's first frame has
none below it, as in `python main.py`, and what shows its stack (faulthandler, traceback.print_stack, inspect.stack) shows
nothing of ours. Where the place is depends on the interpreter's version, so it is searched for and then tried, in a fork.
Where none is found, programs run as well and see our frames."""
import ctypes
import os
import struct
import sys
from _functools import partial

_thread_state = ctypes.PyDLL(None)["PyThreadState_Get"]
_thread_state.restype = ctypes.c_void_p
_WORDS, _NEAR = 128, 8   # how many are looked at: of the thread's state, and behind each pointer in it
_INTERPRETER_FRAME = 3 * 8   # in a frame object since 3.11; before, the object is the frame
_offsets = ()   # in the thread's state, and behind the pointer that lies there where there are two


class Nowhere:
    value = None


def place():
    """The place, for the caller: writing None to its value empties it."""
    if not _offsets:
        return Nowhere
    address = _thread_state() + _offsets[0]
    for offset in _offsets[1:]:
        address = ctypes.c_void_p.from_address(address).value + offset
    return ctypes.c_void_p.from_address(address)


def find():
    """In the template, once."""
    global _offsets
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return   # there the collector looks at what the frames below hold
    try:
        deep = _search_deeper()
        candidates = [offsets for offsets in _search() if offsets in deep]
    except (OSError, struct.error):
        return   # no /proc/self/mem
    for _offsets in candidates:
        if _serves():
            return
    _offsets = ()


def _search_deeper():
    return _search()


def _search():
    """The offsets of all places where this frame stands. It calls nothing of Python's while it looks."""
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
                continue   # no pointer
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
    """Whether a program has no frame below it when the place was emptied, and the caller goes on as before."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(not all(_try() for _ in range(20)))   # the interpreter changes the bytecode as it runs
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

