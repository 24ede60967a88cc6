"""The template: a fork server that imports once and runs no user code, ever. It forks lanes; lanes fork workers."""
import gc
import importlib
import os
import select
import signal
import sys

import _sandbox_confine as confine
import _sandbox_lane as lane
import _sandbox_wire as wire
import _sandbox_worker as worker


def main(control, plan):
    """Serve until the control socket closes. Also the bottom frame of every lane and worker forked from here."""
    try:
        # Only Python's own signals differ from the defaults; a terminal's ^C is for Caddy, not for us.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _start(control, plan)
    except BaseException as e:
        step, error = confine.describe(e)
        wire.send(control, {"event": "failed", "step": step, "error": error[-4000:]})
        os._exit(1)
    control = _serve(control, plan)                # returns in a lane
    channel, scratch = lane.serve(control, plan)   # returns in a worker
    worker.serve(channel, scratch, plan)           # never returns


def _start(control, plan):
    def ask_for_map():
        wire.send(control, {"event": "map"})
        message, _ = wire.receive(control)
        if message is None:
            os._exit(0)

    confine.enter_template(plan, ask_for_map)
    os.umask(0o022)
    os.environ.pop("LD_BIND_NOW", None)
    sys.path[:0] = plan["python_path"]
    for name in plan["preload"]:
        try:
            importlib.import_module(name)
        except BaseException as e:
            raise confine.ConfineError(f"preload {name}", f"{type(e).__name__}: {e}") from None
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        # A thread does not survive fork, but a lock that it holds does.
        raise confine.ConfineError("preload", f"a preloaded module started {threads - 1} thread(s), and a process with "
                                   "threads cannot be forked safely; take it out of preload")
    worker.warm_up()
    gc.collect()
    gc.disable()   # in the workers it is on again
    gc.freeze()    # what is here now is never looked at again, so its pages stay shared
    with open("/proc/self/statm") as f:
        data_bytes = int(f.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    for limit in plan["rlimits"]:
        if limit["above_template"]:
            limit["value"] += data_bytes   # what the template holds already is not the worker's to pay for
    wire.send(control, {"event": "ready"})


def _serve(control, plan):
    """Fork a lane for each message. Returns the control socket of a lane, in the lane."""
    wake = lane.wake_on_child()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == wake:
                os.read(wake, 4096)
                _reap()
                continue
            message, fds = wire.receive(control)
            if message is None:
                os._exit(0)   # Caddy is gone: this ends the pid namespace, and every lane and worker with it
            if _fork_lane(control, plan, message["id"]):
                return lane.adopt(fds[0])
            os.close(fds[0])


def _reap():
    """Go sees a lane's end on the lane's own control socket; here it only stops being a zombie."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _fork_lane(control, plan, number):
    """Return True in the new lane. A process can unshare its children's pid namespace only once, so a child of ours
    does it, forks the lane and leaves; the lane then is our child, since we are pid 1 here."""
    namespaces = plan["world"] == "namespaces"
    if namespaces:
        if os.fork():
            return False
        confine.unshare(["pid"])
    pid = os.fork()
    if pid == 0:
        return True
    handle = os.pidfd_open(pid)
    wire.send(control, {"event": "lane", "id": number}, [handle])
    if namespaces:
        os._exit(0)
    os.close(handle)
    return False
