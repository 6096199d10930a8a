/* Streams: bytes between the host and descriptors in the guest, under credit.
 *
 * A descriptor is in the epoll set only while something could be done with it: an inlet
 * while bytes wait for it, an outlet while there is credit. So a reader that closed its end,
 * or a writer held back, never spins the loop.
 *
 * A process stream is over when the process was reaped and both outlets have ended; a socket
 * stream when both directions have. */
#include "agent.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static uint32_t generations;

void watch(int epoll, int fd, uint32_t events, uint64_t token)
{
    struct epoll_event event = {events, {.u64 = token}};

    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* A token names slot, generation and role, so that news of a closed stream is recognised. */
uint64_t stream_token(const struct stream *s, enum role role)
{
    return (uint64_t)s->generation << 32 | (uint64_t)(s - agent.streams) << 8 | role;
}

static void set_watched(struct stream *s, int fd, bool *watched, bool wanted, enum role role)
{
    if (*watched == wanted || fd < 0)
        return;
    *watched = wanted;
    if (wanted)
        watch(agent.streams_epoll, fd, role == ROLE_IN ? EPOLLOUT : EPOLLIN, stream_token(s, role));
    else
        epoll_ctl(agent.streams_epoll, EPOLL_CTL_DEL, fd, NULL);
}

struct stream *stream_find(uint32_t id)
{
    for (int i = 0; id != 0 && i < MAX_STREAMS; i++)
        if (agent.streams[i].id == id)
            return &agent.streams[i];
    return NULL;
}

struct stream *stream_new(uint32_t id)
{
    for (int i = 0; i < MAX_STREAMS; i++)
        if (agent.streams[i].id == 0) {
            agent.streams[i] = (struct stream){
                .id = id,
                .generation = ++generations,
                .in.fd = -1,
                .out = {{.fd = -1}, {.fd = -1}},
            };
            return &agent.streams[i];
        }
    return NULL;
}

/* The descriptors must not block. The same one may serve two channels if it is duplicated. */
void stream_open(struct stream *s, int in, int out1, int out2)
{
    const int fds[2] = {out1, out2};

    s->in.fd = in;
    for (int i = 0; i < 2; i++) {
        s->out[i].fd = fds[i];
        s->out[i].credit = (uint32_t)agent.window;
        set_watched(s, fds[i], &s->out[i].watched, agent.window > 0 && !s->connecting,
                    ROLE_OUT1 + i);
    }
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd); /* which also takes it out of the epoll set */
    *fd = -1;
}

static void close_inlet(struct stream *s)
{
    struct inlet *in = &s->in;

    set_watched(s, in->fd, &in->watched, false, ROLE_IN);
    if (s->socket && in->fd >= 0)
        shutdown(in->fd, SHUT_WR);
    close_fd(&in->fd);
    in->due += in->size;
    in->size = in->head = 0;
    free(in->waiting);
    in->waiting = NULL;
}

static void close_outlet(struct stream *s, int i)
{
    set_watched(s, s->out[i].fd, &s->out[i].watched, false, ROLE_OUT1 + i);
    close_fd(&s->out[i].fd);
}

void stream_free(struct stream *s)
{
    close_inlet(s);
    close_outlet(s, 0);
    close_outlet(s, 1);
    s->id = 0;
}

static void end_if_over(struct stream *s)
{
    const bool drained = s->out[0].fd < 0 && s->out[1].fd < 0;

    if (!drained || (s->socket ? s->in.fd >= 0 : !s->exited))
        return;
    session_send(s->id, PV_END, 0, NULL, 0);
    stream_free(s);
}

/* --- guest to host --- */

static void end_outlet(struct stream *s, int i)
{
    close_outlet(s, i);
    session_send(s->id, PV_EOF, (uint8_t)(i + 1), NULL, 0);
}

/* Move one read's worth. False when nothing more can come now. */
static bool pump_out(struct stream *s, int i)
{
    struct outlet *out = &s->out[i];
    size_t limit = DATA - PV_FRAME_HEADER;

    if (session_congested())
        return false;
    if (limit > out->credit)
        limit = out->credit;
    const ssize_t n = s->datagram
        ? recv(out->fd, session_reserve(limit), limit, MSG_TRUNC)
        : read(out->fd, session_reserve(limit), limit);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (s->datagram) {
        /* Lost: one that there is no credit for, or an ICMP error of an earlier one. */
        if (n < 0 || (size_t)n > limit)
            return n > 0;
    } else if (n <= 0) { /* EIO is how a pty says that nobody has it open */
        end_outlet(s, i);
        return false;
    }
    session_emit(s->id, PV_DATA, (uint8_t)(i + 1), (size_t)n);
    out->credit -= (uint32_t)n;
    if (out->credit == 0 && !s->datagram)
        set_watched(s, out->fd, &out->watched, false, ROLE_OUT1 + i);
    return true;
}

