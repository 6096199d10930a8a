"""A function of a C library, called in a child of this process and nowhere else."""

from libc.errno cimport EINTR, errno
from posix.types cimport pid_t

cdef extern from "<unistd.h>" nogil:
    pid_t fork()
    void _exit(int status)

cdef extern from "<sys/wait.h>" nogil:
    pid_t waitpid(pid_t pid, int *status, int options)
    bint WIFEXITED(int status)
    int WEXITSTATUS(int status)

cdef extern from "<stdbool.h>":
    ctypedef bint c_bool "bool"

ctypedef c_bool (*starter)(void *container, int useinit, char **argv) noexcept nogil


# Between fork and exit nothing of Python runs: other threads may have held any of its locks.
def start(size_t function, size_t container, size_t argv):
    cdef int status = 0
    cdef pid_t child, ended

    with nogil:
        child = fork()
        if child == 0:
            _exit(0 if (<starter>function)(<void *>container, 0, <char **>argv) else 1)
        ended = waitpid(child, &status, 0) if child > 0 else child
        while child > 0 and ended < 0 and errno == EINTR:
            ended = waitpid(child, &status, 0)
    if child < 0:
        raise OSError(errno, "fork")
    if ended < 0:
        return None
    return bool(WIFEXITED(status) and WEXITSTATUS(status) == 0)
