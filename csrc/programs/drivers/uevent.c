/* The kernel's messages: "ACTION@DEVPATH" NUL "KEY=VALUE" NUL ... */
#include "drivers.h"

#include <dirent.h>
#include <errno.h>
#include <linux/netlink.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MESSAGE_SIZE = 8192, QUEUE_SIZE = 4 << 20 };

#define QEMU_GA "/usr/sbin/qemu-ga"
#define QEMU_GA_PORT "org.qemu.guest_agent.0"

int uevent_open(void)
{
    const int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK, .nl_groups = 1};
    const int size = QUEUE_SIZE;

    if (fd < 0 || bind(fd, (const struct sockaddr *)&kernel, sizeof kernel) < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    return fd;
}

static const char *value(const char *message, size_t size, const char *key)
{
    const size_t length = strlen(key);

    for (const char *at = message; at < message + size; at += strlen(at) + 1)
        if (strncmp(at, key, length) == 0 && at[length] == '=')
            return at + length + 1;
    return "";
}

static void bring_online(const char *devpath)
{
    char path[PATH_SIZE];

    snprintf(path, sizeof path, "/sys%s/online", devpath);
    if (file_write(path, "1") < 0 && errno != ENOENT)
        complain("bring online", devpath, errno);
}

/* A port gets its name after it came: then it is linked as udev would link it. */
static void name_port(const char *devpath)
{
    char path[PATH_SIZE], link[PATH_SIZE], target[PATH_SIZE];

    snprintf(path, sizeof path, "/sys%s/name", devpath);
    char *name = file_read(path);
    if (!name)
        return;
    name[strcspn(name, "\n")] = '\0';
    snprintf(link, sizeof link, "/dev/virtio-ports/%s", name);
    snprintf(target, sizeof target, "../%s", strrchr(devpath, '/') + 1);
    mkdir("/dev/virtio-ports", 0755);
    if (*name && !strchr(name, '/') && symlink(target, link) == 0
        && strcmp(name, QEMU_GA_PORT) == 0 && access(QEMU_GA, X_OK) == 0) {
        char *const argv[] = {QEMU_GA, "-m", "virtio-serial", "-p", link, NULL};
        char *const environ[] = {"PATH=/usr/sbin:/usr/bin", NULL};
        pid_t child;
        const int error = posix_spawn(&child, argv[0], NULL, NULL, argv, environ);
        if (error)
            complain("start", QEMU_GA, error);
    }
    free(name);
}

static void device_changed(const char *action, const char *subsystem, const char *devpath)
{
    if (strcmp(subsystem, "virtio-ports") == 0 && strcmp(action, "remove") != 0)
        name_port(devpath);
}

static void device_came(const char *subsystem, const char *devpath, const char *message,
                        size_t size)
{
    const char *alias = value(message, size, "MODALIAS");

    if (strcmp(subsystem, "cpu") == 0)
        bring_online(devpath);
    else if (*alias)
        modules_match(alias);
    else if (strcmp(subsystem, "net") == 0)
        network_up(value(message, size, "INTERFACE"));
}

static void handle(const char *message, size_t size)
{
    const char *action = value(message, size, "ACTION");
    const char *subsystem = value(message, size, "SUBSYSTEM");
    const char *devpath = value(message, size, "DEVPATH");

    if (strcmp(action, "add") == 0)
        device_came(subsystem, devpath, message, size);
    device_changed(action, subsystem, devpath);
}

void uevent_drain(int fd)
{
    char message[MESSAGE_SIZE + 1];

    for (;;) {
        const ssize_t size = recv(fd, message, MESSAGE_SIZE, MSG_DONTWAIT);
        if (size > 0) {
            message[size] = '\0';
            handle(message, (size_t)size);
        } else if (size < 0 && errno == ENOBUFS) {
            uevent_walk(); /* some messages were lost, but not what they were about */
        } else if (size == 0 || errno != EINTR) {
            return;
        }
    }
}

static void match_device(const char *bus, const char *name)
{
    char folder[PATH_SIZE], file[PATH_SIZE + 16];

    snprintf(folder, sizeof folder, "%.200s/%.255s", bus, name);
    snprintf(file, sizeof file, "%s/modalias", folder);
    char *alias = file_read(file);
    if (!alias)
        return;
    alias[strcspn(alias, "\n")] = '\0';
    if (!ahci_is_empty(folder, alias))
        modules_match(alias);
    free(alias);
}

static void walk_bus(const char *bus)
{
    char path[PATH_SIZE];

    snprintf(path, sizeof path, "/sys/bus/%s/devices", bus);
    DIR *devices = opendir(path);
    for (struct dirent *device; devices && (device = readdir(devices));) {
        if (device->d_name[0] != '.')
            match_device(path, device->d_name);
    }
    if (devices)
        closedir(devices);
}

void uevent_walk(void)
{
    DIR *buses = opendir("/sys/bus");

    for (struct dirent *bus; buses && (bus = readdir(buses));)
        if (bus->d_name[0] != '.')
            walk_bus(bus->d_name);
    if (buses)
        closedir(buses);
}
