/* pyvirt's agent.
 *
 *   agent                   serve the virtio-serial port named org.pyvirt.agent.0
 *   agent --port PATH       serve this character device
 *   agent --fd N            serve this descriptor, and end with it
 *
 * As process 1 it also is the guest's init: see init.c. */
#include "agent.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PORT "org.pyvirt.agent.0"

enum { BATCH = 64 };

struct agent agent;

/* What the signals of a classic init mean, so that busybox's and sysvinit's tools work. */
static const char *meaning(int signal)
{
    switch (signal) {
    case SIGUSR1:
        return "halt";
    case SIGUSR2:
    case SIGPWR:
        return "powerdown";
    case SIGINT:
    case SIGTERM:
        return "reboot";
    default:
        return NULL;
    }
}

void signals_handle(void)
{
    struct signalfd_siginfo info;

    while (read(agent.signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            streams_reap();
        else if (agent.init)
            shutdown_now(meaning((int)info.ssi_signo));
        else {
            session_reset();
            exit(0);
        }
    }
}

void power_handle(void)
{
    if (init_power_pressed(agent.power))
        shutdown_now("powerdown");
}

static void open_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    for (int i = 0; agent.init && i < 3; i++)
        sigaddset(&set, (const int[]){SIGPWR, SIGUSR1, SIGUSR2}[i]);
    agent.signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    /* Writing to a closed pipe is an error code, never a death. */
    sigaddset(&set, SIGPIPE);
    sigprocmask(SIG_SETMASK, &set, NULL);
}

static void begin(void)
{
    agent.init = getpid() == 1;
    agent.power = -1;
    if (agent.init)
        init_begin();
    do
        agent.null = open("/dev/null", O_RDWR);
    while (agent.null >= 0 && agent.null < 3);
    agent.null = fcntl(agent.null, F_DUPFD_CLOEXEC, 3);
    open_signals();
    agent.epoll = epoll_create1(EPOLL_CLOEXEC);
    agent.streams_epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(agent.epoll, agent.signals, EPOLLIN, ROLE_SIGNALS);
    if (!agent.init)
        return;
    init_script();
    agent.power = init_power_socket();
    if (agent.power >= 0)
        watch(agent.epoll, agent.power, EPOLLIN, ROLE_POWER);
}

static void stream_events(void)
{
    struct epoll_event events[BATCH];
    const int count = epoll_wait(agent.streams_epoll, events, BATCH, 0);

    for (int i = 0; i < count && !session_congested(); i++)
        stream_event(events[i].data.u64, events[i].events);
}

/* While the port takes nothing, nothing is taken from streams either. */
static void watch_streams(bool wanted)
{
    static bool watched;

    if (watched != wanted) {
        if (wanted)
            watch(agent.epoll, agent.streams_epoll, EPOLLIN, ROLE_STREAMS);
        else
            epoll_ctl(agent.epoll, EPOLL_CTL_DEL, agent.streams_epoll, NULL);
    }
    watched = wanted;
}

static void other_event(uint64_t role)
{
    if (role == ROLE_SIGNALS)
        signals_handle();
    else if (role == ROLE_STREAMS)
        stream_events();
    else if (role == ROLE_POWER)
        power_handle();
}

/* Until the port is gone. */
static void serve(void)
{
    struct epoll_event events[4];
    uint32_t port_events = 0;

    while (session_turn(port_events)) {
        port_events = 0;
        watch_streams(!session_congested());
        const int count = epoll_wait(agent.epoll, events, 4, session_busy() ? 0 : -1);
        for (int i = 0; i < count; i++)
            if (events[i].data.u64 == ROLE_PORT)
                port_events = events[i].events;
            else
                other_event(events[i].data.u64);
    }
    session_reset();
}

static int usage(void)
{
    fputs("usage: agent [--port PATH | --fd N]\n", stderr);
    return 2;
}

static int open_port(const char *path)
{
    const int fd = path ? open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY) : port_wait(PORT);

    if (fd < 0)
        perror(path);
    return fd;
}

static int serve_ports(const char *path)
{
    for (int fd; (fd = open_port(path)) >= 0; close(fd)) {
        session_open(fd);
        serve();
    }
    return 1;
}

/* Who enters a container is handed whatever its host had open: nothing in there may see that. */
static void close_others(unsigned fd)
{
    if (fd > 3)
        syscall(SYS_close_range, 3u, fd - 1, 0);
    syscall(SYS_close_range, (fd < 3 ? 3 : fd + 1), ~0u, 0);
}

static int serve_fd(const char *text)
{
    char *end;
    const int fd = (int)strtol(text, &end, 10);

    if (*end || fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return usage();
    agent.once = true;
    session_open(fd);
    serve();
    return 0;
}

int main(int argc, char **argv)
{
    /* The kernel hands process 1 whatever words of its command line it did not know. */
    const bool plain = argc == 1 || getpid() == 1;

    if (!plain && argc != 3)
        return usage();
    if (!plain && !strcmp(argv[1], "--fd"))
        close_others((unsigned)atoi(argv[2]));
    begin();
    if (plain)
        return serve_ports(NULL);
    if (!strcmp(argv[1], "--port"))
        return serve_ports(argv[2]);
    return !strcmp(argv[1], "--fd") ? serve_fd(argv[2]) : usage();
}
