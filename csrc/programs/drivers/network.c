/* The host knows the addresses of its user network, and says so on the kernel's command line:
 *
 *     pyvirt.ip=52:54:00:12:34:56,10.0.2.15/24,10.0.2.2,10.0.2.3
 *
 * (MAC or "*", address, gateway, name server; the last two may be empty). Every other
 * interface asks by DHCP, in the background. */
#include "drivers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    char mac[20];
    struct in_addr address, mask, gateway;
    char server[INET_ADDRSTRLEN];
} setting;

static void up(int fd, const char *interface)
{
    struct ifreq request = {0};

    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
    if (ioctl(fd, SIOCGIFFLAGS, &request) == 0) {
        request.ifr_flags |= IFF_UP;
        if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
            complain("bring up", interface, errno);
    }
}

static struct sockaddr inet(struct in_addr address)
{
    const struct sockaddr_in full = {.sin_family = AF_INET, .sin_addr = address};
    struct sockaddr general;

    memcpy(&general, &full, sizeof general);
    return general;
}

/* One "MAC,ADDRESS/PREFIX,GATEWAY,SERVER", which ends at a space; whether it is whole. */
static bool parse(const char *text, setting *out)
{
    char word[128], *rest = word;
    const size_t size = strcspn(text, " \n");

    if (size >= sizeof word)
        return false;
    memcpy(word, text, size);
    word[size] = '\0';
    const char *mac = strsep(&rest, ",");
    char *address = strsep(&rest, ",");
    const char *gateway = strsep(&rest, ","), *server = strsep(&rest, ",");
    const char *slash = address ? strchr(address, '/') : NULL;
    if (!slash)
        return false;
    const unsigned long prefix = strtoul(slash + 1, NULL, 10);
    address[slash - address] = '\0';
    memset(out, 0, sizeof *out);
    snprintf(out->mac, sizeof out->mac, "%s", mac);
    snprintf(out->server, sizeof out->server, "%s", server ? server : "");
    out->mask.s_addr = prefix ? htonl(~0u << (32 - (prefix > 32 ? 32 : prefix))) : 0;
    if (gateway && *gateway && !inet_aton(gateway, &out->gateway))
        return false;
    return inet_aton(address, &out->address);
}

static bool find(const char *mac, setting *out)
{
    char *line = file_read("/proc/cmdline");
    bool found = false;

    for (const char *at = line; at && !found && (at = word_after(at, "pyvirt.ip")); at++)
        found = parse(at, out) && (!strcasecmp(out->mac, mac) || !strcmp(out->mac, "*"));
    free(line);
    return found;
}

static void set_address(int fd, const char *interface, const setting *wanted)
{
    struct ifreq request = {0};
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};

    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
    request.ifr_addr = inet(wanted->address);
    if (ioctl(fd, SIOCSIFADDR, &request) < 0)
        complain("set the address of", interface, errno);
    request.ifr_netmask = inet(wanted->mask);
    ioctl(fd, SIOCSIFNETMASK, &request);
    up(fd, interface);
    route.rt_dst = route.rt_genmask = inet((struct in_addr){0});
    route.rt_gateway = inet(wanted->gateway);
    if (wanted->gateway.s_addr && ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST)
        complain("route by", interface, errno);
}

static void set_server(const char *server)
{
    FILE *file = *server ? fopen("/etc/resolv.conf", "we") : NULL;

    if (!file)
        return;
    fprintf(file, "nameserver %s\n", server);
    fclose(file);
}

static void ask(const char *interface)
{
    char *const argv[] = {"udhcpc", "-b", "-S", "-t", "3", "-A", "5", "-i", (char *)interface,
                          "-s", "/etc/pyvirt/dhcp", NULL};
    char *const environ[] = {"PATH=/usr/sbin:/usr/bin", NULL};
    pid_t child;
    posix_spawn_file_actions_t quiet;

    posix_spawn_file_actions_init(&quiet);
    for (int fd = 0; fd < 3; fd++)
        posix_spawn_file_actions_addopen(&quiet, fd, "/dev/null", 2, 0);
    const int error = posix_spawn(&child, "/usr/bin/busybox", &quiet, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&quiet);
    if (error)
        complain("ask for the address of", interface, error);
}

void network_up(const char *interface)
{
    char path[PATH_SIZE];
    setting wanted;

    if (strcmp(interface, "lo") == 0)
        return;
    snprintf(path, sizeof path, "/sys/class/net/%s/address", interface);
    char *mac = file_read(path);
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (mac)
        mac[strcspn(mac, "\n")] = '\0';
    if (mac && find(mac, &wanted)) {
        set_address(fd, interface, &wanted);
        set_server(wanted.server);
    } else if (mac) {
        up(fd, interface);
        ask(interface);
    }
    free(mac);
    close(fd);
}