void stream_credit(struct stream *s, unsigned channel, uint32_t credit)
{
    if (channel < 1 || s->out[channel - 1].fd < 0)
        return;
    struct outlet *out = &s->out[channel - 1];
    if (credit > UINT32_MAX / 2 - out->credit)
        credit = UINT32_MAX / 2 - out->credit;
    out->credit += credit;
    set_watched(s, out->fd, &out->watched, out->credit > 0 && !s->connecting,
                ROLE_OUT1 + (int)channel - 1);
}

/* --- host to guest --- */

/* Credit goes back in quarters of the window, so that few frames carry it. */
static void give_credit(struct stream *s)
{
    uint8_t bytes[4];

    if (s->in.due < WINDOW / 4)
        return;
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(s->in.due >> 8 * i);
    s->in.due = 0;
    session_send(s->id, PV_CREDIT, 0, bytes, sizeof bytes);
}

/* Nobody reads any more: say so once; what still comes is dropped and credited. */
static void break_inlet(struct stream *s)
{
    close_inlet(s);
    session_send(s->id, PV_EOF, 0, NULL, 0);
}

static void finish_inlet(struct stream *s)
{
    /* A terminal cannot be half closed: its end of input is a character, usually ^D. */
    if (s->pty && s->in.fd >= 0 && write(s->in.fd, "\4", 1) < 0)
        s->in.ending = false;
    close_inlet(s);
}

/* Write what waits, as far as it goes. */
static void pump_in(struct stream *s)
{
    struct inlet *in = &s->in;

    while (in->size > 0) {
        const uint32_t straight = WINDOW - in->head < in->size ? WINDOW - in->head : in->size;
        const ssize_t n = write(in->fd, in->waiting + in->head, straight);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            break_inlet(s);
            break;
        }
        in->head = (in->head + (uint32_t)n) % WINDOW;
        in->size -= (uint32_t)n;
        in->due += (uint32_t)n;
    }
    if (in->size == 0) {
        free(in->waiting);
        in->waiting = NULL;
        if (in->ending)
            finish_inlet(s);
    }
    set_watched(s, in->fd, &in->watched, in->size > 0, ROLE_IN);
    give_credit(s);
}

static bool keep(struct inlet *in, const uint8_t *data, size_t size)
{
    if (in->waiting == NULL) {
        in->head = 0;
        in->waiting = malloc(WINDOW);
    }
    if (in->waiting == NULL || size > WINDOW - in->size)
        return false;
    for (size_t done = 0; done < size;) {
        const size_t at = (in->head + in->size) % WINDOW;
        const size_t part = size - done < WINDOW - at ? size - done : WINDOW - at;
        memcpy(in->waiting + at, data + done, part);
        in->size += (uint32_t)part;
        done += part;
    }
    return true;
}

