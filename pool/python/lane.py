"""A lane: the first process of a pid namespace. It forks one worker at a time, waits for it, and ends and reaps
whatever the worker leaves before the next one is forked. It runs no user code and is told nothing of it."""
import os
import select
import shutil
import signal
import socket

import _sandbox_confine as confine
import _sandbox_wire as wire


def wake_on_child():
    """Return a descriptor that becomes readable when a child ends."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def drain(wake):
    try:
        while os.read(wake, 4096):
            pass
    except BlockingIOError:
        pass


def reap():
    """Yield (pid, wait status, rusage) of each child that has ended."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status, usage


def adopt(fd):
    """In a new lane: keep its control socket and nothing else of the template's."""
    signal.set_wakeup_fd(-1)
    os.dup2(fd, 3, inheritable=False)
    os.closerange(4, 1 << 16)
    return socket.socket(fileno=3)


def serve(control, plan):
    """Serve until the control socket closes. Returns (channel, scratch directory) in a worker."""
    try:
        confine.enter_lane(plan)
    except BaseException as e:
        step, error = confine.describe(e)
        wire.send(control, {"event": "failed", "step": step, "error": error})
        os._exit(1)
    namespaces = plan["world"] == "namespaces"
    wake = wake_on_child()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake, select.POLLIN)
    current, number, scratch = 0, 0, plan["scratch"]["path"]
    wire.send(control, {"event": "ready"})
    while True:
        for fd, _ in poll.poll():
            if fd == wake:
                drain(wake)
                for pid, status, usage in reap():
                    if pid != current:
                        continue   # an orphan of the worker
                    end_all(namespaces)
                    _remove(plan, scratch)
                    current = 0
                    wire.send(control, {
                        "event": "exit", "worker": number, "status": status,
                        "cpu_seconds": usage.ru_utime + usage.ru_stime, "max_rss_bytes": usage.ru_maxrss << 10})
                continue
            message, fds = wire.receive(control)
            if message is None:
                end_all(namespaces)
                _remove(plan, scratch)
                os._exit(0)
            if message["op"] == "kill":
                if current and message["worker"] == number:
                    signal_all(namespaces)
                continue
            number = message["worker"]
            scratch = _make(plan, number)
            current = os.fork()
            if current == 0:
                return _adopt_worker(fds), scratch
            for fd in fds:
                os.close(fd)


def _adopt_worker(fds):
    """In a new worker: descriptors 0, 1, 2 are user code's, 3 is the channel, and there are no others."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, fd in enumerate(fds):
        os.dup2(fd, number, inheritable=number < 3)
    os.closerange(4, 1 << 16)
    return 3


def _make(plan, number):
    """Return the worker's scratch directory: a mount of its own, or without namespaces a directory of its own."""
    path = plan["scratch"]["path"]
    if plan["scratch"]["own"]:
        path = os.path.join(path, f"{os.getpid()}-{number}")
        os.mkdir(path, 0o700)
    return path


def _remove(plan, path):
    if not plan["scratch"]["own"] or path == plan["scratch"]["path"]:
        return

    def open_up(function, name, _):
        # User code may have closed a directory to itself, and so to us.
        try:
            os.chmod(os.path.dirname(name), 0o700)
            os.chmod(name, 0o700)
            function(name)
        except OSError:
            pass

    shutil.rmtree(path, onerror=open_up)


def signal_all(namespaces):
    """SIGKILL everything that descends from this lane. In a pid namespace one call reaches all, atomically."""
    if namespaces:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return
    for pid in _descendants(os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def end_all(namespaces):
    """Kill and reap until this lane has no child. Orphans come to it, as pid 1 or as subreaper."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                signal_all(namespaces)
                os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _descendants(pid):
    found, queue = [], [pid]
    while queue:
        pid = queue.pop()
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                with open(f"/proc/{pid}/task/{task}/children") as f:
                    children = [int(child) for child in f.read().split()]
            except OSError:
                continue
            found += children
            queue += children
    return found
