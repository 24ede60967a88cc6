"""A lane: the first process of a pid namespace. It forks one worker at a time, waits for it, and ends and reaps
whatever the worker leaves before the next one is forked. It runs no user code and is told nothing of it."""
import _signal  # the C module: signal.signal looks each number up among enums
import os
import select
import signal
import socket
import struct

import _sandbox_confine as confine
import _sandbox_wire as wire


def wake_on_child():
    """Return a descriptor that becomes readable when a child ends."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def adopt(fd):
    """In a new lane: keep its control socket and nothing else of the template's."""
    signal.set_wakeup_fd(-1)
    os.dup2(fd, 3, inheritable=False)
    os.closerange(4, 1 << 16)
    return socket.socket(fileno=3)


def serve(control, plan):
    """Serve until the control socket closes. Returns (channel, scratch directory) in a worker."""
    namespaces = plan["world"] == "namespaces"
    try:
        confine.enter_lane(plan)
        if namespaces:
            confine.fresh_scratch(plan)
    except BaseException as e:
        step, error = confine.describe(e)
        wire.send(control, {"event": "failed", "step": step, "error": error})
        os._exit(1)
    wake = wake_on_child()
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    poll.register(control, select.POLLIN)
    control_fd = control.fileno()
    # Without a mount of its own a worker has a directory, and only that one may be removed.
    own = plan["scratch"]["own"]
    current, number, scratch = 0, 0, None if own else plan["scratch"]["path"]
    wire.send(control, {"event": "ready"})
    # Plain words instead of JSON in this loop: after each fork every page that it touches is copied again.
    while True:
        for fd, _ in poll.poll():
            if fd != control_fd:
                os.read(wake, 4096)
                while current:
                    pid, status, usage = os.wait4(-1, os.WNOHANG)
                    if pid == 0:
                        break
                    if pid != current:
                        continue   # an orphan of the worker
                    end_all(namespaces)
                    if own:
                        _remove(scratch)
                        scratch = None
                    current = 0
                    control.send(b'{"event":"exit","worker":%d,"status":%d,"cpu_seconds":%f,"max_rss_bytes":%d}' % (
                        number, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10))
                    if namespaces:
                        confine.fresh_scratch(plan)   # waits for the kernel's readers, so after the answer
                continue
            data, ancillary, _, _ = control.recvmsg(64, 128, socket.MSG_CMSG_CLOEXEC)
            if not data:
                end_all(namespaces)
                if own and scratch:
                    _remove(scratch)
                os._exit(0)
            if data.startswith(b"kill "):
                if current and int(data[5:]) == number:
                    signal_all(namespaces)
                continue
            number = int(data[5:])   # boot
            fds = struct.unpack("4i", ancillary[0][2])
            if own:
                scratch = _make(plan, number)
            current = os.fork()
            if current == 0:
                return _adopt_worker(fds), scratch
            for fd in fds:
                os.close(fd)


def _adopt_worker(fds):
    """In a new worker: descriptors 0, 1, 2 are user code's, 3 is the channel, and there are no others."""
    _signal.set_wakeup_fd(-1)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    stdin, stdout, stderr, channel = fds
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.dup2(channel, 3, False)
    os.closerange(4, 1 << 16)
    return 3


def _make(plan, number):
    """Make the scratch directory of a worker that has no mount of its own."""
    path = os.path.join(plan["scratch"]["path"], f"{os.getpid()}-{number}")
    os.mkdir(path, 0o700)
    return path


def _remove(path):
    import shutil   # its compression libraries would be mapped in every worker, and few systems come here

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
    try:
        while True:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                signal_all(namespaces)
                os.waitpid(-1, 0)
    except ChildProcessError:
        pass


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
