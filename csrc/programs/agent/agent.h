/* pyvirt's agent: acts in a guest for the host at the other end of one byte stream.
 *
 * One thread, one epoll. What may wait (files, file systems) runs in child processes, so the
 * agent itself only moves bytes between the port and descriptors that do not block.
 *
 *   main.c     arguments, the loop
 *   session.c  the port: hunting, frames in, frames out
 *   stream.c   streams: credit, pumping, ends
 *   exec.c     starting processes; users.c, whose
 *   connect.c  streams to sockets in the guest
 *   applets.c  the internal commands: files.c, tar.c, info.c, listening.c, freeze.c
 *   init.c     duties of process 1; ending the guest
 *   port.c     finding the virtio-serial port
 */
#ifndef AGENT_H
#define AGENT_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "pv_frame.h"

enum {
    MAX_STREAMS = 128,
    WINDOW = 256 << 10,    /* of input, for each stream */
    DATA = 64 << 10,       /* a whole frame of output */
    OUT_SIZE = 256 << 10,  /* frames that wait for the port */
    RESERVE = 24 << 10,    /* of them, kept for the ends of all streams */
    ERROR_SIZE = 512,
};

enum role { ROLE_PORT = 1, ROLE_SIGNALS, ROLE_POWER, ROLE_STREAMS, ROLE_IN, ROLE_OUT1, ROLE_OUT2 };

/* What stops a stream's descriptor from being watched is lack of credit or of data. */
struct inlet {
    int fd; /* -1: closed; what comes is dropped, and its credit given back */
    uint8_t *waiting;
    uint32_t head, size;
    uint32_t due; /* credit to give back */
    bool ending, watched;
};

struct outlet {
    int fd;
    uint32_t credit;
    bool watched;
};

struct stream {
    uint32_t id; /* 0: free */
    uint32_t generation;
    bool socket, datagram, connecting, pty;
    bool exited, cancelled;
    pid_t pid; /* also its session and group; stays after it exited */
    uint64_t started;
    struct inlet in;
    struct outlet out[2];
};

struct agent {
    int epoll, streams_epoll, signals, power, null;
    bool init;        /* process 1 */
    bool once;        /* the port does not come back: end with it */
    int init_status;  /* of /etc/pyvirt/init */
    bool frozen;
    uint64_t window;  /* what the host grants each channel */
    struct stream streams[MAX_STREAMS];
};

extern struct agent agent;

/* session.c */
void session_open(int fd);
void session_reset(void);
bool session_turn(uint32_t events);
bool session_busy(void);
bool session_congested(void);
uint8_t *session_reserve(size_t size);
void session_emit(uint32_t stream, enum pv_kind kind, uint8_t channel, size_t size);
void session_send(uint32_t stream, enum pv_kind kind, uint8_t channel, const void *data,
                  size_t size);
void session_fail(uint32_t stream, int error, const char *what);
void session_flush(int milliseconds);

/* stream.c */
struct stream *stream_find(uint32_t id);
struct stream *stream_new(uint32_t id);
void stream_open(struct stream *s, int in, int out1, int out2);
void stream_connected(struct stream *s);
uint64_t stream_token(const struct stream *s, enum role role);
void stream_event(uint64_t token, uint32_t events);
void stream_data(struct stream *s, const uint8_t *data, size_t size);
void stream_eof(struct stream *s);
void stream_credit(struct stream *s, unsigned channel, uint32_t credit);
void stream_signal(struct stream *s, int number);
void stream_resize(struct stream *s, uint16_t rows, uint16_t columns);
void stream_cancel(struct stream *s);
void stream_free(struct stream *s);
void streams_reap(void);
void streams_drop(void);
void watch(int epoll, int fd, uint32_t events, uint64_t token);

/* users.c */
enum { MAX_GROUPS = 64 };

struct user {
    uid_t uid;
    gid_t gid, groups[MAX_GROUPS];
    int groups_count;
    char name[64], home[PATH_MAX], shell[PATH_MAX];
};

/* By name or number, with all groups. */
bool user_find(const char *who, struct user *user);

/* exec.c */
struct request {
    const uint8_t *fields;
    size_t size;
};
void exec_request(uint32_t id, const struct request *request);
pid_t exec_detached(char *const argv[]);
void exec_applet_detached(const char *name);

/* connect.c */
void connect_request(uint32_t id, const struct request *request);
void connect_done(struct stream *s);

/* applets.c; an applet writes its result and returns an exit code */
typedef int applet(char **args);
applet *applet_find(const char *name);
int applet_fail(int error, const char *what);
void applet_number(enum pv_tag tag, uint64_t number);
int applet_get(char **args);
int applet_put(char **args);
int applet_pack(char **args);
int applet_unpack(char **args);
int applet_info(char **args);
int applet_listening(char **args);
int applet_freeze(char **args);
int applet_thaw(char **args);
int applet_settime(char **args);
bool write_whole(int fd, const void *data, size_t size);
ssize_t read_whole(int fd, void *data, size_t size);

/* init.c */
void init_begin(void);
void init_script(void);
int init_power_socket(void);
bool init_power_pressed(int fd);
int shutdown_check(const char *mode);
int shutdown_begin(const char *mode);
void shutdown_now(const char *mode);

/* main.c */
void signals_handle(void);
void power_handle(void);

/* port.c */
int port_wait(const char *name);

uint64_t monotonic(void);

#endif
