"""A process whose clock is wrong: a small library, loaded before all others, moves what it reads as the time of day.

It leaves the clocks alone by which processes wait. The library is compiled here, so it needs a C compiler.
"""

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long off(void) {
    static long seconds, known;
    if (!known) { const char *said = getenv("CLOCK_OFF_SECONDS"); seconds = said ? atol(said) : 0; known = 1; }
    return seconds;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += off();
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec read;
    if (clock_gettime(CLOCK_REALTIME, &read)) return -1;
    now->tv_sec = read.tv_sec;
    now->tv_usec = read.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *where) {
    struct timespec read;
    clock_gettime(CLOCK_REALTIME, &read);
    if (where) *where = read.tv_sec;
    return read.tv_sec;
}
"""


def can_be_wrong() -> bool:
    """Whether a clock can be moved here: on Linux with a C compiler."""
    return sys.platform == "linux" and shutil.which("cc") is not None


def clock_variables(seconds: int, folder: Path) -> dict[str, str]:
    """Environment variables that move a process's time of day by some seconds; the library is made in `folder` once."""
    library = folder / "clock.so"
    if not library.exists():
        source = library.with_suffix(".c")
        source.write_text(SOURCE)
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
    return {"LD_PRELOAD": str(library), "CLOCK_OFF_SECONDS": str(seconds)}
