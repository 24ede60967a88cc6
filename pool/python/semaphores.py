"""Semaphores for multiprocessing in a sandbox without a mount namespace, where view.py does not give programs a /dev/shm either.

sem_open(3) uses /dev/shm only, which is the host's there, and closed to user code. These semaphores lie in anonymous shared memory
(sem_init(3)), so they serve processes that are forked after they are made: multiprocessing's default up to Python 3.13."""
import ctypes
import errno
import mmap
import os
import time
from _thread import get_ident

libc = ctypes.CDLL(None, use_errno=True)
RECURSIVE = 0   # multiprocessing.synchronize's RECURSIVE_MUTEX


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class SemLock:
    """Stands in for _multiprocessing.SemLock: it has what multiprocessing.synchronize uses."""

    SEM_VALUE_MAX = 0x7FFFFFFF

    def __init__(self, kind, value, maxvalue, name, unlink):
        if not unlink:
            raise PermissionError(errno.EACCES, "on this server semaphores serve forked processes only: use the start "
                                  "method 'fork'")
        self.kind, self.maxvalue, self.name = kind, maxvalue, None
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._view = (ctypes.c_char * mmap.PAGESIZE).from_buffer(self._memory)
        self.handle = ctypes.addressof(self._view)
        self._semaphore = ctypes.c_void_p(self.handle)
        self._owner, self._held = 0, 0
        if libc.sem_init(self._semaphore, 1, value) < 0:
            raise OSError(ctypes.get_errno(), "sem_init")

    def acquire(self, block=True, timeout=None):
        if self.kind == RECURSIVE and self._is_mine():
            self._held += 1
            return True
        if not block:
            wait = libc.sem_trywait, (self._semaphore,)
        elif timeout is None:
            wait = libc.sem_wait, (self._semaphore,)
        else:
            end = time.time() + max(0.0, timeout)
            limit = _Timespec(int(end), int(end % 1 * 1e9))
            wait = libc.sem_timedwait, (self._semaphore, ctypes.byref(limit))
        while wait[0](*wait[1]) < 0:
            error = ctypes.get_errno()
            if error in (errno.EAGAIN, errno.ETIMEDOUT):
                return False
            if error != errno.EINTR:   # after a signal, whose handler the interpreter has run, it waits again
                raise OSError(error, os.strerror(error))
        self._held += 1
        self._owner = get_ident()
        return True

    def release(self):
        if self.kind == RECURSIVE:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._held > 1:
                self._held -= 1
                return
        elif self._get_value() >= self.maxvalue:
            raise ValueError("semaphore or lock released too many times")
        if libc.sem_post(self._semaphore) < 0:
            raise OSError(ctypes.get_errno(), "sem_post")
        self._held -= 1

    def _count(self):
        return self._held

    def _is_mine(self):
        return self._held > 0 and self._owner == get_ident()

    def _get_value(self):
        value = ctypes.c_int()
        libc.sem_getvalue(self._semaphore, ctypes.byref(value))
        return value.value

    def _is_zero(self):
        return self._get_value() == 0

    def _after_fork(self):
        self._held = 0

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_):
        self.release()


def install():
    """Replace SemLock in this process, a template, before anything imports multiprocessing.synchronize."""
    try:
        import _multiprocessing
    except ImportError:
        return
    _multiprocessing.SemLock = SemLock
