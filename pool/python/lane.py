"""A lane: with namespaces, the first process of a pid namespace. It forks one worker at a time, waits for it, and ends, reaps and
removes whatever the worker leaves before the next one is forked. It neither reads nor runs user code.

Confinement that workers can inherit is set up here once, before the first fork, so that a worker has next to nothing left to do.
After a fork each page that either process writes to is copied, and that is most of what a run costs: so the loop makes blocking
calls, exchanges plain words instead of JSON, and calls few functions."""
import _signal  # the C module: signal.signal looks each number up among enums
import ctypes
import gc
import os
import struct
import sys

import _socket

import _sandbox_confine as confine
import _sandbox_frames as frames
import _sandbox_processes as processes
import _sandbox_wire as wire
import _sandbox_worker as worker

NO_SIGNAL = int(_socket.MSG_NOSIGNAL)
POLLRDHUP, WALL, WNOHANG = 0x2000, 0x40000000, 1


def adopt(fd):
    """In a new lane: make its control socket descriptor 3, and close all later ones of the template."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    os.setsid()   # the scheduler may share CPU time out by sessions (autogroups in sched(7)): each lane is one
    os.dup2(fd, 3, inheritable=False)
    os.closerange(4, 1 << 16)
    return _socket.socket(fileno=3)


def serve(control, plan, number):
    """Serve until the control socket closes. In each fork the worker takes over and never returns: a return from here would free what
    this frame holds, and so copy those pages."""
    try:
        room = Namespace(plan) if plan["world"] == "namespaces" else Tree(plan, control)
        left = confine.enter_lane(plan, number, room.path)
        room.enter(left)
    except BaseException as e:
        wire.send(control, wire.failure(*confine.describe(e)))
        os._exit(1)
    begin, clear, leave, watch, scratch, serve_worker = room.begin, room.clear, room.leave, room.watch, room.scratch, worker.serve
    domain, filter = left["domain"], left["filter"]
    here = frames.place()   # valid in workers too, since no C function is between here and serve_worker
    receive, fork, wait, send, yield_processor = control.recvmsg, os.fork, confine.wait, confine.send, confine.yield_processor
    unpack, dup2, close, cloexec = struct.unpack, os.dup2, os.close, _socket.MSG_CMSG_CLOEXEC
    # What wait4 writes is sent as it is: to make Python objects of its seventeen numbers costs more than all the rest here.
    ended = ctypes.create_string_buffer(b"exit", 4 + 4 + 144)   # a status, and struct rusage with a long in each field
    status_at, usage_at, ended_size = ctypes.byref(ended, 4), ctypes.byref(ended, 8), ctypes.sizeof(ended)
    if watch is not None:
        room.note(ctypes.c_int.from_buffer(ended, 4), usage_at)
    for name in [name for name in sys.modules if name.startswith("_sandbox_")]:   # user code must not find them
        del sys.modules[name]
    gc.collect()
    gc.freeze()   # a worker's collection at its end then visits only its own objects
    wire.send(control, b"ready", left["listener"])
    if left["listener"] is not None:
        os.close(left["listener"])
    while True:
        word, ancillary, _, _ = receive(32, 64, cloexec)
        if not word:
            room.close()
            os._exit(0)
        fds = unpack("4i", ancillary[0][2])   # word is "boot" or "work", then RLIMIT_NPROC where it counts processes outside too
        if begin is not None:
            begin()
        child = fork()
        if child == 0:
            if leave is not None:
                leave()
            # Descriptors 0, 1, 2 are user code's, 3 is the channel; the worker closes the others.
            dup2(fds[0], 0)
            dup2(fds[1], 1)
            dup2(fds[2], 2)
            dup2(fds[3], 3, False)
            serve_worker(3, scratch, domain, filter, int(word[5:] or 0), word[:4] == b"boot", here)
        for fd in fds:
            close(fd)
        if watch is not None:
            watch(child)
        else:
            # The first round copies the pages to which the last one writes, while nobody waits for it yet: no worker has ended.
            options = WNOHANG
            while wait(-1, status_at, options, usage_at) != child:   # other pids are orphans of the worker
                if options:
                    send(-1, ended, ended_size, NO_SIGNAL)   # to no socket
                options = 0
        send(3, ended, ended_size, NO_SIGNAL)   # before clearing up: the request waits for it
        yield_processor()   # the packet has often woken Caddy on this very CPU: let it run first
        if not clear():
            control.send(b"leave")
            os._exit(0)


class Namespace:
    """The room of a worker, which is where it runs and what is cleared after it, when the lane has namespaces: it is the first process
    of a pid namespace and has mounts of its own."""

    def __init__(self, plan):
        self.scratch = plan["scratch"]["path"]
        self.watched = plan["leftovers"]

    def enter(self, _):
        os.chdir(self.scratch)
        sys.path.insert(0, self.scratch)   # for the workers: the lane itself imports nothing any more
        self.clear = _clearer(self.scratch, self.watched)

    path = begin = leave = watch = None   # no directory to make, nothing to do after a fork, no questions to answer

    def close(self):
        pass   # the kernel removes its mounts


def _clearer(path, watched):
    """Return the function that clears up after a worker: it ends all other processes of the pid namespace, and empties scratch. It
    returns False when scratch holds too many files, or when the worker has left something else changed: then the lane ends, and the
    kernel removes its mounts and namespaces. All that it uses is a variable of this call: attributes and names of modules lie in
    dictionaries, whose pages each lookup would copy."""
    kill, wait, unlink, call, source = confine.kill, confine.wait, confine.unlink, confine.system_call, b"main.py"
    nohang, sigkill = WNOHANG | WALL, processes.SIGKILL
    statx, at, where, wanted = confine.SYS_STATX[os.uname().machine], confine.AT_FDCWD, os.fsencode(path), confine.STATX_BASIC_STATS
    about = ctypes.create_string_buffer(256)   # struct statx
    links_to_size = memoryview(about).cast("B")[16:48]   # owner and mode, too. The size of a directory of a tmpfs counts its entries

    def look():
        if call(statx, at, where, 0, wanted, about) < 0:
            raise OSError("looking at scratch")
        return bytes(links_to_size)

    def read_watched():
        found = []
        for name in watched:
            with open(name, "rb") as f:
                found.append(f.read())
        return found

    empty_scratch, found, own = look(), read_watched(), os.stat(path).st_uid == os.getuid()

    def clear():
        # kill(-1) goes through all processes of the system, so it is left out where the lane has no child: it would be the parent of
        # any process that has lost its own.
        if wait(-1, None, nohang, None) >= 0:
            kill(-1, sigkill)
            while wait(-1, None, 0, None) > 0:
                pass
        try:
            if unlink(source) < 0 or call(statx, at, where, 0, wanted, about) < 0 or links_to_size != empty_scratch:
                if not empty(path, 2000) or look() != empty_scratch:
                    return False
            if own and os.listxattr(path):
                return False
            return not watched or read_watched() == found
        except OSError:
            return False

    return clear


class Tree:
    """The room of a worker when there are no namespaces: the lane adopts orphans as a subreaper, and each worker has a
    directory of its own."""

    def __init__(self, plan, control):
        self.path, self.control, self.scoped = f"{plan['scratch']['path']}/{os.getpid()}-lane", control, plan["landlock"]["scoped"]
        self.plan, self.answers, self.made, self.asking = plan, None, False, -1   # asking: the last worker's listener
        self.scratch, self.listings = self.path + "/scratch", self.path + "/listings"

    def enter(self, left):
        # watch polls for the end of a worker (a signalfd), a question of one of its processes, and the end of Caddy.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGCHLD])
        mask = ctypes.create_string_buffer((1 << _signal.SIGCHLD - 1).to_bytes(8, sys.byteorder), 8)
        self.deaths = confine.libc.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK)
        if self.deaths < 0:
            raise confine.ConfineError("watching workers", os.strerror(ctypes.get_errno()))
        questions = -1
        if self.plan["view"]:
            import _sandbox_calls as calls
            import _sandbox_view as view
            self.take = calls.take
            self.questions, channel = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            questions = self.questions.fileno()
            left["filter"] = calls.Filter(self.plan["view"], channel)
            self.answers = calls.Answers(self.plan["view"], view.View(self.plan["view"], self.plan["landlock"], self.scratch, self.listings))
        else:
            os.environ["HOME"] = os.environ["TMPDIR"] = self.scratch
        worker.place_main(self.plan["view"]["scratch_names"][0] if self.plan["view"] else self.scratch)
        sys.path.insert(0, self.scratch)
        # One struct pollfd for each, made once: the lists that select.poll returns would write to more pages.
        self.watched = ctypes.create_string_buffer(struct.pack("ihhihhihhihh", self.deaths, 1, 0, self.control.fileno(), POLLRDHUP, 0,
                                                               questions, 1, 0, -1, 1, 0), 32)

    def note(self, status, usage_at):
        """Make what every call of watch needs, once. wait4 writes to status and usage_at."""
        self.status, self.status_at, self.usage_at = status, ctypes.byref(status), usage_at
        self.listener, self.events = ctypes.c_int.from_buffer(self.watched, 24), memoryview(self.watched).cast("B").cast("h")
        if self.answers is not None:
            self.answers.tracer.watch(status, usage_at)

    def begin(self):
        os.mkdir(self.scratch, 0o700)
        self.made = True

    def leave(self):
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGCHLD])
        os.chdir(self.scratch)

    def watch(self, child):
        """Wait for the end of a worker, and answer meanwhile what its processes ask."""
        answers, deaths, status, watched, listener, events = self.answers, self.deaths, self.status, self.watched, self.listener, self.events
        wait, status_at, usage_at, poll, read = confine.wait, self.status_at, self.usage_at, confine.poll, os.read
        if answers is not None:
            answers.tracer.child = child
        running = True
        while running:
            poll(watched, 4, -1)
            if event := events[15]:
                if event & 1:   # POLLIN
                    answers.answer()
                    running = not answers.tracer.ended
                else:           # POLLHUP: no process with the filter is left, so the worker is about to end, too
                    listener.value = -listener.value
                    while wait(-1, status_at, WALL, usage_at) != child or status.value & 0xff == 0x7f:
                        pass
                    break
            elif events[11]:
                listener.value = answers.listener = self.take(self.questions, 0)
            elif events[7]:   # Caddy is gone, and the worker may never end
                self.clear()
                self.close()
                os._exit(0)
            elif events[3]:
                read(deaths, 1024)
                while running and (pid := wait(-1, status_at, os.WNOHANG | WALL, usage_at)) > 0:
                    if status.value & 0xff == 0x7f:
                        answers.tracer.stopped(pid, status.value)
                    elif pid == child:
                        running = False
        self.asking = abs(listener.value)
        listener.value = -1
        if answers is None:
            return
        if self.asking == 1:   # the worker has ended before its listener was taken: the next one's must be found there
            self.asking = self.take(self.questions, _socket.MSG_DONTWAIT)
        if answers.tracer.ended or answers.tracer.pending:
            answers.tracer.ended = False
            answers.tracer.pending.clear()

    def _end(self):
        try:
            while os.waitpid(-1, os.WNOHANG)[0] or self._kill():
                pass
        except ChildProcessError:
            pass

    def _kill(self):
        if self.scoped:
            confine.kill(-1, processes.SIGKILL)   # in one step: killing one after the other does not catch up with endless forks
        else:
            for pid in processes.descendants(os.getpid()):
                try:
                    os.kill(pid, processes.SIGKILL)
                except ProcessLookupError:
                    pass
        return os.waitpid(-1, 0)

    def clear(self):
        self._end()
        if self.asking > 1:
            # Not sooner: calls that have nobody to ask fail (ENOSYS), and what a worker has left behind would print errors for the
            # moment that it has left.
            confine.close(self.asking)
            self.asking = -1
        try:
            if self.made:
                remove(self.scratch)
                self.made = False
            if self.answers is not None and self.answers.listings.made:
                remove(self.listings)
                self.answers.listings.made.clear()
        except OSError:
            return False
        return True

    def close(self):
        try:
            os.rmdir(self.path)
        except OSError:
            pass   # Caddy removes what is left


def remove(top):
    """Remove a directory and everything in it."""
    empty(top, sys.maxsize)
    os.rmdir(top)


def empty(top, budget):
    """Remove everything in top. False when that is more than budget entries. User code may have nested directories without end, and
    taken away its own permissions, which are the lane's too: so each directory gets its permissions back and is moved up into top,
    where paths stay short."""
    queue, moved = [top], 0
    while queue:
        path = queue.pop()
        for name in os.listdir(path):
            budget -= 1
            if budget < 0:
                return False
            entry = f"{path}/{name}"
            try:
                os.unlink(entry)
                continue
            except (IsADirectoryError, PermissionError):   # unlink(2) fails so for a directory: on Linux, and by POSIX
                directory = os.open(entry, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)   # chmod would follow a link
                try:
                    os.chmod(f"/proc/self/fd/{directory}", 0o700)
                finally:
                    os.close(directory)
            if path is not top:
                moved += 1
                target = f"{top}/.moved-{os.urandom(8).hex()}-{moved}"
                os.rename(entry, target)
                entry = target
            queue.append(entry)
        if path is not top:
            os.rmdir(path)
    return True
