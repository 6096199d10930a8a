/* The duties of process 1: mounts, the power button, and the end of the guest. */
#include "agent.h"

#include <fcntl.h>
#include <linux/genetlink.h>
#include <mntent.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SCRIPT "/etc/pyvirt/init"

/* --- the beginning --- */

static void mount_one(const char *type, const char *path, unsigned long flags,
                      const char *options)
{
    mkdir(path, 0755);
    if (mount(type, path, type, flags, options) < 0 && errno != EBUSY)
        dprintf(2, "pyvirt agent: mounting %s: %s\n", path, strerror(errno));
}

static void mount_all(void)
{
    const unsigned long safe = MS_NOSUID | MS_NODEV;

    mount_one("proc", "/proc", safe | MS_NOEXEC, NULL);
    mount_one("sysfs", "/sys", safe | MS_NOEXEC, NULL);
    mount_one("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
    mount_one("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666");
    mount_one("tmpfs", "/dev/shm", safe, "mode=1777");
    mount_one("tmpfs", "/tmp", safe, "mode=1777");
    mount_one("tmpfs", "/run", safe, "mode=0755");
}

/* What shells expect of /dev, and devtmpfs does not make. */
static void link_descriptors(void)
{
    static const char *const links[][2] = {
        {"/proc/self/fd", "/dev/fd"},
        {"/proc/self/fd/0", "/dev/stdin"},
        {"/proc/self/fd/1", "/dev/stdout"},
        {"/proc/self/fd/2", "/dev/stderr"},
    };

    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
            dprintf(2, "pyvirt agent: %s: %s\n", links[i][1], strerror(errno));
}

/* An initramfs without /dev/console starts process 1 without any descriptor. */
static void open_console(void)
{
    const int fd = open("/dev/console", O_RDWR | O_NOCTTY);

    for (int i = 0; fd >= 0 && i < 3; i++)
        if (fd != i)
            dup2(fd, i);
    if (fd > 2)
        close(fd);
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        dprintf(2, "pyvirt agent: loopback: %s\n", strerror(errno));
    if (fd >= 0)
        close(fd);
}

void init_begin(void)
{
    struct utsname uts;

    umask(022);
    mount_all();
    open_console();
    link_descriptors();
    raise_loopback();
    if (uname(&uts) == 0 && !strcmp(uts.nodename, "(none)"))
        sethostname("pyvirt", 6);
    reboot(RB_DISABLE_CAD); /* ctrl-alt-del becomes SIGINT to us */
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0);
    setenv("HOME", "/root", 1); /* the kernel says "/" */
}

/* The user's own beginning, on the console. It may take its time; its end is told to the host. */
void init_script(void)
{
    char *const argv[] = {SCRIPT, NULL};
    int status = 0;

    if (access(SCRIPT, X_OK) < 0)
        return;
    const pid_t pid = exec_detached(argv);
    if (pid < 0) {
        dprintf(2, "pyvirt agent: %s: %s\n", SCRIPT, strerror(errno));
        agent.init_status = 127 << 8;
        return;
    }
    for (pid_t gone; (gone = waitpid(-1, &status, 0)) != pid;)
        if (gone < 0 && errno != EINTR)
            return;
    agent.init_status = status;
    if (status != 0)
        dprintf(2, "pyvirt agent: %s ended with status %#x\n", SCRIPT, (unsigned)status);
}

/* --- the power button: the kernel's ACPI events come by generic netlink --- */

struct message {
    struct nlmsghdr head;
    struct genlmsghdr general;
    char data[4096];
};

static const struct nlattr *attribute(const char *data, size_t size, unsigned type)
{
    while (size >= NLA_HDRLEN) {
        const struct nlattr *a = (const struct nlattr *)data;
        const size_t step = NLA_ALIGN(a->nla_len);
        if (a->nla_len < NLA_HDRLEN || a->nla_len > size)
            return NULL;
        if ((a->nla_type & NLA_TYPE_MASK) == type)
            return a;
        if (step >= size)
            return NULL;
        data += step;
        size -= step;
    }
    return NULL;
}

static const struct nlattr *inside(const struct nlattr *a, unsigned type)
{
    return a == NULL ? NULL
                     : attribute((const char *)a + NLA_HDRLEN, a->nla_len - NLA_HDRLEN, type);
}

static bool ask_family(int fd)
{
    static const char family[] = "acpi_event";
    struct message m = {
        .head = {.nlmsg_type = GENL_ID_CTRL, .nlmsg_flags = NLM_F_REQUEST},
        .general = {.cmd = CTRL_CMD_GETFAMILY, .version = 1},
    };
    struct nlattr *a = (struct nlattr *)m.data;

    a->nla_type = CTRL_ATTR_FAMILY_NAME;
    a->nla_len = NLA_HDRLEN + sizeof family;
    memcpy(m.data + NLA_HDRLEN, family, sizeof family);
    m.head.nlmsg_len = (uint32_t)(NLMSG_HDRLEN + GENL_HDRLEN + NLA_ALIGN(a->nla_len));
    return send(fd, &m, m.head.nlmsg_len, 0) > 0;
}

