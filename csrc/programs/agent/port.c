/* Finding the virtio-serial port by the name that the host gave it. */
#include "agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool has_name(const char *port, const char *name)
{
    char path[300], text[128] = "";

    snprintf(path, sizeof path, "/sys/class/virtio-ports/%.200s/name", port);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    const ssize_t size = read_whole(fd, text, sizeof text - 1);
    close(fd);
    text[size < 0 ? 0 : strcspn(text, "\n")] = 0;
    return !strcmp(text, name);
}

static int open_port(const char *name)
{
    char path[300];
    int fd = -1;
    DIR *ports = opendir("/sys/class/virtio-ports");

    if (ports == NULL)
        return -1;
    for (struct dirent *entry; fd < 0 && (entry = readdir(ports)) != NULL;) {
        if (entry->d_name[0] == '.' || !has_name(entry->d_name, name))
            continue;
        snprintf(path, sizeof path, "/dev/%.200s", entry->d_name);
        fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    }
    closedir(ports);
    return fd;
}

/* The kernel's announcements of new devices. */
static int open_uevents(void)
{
    const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    const int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
                          NETLINK_KOBJECT_UEVENT);

    if (fd >= 0)
        bind(fd, (const struct sockaddr *)&address, sizeof address);
    return fd;
}

/* Process 1 has duties while it waits. A second is for a port whose name comes after it. */
int port_wait(const char *name)
{
    char event[4096];
    int port;
    struct pollfd wait[] = {
        {open_uevents(), POLLIN, 0},
        {agent.signals, POLLIN, 0},
        {agent.power, POLLIN, 0},
    };

    while ((port = open_port(name)) < 0) {
        poll(wait, sizeof wait / sizeof *wait, 1000);
        while (recv(wait[0].fd, event, sizeof event, 0) > 0)
            ;
        if (wait[1].revents & POLLIN)
            signals_handle();
        if (wait[2].revents & POLLIN)
            power_handle();
    }
    if (wait[0].fd >= 0)
        close(wait[0].fd);
    return port;
}
