"""Tests whether lanes can answer system calls of their workers on this system. They cannot where a container has a seccomp filter
with a listener already, of which there can be only one, or forbids a process to trace its own children."""
import ctypes
import os
import struct

import _socket

import _sandbox_calls as calls
import _sandbox_confine as confine
import _sandbox_view as view


def works(plan):
    """Whether a forked process can make a directory below a path that exists only in its view. Called once, in the template."""
    trial, name = f"{plan['scratch']['path']}/{os.getpid()}-trial", "/sandbox-trial"
    eyes = view.View({**plan["view"], "scratch_names": [name]}, plan["landlock"], trial, trial + "/listings")
    answers, (here, there) = calls.Answers(plan["view"], eyes), _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    os.mkdir(trial, 0o700)
    child = os.fork()
    if child == 0:
        try:
            here.close()   # else the listener would stay open there when the template is killed now, and the mkdir below never return
            confine.no_new_privileges()
            calls.Filter(plan["view"], there).enter()
            os.mkdir(name + "/made")
            os._exit(0)
        except BaseException:
            os._exit(1)
    there.close()
    try:
        listener = calls.take(here, 0)
        if listener < 0:
            return False   # end of file
        answers.tracer.watch(ctypes.c_int(), None)
        answers.tracer.child = child
        answers.listener = listener
        while not answers.tracer.ended and _readable(listener):
            answers.answer()
        os.close(listener)
        return os.path.isdir(trial + "/made")
    finally:
        here.close()
        try:
            os.waitpid(child, 0)
        except ChildProcessError:
            pass
        for path in (trial + "/made", trial):
            if os.path.isdir(path):
                os.rmdir(path)
        for fd in answers.contents.values():
            os.close(fd)


def _readable(listener):
    """Whether a call is to be answered. False when no process is left that could make one, and after 10 seconds."""
    watched = ctypes.create_string_buffer(struct.pack("ihh", listener, 1, 0), 8)   # POLLIN
    return confine.poll(watched, 1, 10_000) == 1 and bool(watched.raw[6] & 1)