/* Straight to the descriptor when it takes everything, which is the usual case. */
void stream_data(struct stream *s, const uint8_t *data, size_t size)
{
    struct inlet *in = &s->in;

    if (in->fd >= 0 && s->datagram) {
        if (send(in->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            errno = 0; /* as on any network, a datagram may be lost */
        in->due += (uint32_t)size;
    } else if (in->fd >= 0 && !in->ending) {
        const ssize_t n = in->size || s->connecting ? 0 : write(in->fd, data, size);
        const size_t done = n > 0 ? (size_t)n : 0;
        in->due += (uint32_t)done;
        if (n < 0 && errno != EAGAIN) {
            in->due += (uint32_t)size;
            break_inlet(s);
        } else if (done < size && !keep(in, data + done, size - done)) {
            stream_cancel(s); /* more than it had credit for, or no memory */
            return;
        }
        set_watched(s, in->fd, &in->watched, in->size > 0, ROLE_IN);
    } else {
        in->due += (uint32_t)size;
    }
    give_credit(s);
    end_if_over(s);
}

void stream_eof(struct stream *s)
{
    s->in.ending = true;
    if (s->in.size == 0 && !s->connecting)
        finish_inlet(s);
    end_if_over(s);
}

/* What waited for the connection starts to flow. */
void stream_connected(struct stream *s)
{
    set_watched(s, s->out[0].fd, &s->out[0].watched, s->out[0].credit > 0, ROLE_OUT1);
    pump_in(s);
}

void stream_event(uint64_t event_token, uint32_t events)
{
    struct stream *s = &agent.streams[event_token >> 8 & 0xffff];
    const enum role role = event_token & 0xff;

    if (s->id == 0 || s->generation != event_token >> 32)
        return;
    if (s->connecting)
        connect_done(s);
    else if (role == ROLE_IN && s->in.fd >= 0) {
        if (events & EPOLLERR)
            break_inlet(s);
        else
            pump_in(s);
    } else if (role != ROLE_IN && s->out[role - ROLE_OUT1].fd >= 0)
        pump_out(s, role - ROLE_OUT1);
    if (s->id != 0)
        end_if_over(s);
}

/* --- ends --- */

/* The session of the process named by /proc/PID/stat, whose command may hold any bytes. */
static pid_t session_of(const char *pid)
{
    char path[64], text[512];
    int session = -1;

    snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -1;
    const size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = 0;
    const char *behind = strrchr(text, ')');
    if (behind == NULL || sscanf(behind, ") %*c %*d %*d %d", &session) != 1)
        return -1;
    return session;
}

/* To the group; to the process alone while it has not made its group yet. */
static void kill_group(const struct stream *s, int number)
{
    if (kill(-s->pid, number) < 0 && !s->exited)
        kill(s->pid, number);
}

/* A shell's jobs have groups of their own, but stay in its session. */
static void kill_session(const struct stream *s)
{
    kill_group(s, SIGKILL);
    DIR *proc = opendir("/proc");
    if (proc == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(proc)) != NULL;)
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
            session_of(entry->d_name) == s->pid)
            kill(atoi(entry->d_name), SIGKILL);
    closedir(proc);
}

void stream_signal(struct stream *s, int number)
{
    if (s->pid <= 1)
        return;
    if (number == SIGKILL)
        kill_session(s);
    else
        kill_group(s, number);
}

void stream_resize(struct stream *s, uint16_t rows, uint16_t columns)
{
    const struct winsize size = {.ws_row = rows, .ws_col = columns};

    if (s->pty && s->out[0].fd >= 0)
        ioctl(s->out[0].fd, TIOCSWINSZ, &size);
}

/* What a killed process left in its pipes is still the host's, as far as credit goes. */
static void drain(struct stream *s)
{
    for (int i = 0; i < 2; i++) {
        while (s->out[i].fd >= 0 && s->out[i].credit > 0 && pump_out(s, i))
            ;
        if (s->out[i].fd >= 0)
            end_outlet(s, i);
    }
}

void stream_cancel(struct stream *s)
{
    s->cancelled = true;
    if (s->pid > 1)
        kill_session(s);
    close_inlet(s);
    if (s->socket || s->exited)
        drain(s);
    end_if_over(s);
}

static void report_exit(struct stream *s, int status)
{
    uint8_t data[64];
    pv_fields fields = {data, sizeof data, 0, false};

    if (WIFSIGNALED(status))
        pv_fields_number(&fields, PV_TAG_SIGNAL, (uint64_t)WTERMSIG(status));
    else
        pv_fields_number(&fields, PV_TAG_EXIT_CODE, (uint64_t)WEXITSTATUS(status));
    pv_fields_number(&fields, PV_TAG_DURATION, monotonic() - s->started);
    session_send(s->id, PV_EXITED, 0, data, fields.size);
}

/* Reap everything: children of streams, and orphans that fell to process 1. */
void streams_reap(void)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int i = 0; i < MAX_STREAMS; i++) {
            struct stream *s = &agent.streams[i];
            if (s->id == 0 || s->pid != pid || s->exited)
                continue;
            s->exited = true;
            report_exit(s, status);
            if (s->cancelled)
                drain(s);
            end_if_over(s);
            break;
        }
}

/* The session is over: nothing that it started may stay, and nothing may stay frozen. */
void streams_drop(void)
{
    for (int i = 0; i < MAX_STREAMS; i++) {
        struct stream *s = &agent.streams[i];
        if (s->id == 0)
            continue;
        if (s->pid > 1)
            kill_session(s);
        stream_free(s);
    }
    if (agent.frozen) {
        agent.frozen = false;
        exec_applet_detached("thaw");
    }
}
