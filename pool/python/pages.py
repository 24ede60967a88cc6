"""The template's pages, arranged so that forks below it cost little: what a fork and the end of a process cost goes by the
number of pages that are mapped. Where the kernel refuses any of it, forks are slower and that is all."""
import ctypes
import os

import _sandbox_confine as confine

libc = confine.libc
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
HUGE = 1 << 21
MADV_COLLAPSE = 25   # Linux 6.1


def _mappings():
    with open("/proc/self/maps") as f:
        for line in f.readlines():   # all at once: what is mapped meanwhile does not matter
            fields = line.split(None, 5)
            start, end = (int(address, 16) for address in fields[0].split("-"))
            yield start, end, fields


def share_page_tables():
    """Make fork copy the page tables of large mappings of files. It leaves them out of one that was never written to
    (vma_needs_copy in the kernel's mm/memory.c), and a child then takes a fault for every 64 KiB of code that it runs. So
    one byte of each is written, with the value that it has. Only code and the constants behind it count; what lies before
    it has served the dynamic linker."""
    try:
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            code = None
            for start, end, fields in _mappings():
                is_constants = fields[1] == "r--p" and fields[-1] == code
                code = fields[-1] if fields[1] == "r-xp" and fields[-1].startswith("/") else None
                if (code or is_constants) and end - start >= 1 << 19:
                    memory.seek(start)
                    byte = memory.read(1)
                    memory.seek(start)
                    memory.write(byte)
    except OSError:
        pass


def collapse():
    """Make huge pages of the memory that is full (madvise(2), MADV_COLLAPSE): each is one entry for a fork to copy where 512
    were. A child that writes to one copies a small page of it, as before, and the rest is still handled together (Linux 6.9)."""
    pages = HUGE // os.sysconf("SC_PAGE_SIZE")
    resident = ctypes.create_string_buffer(pages)
    for start, end, fields in _mappings():
        if fields[1] != "rw-p" or fields[4] != "0":
            continue   # not anonymous
        for block in range(-(-start // HUGE) * HUGE, end - HUGE + 1, HUGE):
            if libc.mincore(block, HUGE, resident) == 0 and sum(resident.raw) > pages // 2:
                libc.madvise(block, HUGE, MADV_COLLAPSE)
