/* info: what the guest knows of itself, as fields on channel 1. */
#include "agent.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <mntent.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <utmpx.h>

static uint64_t nanoseconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t monotonic(void)
{
    return nanoseconds(CLOCK_MONOTONIC);
}

static void add_system(pv_fields *fields)
{
    struct utsname uts;
    char text[8192];

    uname(&uts);
    pv_fields_text(fields, PV_TAG_HOSTNAME, uts.nodename);
    pv_fields_text(fields, PV_TAG_KERNEL, uts.release);
    pv_fields_text(fields, PV_TAG_MACHINE, uts.machine);
    pv_fields_number(fields, PV_TAG_UPTIME, nanoseconds(CLOCK_BOOTTIME));
    pv_fields_number(fields, PV_TAG_TIME, nanoseconds(CLOCK_REALTIME));
    const int fd = open("/etc/os-release", O_RDONLY | O_CLOEXEC);
    const ssize_t size = fd < 0 ? 0 : read_whole(fd, text, sizeof text);
    if (size > 0)
        pv_fields_bytes(fields, PV_TAG_OS_RELEASE, text, (size_t)size);
    if (fd >= 0)
        close(fd);
}

static void add_mac(pv_fields *fields, const struct sockaddr_ll *link)
{
    char text[18];
    const unsigned char *m = link->sll_addr;

    snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4],
             m[5]);
    pv_fields_text(fields, PV_TAG_MAC, text);
}

static int prefix(const uint8_t *mask, size_t size)
{
    int bits = 0;

    for (size_t i = 0; i < size; i++)
        bits += __builtin_popcount(mask[i]);
    return bits;
}

static void add_address(pv_fields *fields, const struct ifaddrs *a)
{
    char text[INET6_ADDRSTRLEN], whole[INET6_ADDRSTRLEN + 12];
    const bool four = a->ifa_addr->sa_family == AF_INET;
    const size_t at = four ? offsetof(struct sockaddr_in, sin_addr)
                           : offsetof(struct sockaddr_in6, sin6_addr);
    const uint8_t *address = (const uint8_t *)a->ifa_addr + at;
    const uint8_t *mask = (const uint8_t *)a->ifa_netmask + at;

    if (a->ifa_netmask == NULL || !inet_ntop(four ? AF_INET : AF_INET6, address, text, sizeof text))
        return;
    snprintf(whole, sizeof whole, "%s/%d", text, prefix(mask, four ? 4 : 16));
    pv_fields_text(fields, PV_TAG_ADDRESS, whole);
}

/* Every interface has one AF_PACKET entry; its addresses are entries of the same name. */
static void add_interface(pv_fields *fields, const struct ifaddrs *all, const struct ifaddrs *link)
{
    const size_t begun = pv_fields_begin(fields, PV_TAG_INTERFACE);

    pv_fields_text(fields, PV_TAG_NAME, link->ifa_name);
    add_mac(fields, (const struct sockaddr_ll *)link->ifa_addr);
    for (const struct ifaddrs *a = all; a != NULL; a = a->ifa_next)
        if (a->ifa_addr != NULL && !strcmp(a->ifa_name, link->ifa_name) &&
            (a->ifa_addr->sa_family == AF_INET || a->ifa_addr->sa_family == AF_INET6))
            add_address(fields, a);
    pv_fields_end(fields, begun);
}

static void add_interfaces(pv_fields *fields)
{
    struct ifaddrs *all;

    if (getifaddrs(&all) < 0)
        return;
    for (const struct ifaddrs *a = all; a != NULL; a = a->ifa_next)
        if (a->ifa_addr != NULL && a->ifa_addr->sa_family == AF_PACKET)
            add_interface(fields, all, a);
    freeifaddrs(all);
}

/* Sizes only of what lies on a device or is the root: a network's may wait for ever. */
static void add_filesystem(pv_fields *fields, const struct mntent *mount)
{
    struct statvfs info;
    const bool local = mount->mnt_fsname[0] == '/' || !strcmp(mount->mnt_dir, "/") ||
                       !strcmp(mount->mnt_type, "tmpfs");
    const size_t begun = pv_fields_begin(fields, PV_TAG_FILESYSTEM);

    pv_fields_text(fields, PV_TAG_NAME, mount->mnt_dir);
    pv_fields_text(fields, PV_TAG_TYPE, mount->mnt_type);
    pv_fields_text(fields, PV_TAG_DEVICE, mount->mnt_fsname);
    if (local && statvfs(mount->mnt_dir, &info) == 0) {
        pv_fields_number(fields, PV_TAG_TOTAL, info.f_blocks * info.f_frsize);
        pv_fields_number(fields, PV_TAG_USED, (info.f_blocks - info.f_bfree) * info.f_frsize);
    }
    pv_fields_end(fields, begun);
}

static void add_filesystems(pv_fields *fields)
{
    FILE *mounts = setmntent("/proc/self/mounts", "re");

    if (mounts == NULL)
        return;
    for (struct mntent *mount; (mount = getmntent(mounts)) != NULL;)
        add_filesystem(fields, mount);
    endmntent(mounts);
}

static void add_logins(pv_fields *fields)
{
    char name[sizeof((struct utmpx *)0)->ut_user + 1];

    setutxent();
    for (struct utmpx *login; (login = getutxent()) != NULL;) {
        if (login->ut_type != USER_PROCESS)
            continue;
        const size_t begun = pv_fields_begin(fields, PV_TAG_LOGIN);
        snprintf(name, sizeof name, "%.*s", (int)sizeof login->ut_user, login->ut_user);
        pv_fields_text(fields, PV_TAG_NAME, name);
        pv_fields_number(fields, PV_TAG_TIME, (uint64_t)login->ut_tv.tv_sec * 1000000000);
        pv_fields_end(fields, begun);
    }
    endutxent();
}

int applet_info(char **args)
{
    static uint8_t data[PV_FRAME_PAYLOAD];
    pv_fields fields = {data, sizeof data, 0, false};

    (void)args;
    add_system(&fields);
    add_interfaces(&fields);
    add_filesystems(&fields);
    add_logins(&fields);
    return write_whole(1, data, fields.size) ? 0 : applet_fail(errno, "info");
}
