/* freeze and thaw: every file system that lies on a block device, for a consistent snapshot. */
#include "agent.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOUNTS = 256, NAME = 512 };

static struct mount {
    unsigned major, minor;
    char directory[NAME];
} mounts[MOUNTS];
static int count;

static bool known(const struct mount *m)
{
    for (int i = 0; i < count; i++)
        if (mounts[i].major == m->major && mounts[i].minor == m->minor)
            return true;
    return false;
}

/* The kernel writes space, tab, newline and backslash as three octal digits. */
static void unescape(char *text)
{
    char *out = text;

    for (unsigned code; *text; out++)
        if (text[0] == '\\' && sscanf(text + 1, "%3o", &code) == 1) {
            *out = (char)code;
            text += 4;
        } else
            *out = *text++;
    *out = 0;
}

/* Major 0 has no device behind it, except for btrfs, which hides its own. */
static void parse(char *line)
{
    struct mount m;
    char type[32];
    const char *behind = strstr(line, " - ");

    if (count == MOUNTS || behind == NULL || sscanf(behind, " - %31s", type) != 1)
        return;
    if (sscanf(line, "%*d %*d %u:%u %*s %511s", &m.major, &m.minor, m.directory) != 3)
        return;
    if ((m.major == 0 && strcmp(type, "btrfs") != 0) || known(&m))
        return;
    unescape(m.directory);
    mounts[count++] = m;
}

static bool read_mounts(void)
{
    static char line[8192];
    FILE *file = fopen("/proc/self/mountinfo", "re");

    if (file == NULL)
        return false;
    while (fgets(line, sizeof line, file) != NULL)
        parse(line);
    fclose(file);
    return true;
}

/* 1 when it was done, 0 when there was nothing to do, -1 when it failed. */
static int act(const struct mount *m, unsigned long request)
{
    const int fd = open(m->directory, O_RDONLY | O_DIRECTORY);
    int result = 0;

    if (fd >= 0 && ioctl(fd, request, 0) == 0)
        result = 1;
    else if (fd < 0 ? errno != ENOTDIR
                    : errno != EOPNOTSUPP && errno != ENOTTY && errno != EBUSY && errno != EINVAL)
        result = -1;
    const int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return result;
}

static int thaw_all(void)
{
    int thawed = 0;

    for (int i = 0; i < count; i++)
        thawed += act(&mounts[i], FITHAW) > 0;
    return thawed;
}

/* Latest mount first, so that a file system in a file is frozen before what holds the file. */
int applet_freeze(char **args)
{
    int frozen = 0;

    (void)args;
    if (!read_mounts())
        return applet_fail(errno, "/proc/self/mountinfo");
    for (int i = count; i-- > 0;) {
        const int result = act(&mounts[i], FIFREEZE);
        if (result < 0) {
            const int error = errno;
            thaw_all();
            return applet_fail(error, mounts[i].directory);
        }
        frozen += result;
    }
    applet_number(PV_TAG_COUNT, (uint64_t)frozen);
    return 0;
}

int applet_thaw(char **args)
{
    (void)args;
    if (!read_mounts())
        return applet_fail(errno, "/proc/self/mountinfo");
    applet_number(PV_TAG_COUNT, (uint64_t)thaw_all());
    return 0;
}
