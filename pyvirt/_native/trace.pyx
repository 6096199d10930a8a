"""The door to csrc/pv_trace.c: virtqueues that are followed on a thread of their own."""

import mmap

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport errno
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.time cimport (CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID, clock_gettime, nanosleep,
                         timespec)
from posix.unistd cimport close, read, write

from pyvirt._native.vring cimport Memory, Queue, pv_desc, pv_queue

cdef extern from "<sys/epoll.h>" nogil:
    union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_wait(int, epoll_event *, int, int)
    int epoll_ctl(int, int, int, epoll_event *)
    uint32_t EPOLLIN, EPOLLET
    int EPOLL_CTL_ADD, EPOLL_CTL_DEL

cdef extern from "<sys/timerfd.h>" nogil:
    struct itimerspec:
        timespec it_interval, it_value
    int timerfd_create(int, int)
    int timerfd_settime(int, int, const itimerspec *, itimerspec *)
    int TFD_CLOEXEC, TFD_NONBLOCK

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int, ...)
    int PR_SET_TIMERSLACK

cdef extern from "<sched.h>" nogil:
    struct sched_param:
        int sched_priority
    int SCHED_FIFO, SCHED_RESET_ON_FORK
    int sched_setscheduler(int, int, const sched_param *)

cdef extern from "<sys/syscall.h>" nogil:
    int SYS_pidfd_getfd, SYS_sched_setattr

cdef extern from "<unistd.h>" nogil:
    long syscall(long, ...)

cdef extern from "pv_trace.h" nogil:
    enum:
        PV_TRACE_RECORD, PV_TRACE_CHAIN, PV_TRACE_SNAP
    ctypedef struct pv_flight:
        pass
    ctypedef struct pv_trace_counts:
        uint64_t made, done, readable, writable, lost, uncertain, broken
        uint32_t depth
    ctypedef struct pv_traced:
        pv_queue queue
        pv_flight *flights
        uint8_t *bytes
        uint16_t *held
        pv_trace_counts counts
        bint recorded
    ctypedef struct pv_trace:
        pv_traced *queues
        size_t count
        pv_desc *chain
        uint8_t *again
        uint32_t snap
        uint64_t settle, steps, dropped
        uint8_t *ring
        uint64_t room
    ctypedef struct pv_pace:
        uint64_t interval, idle, quiet
        uint32_t share
        uint64_t moved
    void pv_trace_begin(pv_trace *, size_t, uint64_t)
    size_t pv_trace_step(pv_trace *, uint64_t)
    void pv_trace_end(pv_trace *, uint64_t)
    size_t pv_trace_take(pv_trace *, uint8_t *, size_t, uint8_t *, size_t, uint64_t, size_t *)
    void pv_trace_rebase(uint8_t *, size_t, uint64_t)
    uint64_t pv_trace_waiting(pv_trace *)
    uint64_t pv_pace_next(pv_pace *, uint64_t, uint64_t, bint)

cdef enum:
    MEASURED = 16           # looks between two measurements of the processor time
    NOTICE = 20_000_000     # nanoseconds between two notices that there is something to take
    LONGEST = 50            # milliseconds in which a bell may stay silent
    EVENTS = 64
    BELLS = 1024            # descriptors of bells that are judged
    TRIED = 64              # times that a bell rings until it is judged
    SLICE = 100_000         # nanoseconds, the least there is

RECORD_SIZE = PV_TRACE_RECORD
SNAP_MOST = PV_TRACE_SNAP
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE


def duplicate(int pidfd, int fd):
    """A descriptor of another process, as this one's own (pidfd_getfd(2))."""
    cdef long got = syscall(SYS_pidfd_getfd, pidfd, fd, 0)
    if got < 0:
        raise OSError(errno, "a descriptor could not be taken")
    return got


def rebase(bytearray records, uint64_t base):
    """The bytes of these records move by `base`."""
    pv_trace_rebase(<uint8_t *><char *>records, len(records) // PV_TRACE_RECORD, base)


cdef uint64_t clock(int which) noexcept nogil:
    cdef timespec at
    clock_gettime(which, &at)
    return <uint64_t>at.tv_sec * 1_000_000_000 + <uint64_t>at.tv_nsec


# sched_setattr(2); glibc 2.36 has no name for it.
cdef struct sched_attr:
    uint32_t size, policy
    uint64_t flags
    int32_t nice
    uint32_t priority
    uint64_t runtime, deadline, period


cdef void be_prompt(bint realtime) noexcept nogil:
    """Sleeps end when they should, on a busy host too: looking takes microseconds.

    A short slice lets Linux 6.12 run it soon; a real-time priority at once, where it is allowed.
    """
    cdef sched_param lowest
    cdef sched_attr short
    lowest.sched_priority = 1
    prctl(PR_SET_TIMERSLACK, 1)
    if not realtime or sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest) != 0:
        memset(&short, 0, sizeof(short))
        short.size, short.runtime = sizeof(short), SLICE
        syscall(SYS_sched_setattr, 0, &short, 0)


