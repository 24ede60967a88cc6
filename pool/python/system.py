"""The C library, and what it says when a call fails."""
import ctypes
import os

AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x1000
libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


class ConfineError(Exception):
    """A step of the plan that the system refused."""

    def __init__(self, step, error):
        super().__init__(f"{step}: {error}")
        self.step = step
        self.error = str(error)


def check(result, step):
    if result < 0:
        raise ConfineError(step, os.strerror(ctypes.get_errno()))
    return result
