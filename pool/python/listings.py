"""Directories that a program may list, in a sandbox without a mount namespace, although Landlock closes the host's: /, /etc, /proc and the
like. A listing is a directory of the lane's own with the names that exist for programs. The lane makes it when a program of the run opens
that directory, hands over a descriptor, and removes it after the run. What a program opens by a name in it is looked up by the path that
it has on the host."""
import errno
import os
import stat

import _sandbox_processes as processes

PROC = b"/proc"


class Listings:
    def __init__(self, eyes):
        self.view, self.made = eyes, set()   # made: the paths whose listings there are

    def open(self, path):
        """Return a descriptor of the listing of a directory."""
        place = self.view.listings + path
        if path not in self.made:
            self.made.add(path)   # first, since a listing that cannot be finished is to be removed, too
            os.makedirs(place, exist_ok=True)
            for below in self.view.known:
                if os.path.dirname(below) == path != below:
                    self._add(below, place + b"/" + os.path.basename(below))
        if path == PROC:
            self._update_processes(place)
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _add(self, path, place):
        """Make an entry of the kind that a path is for programs; none where nothing is there."""
        try:
            mode = stat.S_IFREG if path in self.view.files else stat.S_IFDIR if path in self.view.names else os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(path), place)
            elif stat.S_ISDIR(mode):
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        except (FileNotFoundError, FileExistsError):
            pass   # nothing is there; or the listing of a directory below has been made before

    def _update_processes(self, place):
        there = {name for name in os.listdir(place) if name.isdigit()}
        running = {b"%d" % pid for pid in processes.descendants(os.getpid())}
        for name in there - running:
            os.rmdir(place + b"/" + name)
        for name in running - there:
            os.mkdir(place + b"/" + name)


def open_of_process(pid, name):
    """Return a descriptor of a file in the directory that a process has in /proc. Raises OSError unless it is a process of the run. The
    directory is opened first: its number could be another process's a moment later."""
    directory = os.open(b"/proc/%d" % pid, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory), "rb") as f:
            parent = processes.field_of(f.read(), processes.PARENT)
        if not processes.belongs(parent, os.getpid()):
            raise FileNotFoundError(errno.ENOENT, "")
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)