static size_t receive(int fd, struct message *m)
{
    const ssize_t n = recv(fd, m, sizeof *m, MSG_DONTWAIT);
    const size_t heads = NLMSG_HDRLEN + GENL_HDRLEN;

    return n < (ssize_t)heads || m->head.nlmsg_type == NLMSG_ERROR ? 0 : (size_t)n - heads;
}

/* The family has one group, so the first of the list is the one. */
static uint32_t event_group(int fd)
{
    struct message m;
    const size_t size = ask_family(fd) ? receive(fd, &m) : 0;
    const struct nlattr *groups = attribute(m.data, size, CTRL_ATTR_MCAST_GROUPS);
    const struct nlattr *id = inside(inside(groups, 1), CTRL_ATTR_MCAST_GRP_ID);

    return id == NULL || id->nla_len < NLA_HDRLEN + 4
        ? 0 : pv_frame_u32((const uint8_t *)id + NLA_HDRLEN);
}

/* A socket that has something to read when an ACPI event came; -1 where there is no ACPI. */
int init_power_socket(void)
{
    const struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);

    if (fd < 0)
        return -1;
    bind(fd, (const struct sockaddr *)&address, sizeof address);
    const uint32_t group = event_group(fd);
    if (group != 0 &&
        setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) == 0)
        return fd;
    close(fd);
    return -1;
}

/* The event's only attribute begins with the device class: "button/power". */
bool init_power_pressed(int fd)
{
    static const char button[] = "button/power";
    struct message m;
    const size_t size = receive(fd, &m);
    const struct nlattr *event = attribute(m.data, size, 1);

    return event != NULL && event->nla_len >= NLA_HDRLEN + sizeof button &&
           !memcmp((const char *)event + NLA_HDRLEN, button, sizeof button);
}

/* --- the end --- */

static const struct {
    const char *name;
    int command;
    char *argv[2][4]; /* what an ordinary guest has for it, best first */
} modes[] = {
    {"powerdown", RB_POWER_OFF, {{"shutdown", "-P", "now", NULL}, {"poweroff", NULL}}},
    {"halt", RB_HALT_SYSTEM, {{"shutdown", "-H", "now", NULL}, {"halt", NULL}}},
    {"reboot", RB_AUTOBOOT, {{"shutdown", "-r", "now", NULL}, {"reboot", NULL}}},
};
enum { MODES = sizeof modes / sizeof *modes };

static int mode_index(const char *mode)
{
    for (int i = 0; i < MODES; i++)
        if (!strcmp(modes[i].name, mode))
            return i;
    return -1;
}

int shutdown_check(const char *mode)
{
    return mode_index(mode) < 0 ? EINVAL : 0;
}

/* Wait until all processes are gone: true, or *seconds* have passed. */
static bool all_gone(int seconds)
{
    const struct timespec step = {0, 10000000};

    for (int i = 0; i < seconds * 100; i++) {
        pid_t pid;
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
            ;
        if (pid < 0)
            return true;
        nanosleep(&step, NULL);
    }
    return false;
}

/* Latest first. What cannot be let go of is at least written and made read-only. */
static void unmount_all(void)
{
    enum { MOST = 256 };
    static char *paths[MOST];
    int count = 0;
    FILE *mounts = setmntent("/proc/mounts", "re");

    for (struct mntent *m; mounts && count < MOST && (m = getmntent(mounts)) != NULL;)
        if (m->mnt_fsname[0] == '/')
            paths[count++] = strdup(m->mnt_dir);
    if (mounts != NULL)
        endmntent(mounts);
    while (count-- > 0)
        if (paths[count] != NULL && umount2(paths[count], 0) < 0)
            mount(NULL, paths[count], NULL, MS_REMOUNT | MS_RDONLY, NULL);
}

/* Process 1 ends the guest itself, and never comes back. */
void shutdown_now(const char *mode)
{
    const int index = mode_index(mode);

    if (index < 0)
        return;
    if (kill(-1, SIGTERM) == 0 && !all_gone(2)) {
        kill(-1, SIGKILL);
        all_gone(2);
    }
    sync();
    unmount_all();
    reboot(modes[index].command);
}

/* Anybody else asks the guest's own init. */
int shutdown_begin(const char *mode)
{
    const int index = mode_index(mode);

    errno = EINVAL;
    for (int i = 0; index >= 0 && i < 2; i++)
        if (exec_detached(modes[index].argv[i]) > 0)
            return 0;
    return errno;
}