cdef struct bell:
    uint16_t rung, right, good


cdef class Sampler:
    """Follows queues. `run` does it until `stop` or the end of their memory; another thread takes.

    `queues` are pairs of a Queue and whether its requests are recorded. Times are nanoseconds,
    `share` millionths of a processor, `notice` an eventfd that is written to when there is
    something to take, `bells` an epoll that wakes it (or -1): then it looks by itself each `tick`
    while something moves, else each `interval`. Where it only counts, bells wake it when nothing
    moves.
    """

    cdef pv_trace raw
    cdef pv_pace pace
    cdef list owners, memories
    cdef int notice, bells, timer
    cdef uint64_t tick, made
    cdef bell judged[BELLS]
    cdef volatile bint stopping
    cdef bint realtime, counting
    cdef readonly uint64_t started, ended, looks, longest, spent

    def __cinit__(self, queues, uint32_t snap, uint64_t room, uint64_t interval, uint64_t tick,
                  uint64_t idle, uint64_t quiet, uint64_t settle, uint32_t share, bint realtime,
                  int notice, int bells):
        cdef Queue queue
        cdef size_t i, size
        memset(&self.raw, 0, sizeof(self.raw))
        memset(&self.pace, 0, sizeof(self.pace))
        self.owners, self.memories = [], []
        self.notice, self.bells, self.stopping = notice, bells, False
        self.realtime, self.tick, self.timer, self.made = realtime, tick, -1, 0
        memset(self.judged, 0, sizeof(self.judged))
        self.counting = not any(recorded for _, recorded in queues)
        self.pace.interval, self.pace.idle = interval, idle
        self.pace.quiet, self.pace.share = quiet, share
        self.raw.count, self.raw.snap, self.raw.settle = len(queues), snap, settle
        self.raw.queues = <pv_traced *>self.lend(self.raw.count * sizeof(pv_traced))
        self.raw.chain = <pv_desc *>self.lend(PV_TRACE_CHAIN * sizeof(pv_desc))
        self.raw.again = <uint8_t *>self.lend(PV_TRACE_SNAP)
        self.raw.room = room // 8 * 8
        self.raw.ring = <uint8_t *>self.lend(room)
        for i, (queue, recorded) in enumerate(queues):
            size = queue.raw.ring.size
            self.owners.append(queue)
            if not any(queue.memory is memory for memory in self.memories):
                self.memories.append(queue.memory)
            self.raw.queues[i].queue = queue.raw
            self.raw.queues[i].recorded = recorded
            self.raw.queues[i].flights = <pv_flight *>self.lend(size * sizeof(pv_flight))
            self.raw.queues[i].held = <uint16_t *>self.lend(2 * size)
            self.raw.queues[i].bytes = <uint8_t *>self.lend(2 * size * snap)

    cdef void *lend(self, size_t size) except NULL:
        """Zeros, for as long as this lives."""
        cdef Py_buffer view
        memory = mmap.mmap(-1, max(1, size), flags=PRIVATE)
        self.owners.append(memory)
        PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE)
        PyBuffer_Release(&view)
        return view.buf

    cdef guard(self):
        cdef Memory memory
        cdef list begun = []
        try:
            for memory in self.memories:
                memory.begin()
                begun.append(memory)
        except BaseException:
            for memory in begun:
                memory.done()
            raise

    cdef release(self):
        cdef Memory memory
        for memory in self.memories:
            memory.done()

    def run(self):
        """Follow the queues on this thread. The first notice says that it has begun."""
        self.guard()
        try:
            with nogil:
                self.loop()
        finally:
            self.release()

    cdef void set_timer(self, uint64_t period) noexcept nogil:
        """Ring each `period` nanoseconds; 0: not at all. A timer of its own costs less than many."""
        cdef itimerspec each
        each.it_interval.tv_sec = each.it_value.tv_sec = period // 1_000_000_000
        each.it_interval.tv_nsec = each.it_value.tv_nsec = period % 1_000_000_000
        timerfd_settime(self.timer, 0, &each, NULL)

    cdef bint better(self, int fd) noexcept nogil:
        """Whether another bell rings for requests: the best that there is must stay."""
        cdef int other
        for other in range(BELLS):
            if other != fd and self.judged[other].good >= TRIED // 2:
                return True
        return False

    cdef void judge(self, int fd) noexcept nogil:
        """A bell that seldom rings for a request is none: each ring of it costs the guest time."""
        cdef uint64_t made = 0
        cdef epoll_event unused
        cdef size_t i
        for i in range(self.raw.count):
            made += self.raw.queues[i].counts.made
        if 0 <= fd < BELLS and fd != self.timer:
            self.judged[fd].rung += 1
            self.judged[fd].right += made != self.made
            if self.judged[fd].rung == TRIED:
                self.judged[fd].good = self.judged[fd].right
                if self.judged[fd].good < TRIED // 4 and self.better(fd):
                    epoll_ctl(self.bells, EPOLL_CTL_DEL, fd, &unused)
                    self.judged[fd].good = 0
                self.judged[fd].rung = self.judged[fd].right = 0
        self.made = made

    cdef void loop(self) noexcept nogil:
        cdef uint64_t now, last, told = 0, cpu, sleep, waiting, one = 1, expired
        cdef epoll_event events[EVENTS]
        cdef epoll_event ticks
        cdef timespec pause
        cdef bint ticking = False, moving
        cdef int rung = 0
        cdef size_t moved, i
        be_prompt(self.realtime)
        if self.bells >= 0:
            self.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
            ticks.events, ticks.data.fd = EPOLLIN | EPOLLET, self.timer
            epoll_ctl(self.bells, EPOLL_CTL_ADD, self.timer, &ticks)
        self.started = self.pace.moved = last = clock(CLOCK_MONOTONIC)
        for i in range(self.raw.count):
            pv_trace_begin(&self.raw, i, self.started)
        write(self.notice, &one, 8)
        while not self.stopping:
            now = clock(CLOCK_MONOTONIC)
            moved = pv_trace_step(&self.raw, now)
            self.looks += 1
            if now - last > self.longest:
                self.longest = now - last
            last = now
            if rung == 1:
                self.judge(events[0].data.fd)
            waiting = pv_trace_waiting(&self.raw)
            if waiting and now - told > NOTICE:
                write(self.notice, &one, 8)
                told = now
            cpu = clock(CLOCK_THREAD_CPUTIME_ID) if self.looks % MEASURED == 0 else 0
            sleep = pv_pace_next(&self.pace, now, cpu, moved > 0)
            moving = now - self.pace.moved <= self.pace.quiet
            rung = 0
            if self.bells < 0 or moving and (self.counting or sleep > self.pace.interval):
                pause.tv_sec, pause.tv_nsec = sleep // 1_000_000_000, sleep % 1_000_000_000
                nanosleep(&pause, NULL)
                continue
            if moving != ticking:
                self.set_timer(self.tick if moving else 0)
                ticking = moving
            rung = epoll_wait(self.bells, events, EVENTS, LONGEST)
            for i in range(max(0, rung)):
                if events[i].data.fd == self.timer:  # it rings again only when it has been read
                    read(self.timer, &expired, 8)
            if not moving:
                last = clock(CLOCK_MONOTONIC)
        self.ended = clock(CLOCK_MONOTONIC)
        pv_trace_step(&self.raw, self.ended)
        pv_trace_end(&self.raw, self.ended)
        self.spent = clock(CLOCK_THREAD_CPUTIME_ID)
        if self.timer >= 0:
            close(self.timer)
        write(self.notice, &one, 8)

    def stop(self):
        """`run` returns soon."""
        self.stopping = True

    def take(self, uint64_t base):
        """The records that wait, and their bytes, of which the first will stand at `base`."""
        cdef uint64_t waiting = pv_trace_waiting(&self.raw)
        cdef bytearray records = bytearray(waiting), payload = bytearray(waiting)
        cdef uint8_t *to = <uint8_t *><char *>records
        cdef uint8_t *bytes_to = <uint8_t *><char *>payload
        cdef size_t count, size
        with nogil:
            count = pv_trace_take(&self.raw, to, waiting, bytes_to, waiting, base, &size)
        del records[count * PV_TRACE_RECORD:]
        del payload[size:]
        return records, payload

    @property
    def dropped(self):
        """Records that found no room."""
        return self.raw.dropped

    def counts(self):
        """Of each queue: made, done, bytes read and written, lost, uncertain, in flight."""
        cdef pv_trace_counts one
        cdef list found = []
        for i in range(self.raw.count):
            one = self.raw.queues[i].counts
            found.append((one.made, one.done, one.readable, one.writable, one.lost, one.uncertain,
                          one.depth))
        return found
