"""The layout of the template's memory, which makes forks cheaper.

Huge pages: where the kernel refuses them, forks are only slower. On data they give a saturated pool 7 % more runs a second with
numpy and pandas preloaded, and make no difference with nothing preloaded. On the interpreter's code they give 10 % more with
nothing preloaded, and shorten the spaced p50 by 7 %."""
import ctypes
import os
import sys

import _sandbox_confine as confine

libc = confine.libc
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mmap.argtypes, libc.mmap.restype = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long], ctypes.c_void_p
libc.mremap.argtypes, libc.mremap.restype = [ctypes.c_void_p, *[ctypes.c_size_t] * 2, ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
PAGE, HUGE = os.sysconf("SC_PAGE_SIZE"), 1 << 21
FAILED = ctypes.c_void_p(-1).value   # MAP_FAILED
MADV_COLLAPSE = 25   # since Linux 6.1
PROT_READ, PROT_WRITE, PROT_EXEC, MAP_PRIVATE, MAP_ANONYMOUS = 1, 2, 4, 0x2, 0x20   # without the module mmap, which programs would see
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
_SMALL, _LARGE = range(16, 513, 16), (*range(8192, 4096, -512), *range(4096, 1024, -128), *range(1024, 512, -64))   # bytes
_POOL_HEADER, _MOST = 48, 1 << 17   # bytes; bytes in objects of one size
_held = []


def fill_holes():
    """Fill the free places between the template's objects with objects that stay. What a lane or a worker allocates then lies side by
    side in fresh pages, and not in holes of pages that it would have to copy: 10 % fewer page faults a run, 3 % more runs a second.
    Where the allocators work otherwise than described here, the objects fill nothing, and do no harm."""
    # The interpreter's allocator has pools of a page for each size up to 512 bytes (Objects/obmalloc.c). The first object of a new
    # pool says that the older ones are full: it lies behind the header, which takes 48 bytes.
    for size in _SMALL:
        for address in _fill(size):
            if address % PAGE == _POOL_HEADER:
                break
    # malloc takes the smallest hole that is large enough, and the end of the heap when there is none.
    end = 0
    for size in _LARGE:
        for address in _fill(size):
            if address > end:
                end = address
                break


def _fill(size):
    """Add objects of a size, and yield their addresses, until there are too many."""
    for _ in range(_MOST // size):
        if size == 16:
            _held.append(object())
        elif size == 32:
            _held.append(float(size))   # 24 bytes
        else:
            _held.append(bytes(size - sys.getsizeof(b"")))
        yield id(_held[-1])


def collapse():
    """Collapse each aligned block of 2 MiB that is more than half resident into a huge page (madvise(2), MADV_COLLAPSE), for which
    a fork copies one page table entry instead of 512. A child that writes to it copies one small page, as before; since Linux 6.9
    the rest is still handled as a whole."""
    resident = ctypes.create_string_buffer(HUGE // PAGE)
    for start, end in _anonymous():
        for block in _blocks(start, end):
            if libc.mincore(block, HUGE, resident) == 0 and sum(resident.raw) > HUGE // PAGE // 2:
                libc.madvise(block, HUGE, MADV_COLLAPSE)


def collapse_code():
    """Replace the interpreter's code and constants by copies in huge pages, each aligned block of 2 MiB that holds nothing else. A
    fork does not copy the page table entries of a file, so each worker takes a page fault for every 64 KiB of code that it runs, and
    removes these entries at its end. The copies need one entry a block, which the fork makes. Other programs that do this for their
    own code: Node.js (--use-largepages) and HHVM."""
    inside = ctypes.cast(ctypes.pythonapi.PyObject_Call, ctypes.c_void_p).value
    for start, end in _read_only_files():
        if start <= inside < end:
            for block in _blocks(start, end):
                _copy_to_huge_page(block)


def _copy_to_huge_page(block):
    room = libc.mmap(None, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if room == FAILED:
        return
    copy = -(-room // HUGE) * HUGE
    ctypes.memmove(copy, block, HUGE)
    # A copy in small pages would make forks slower, and SELinux may refuse to make written memory executable.
    if libc.madvise(copy, HUGE, MADV_COLLAPSE) == 0 and libc.mprotect(copy, HUGE, PROT_READ | PROT_EXEC) == 0:
        # The code may be running: each of its bytes stays the same while the copy takes its place.
        libc.mremap(copy, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, block)
    # munmap(2) succeeds where parts of the range are no longer mapped.
    libc.munmap(room, 2 * HUGE)


def _blocks(start, end):
    """The addresses of the aligned blocks of 2 MiB that lie between two addresses."""
    return range(-(-start // HUGE) * HUGE, end - HUGE + 1, HUGE)


def _read_only_files():
    """Yield the start and end of each run of adjacent mappings of one file that cannot be written to."""
    start = end = path = None
    for first, last, fields in _mappings():
        here = fields[5].strip() if fields[1] in ("r--p", "r-xp") and fields[4] != "0" else None
        if here is None or here != path or first != end:
            if path is not None:
                yield start, end
            start, path = first, here
        end = last


def _anonymous():
    """Yield the start and end of each writable mapping that belongs to no file."""
    for start, end, fields in _mappings():
        if fields[1] == "rw-p" and fields[4] == "0":
            yield start, end


def _mappings():
    """Yield the start and end of each mapping, and the fields of its line (proc_pid_maps(5))."""
    with open("/proc/self/maps") as f:
        lines = f.readlines()   # read at once: what is mapped meanwhile does not matter
    for line in lines:
        fields = line.split(None, 5)
        yield *(int(address, 16) for address in fields[0].split("-")), fields
