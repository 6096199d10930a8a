/* get PATH and put PATH MODE: one file, between the host and the guest's file system. */
#include "agent.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STEP = 1 << 20 };

/* The kernel moves the pages itself where it can; -1 with EINVAL where it cannot. */
static ssize_t move_pages(int from, int to, bool to_pipe)
{
    return to_pipe ? sendfile(to, from, NULL, STEP)
                   : splice(from, NULL, to, NULL, STEP, SPLICE_F_MOVE);
}

static int copy(int from, int to, bool to_pipe)
{
    static char buffer[256 << 10];
    ssize_t n;

    while ((n = move_pages(from, to, to_pipe)) > 0)
        ;
    if (n == 0)
        return 0;
    if (errno != EINVAL)
        return errno;
    while ((n = read(from, buffer, sizeof buffer)) > 0)
        if (!write_whole(to, buffer, (size_t)n))
            return errno;
    return n < 0 ? errno : 0;
}

int applet_get(char **args)
{
    struct stat info;

    if (args[0] == NULL)
        return applet_fail(EINVAL, "get");
    const int fd = open(args[0], O_RDONLY | O_NONBLOCK); /* a pipe without a writer must not wait */
    if (fd < 0 || fstat(fd, &info) < 0)
        return applet_fail(errno, args[0]);
    if (S_ISDIR(info.st_mode))
        return applet_fail(EISDIR, args[0]);
    fcntl(fd, F_SETFL, 0);
    applet_number(PV_TAG_SIZE, S_ISREG(info.st_mode) ? (uint64_t)info.st_size : 0);
    const int error = copy(fd, 1, true);
    return error == 0 ? 0 : applet_fail(error, args[0]);
}

/* --- put: a new file takes the old one's place when it is whole --- */

struct target {
    char path[PATH_MAX]; /* behind symbolic links, which stay */
    char temporary[PATH_MAX + 32];
    struct stat old;
    bool exists, nameless;
};

/* One step on the way to a file that is not there yet: its real parent, and its name in that.
 * A link that leads to nowhere is followed, as a shell's redirection would. */
static int approach(struct target *t, char path[PATH_MAX])
{
    char copy[PATH_MAX], parent[PATH_MAX], link[PATH_MAX];

    if (path[0] == 0 || path[strlen(path) - 1] == '/')
        return EISDIR;
    strcpy(copy, path); /* dirname() and basename() write into what they are given */
    if (realpath(dirname(copy), parent) == NULL)
        return errno;
    strcpy(copy, path);
    if (snprintf(t->path, PATH_MAX, "%s/%s", parent, basename(copy)) >= PATH_MAX)
        return ENAMETOOLONG;
    const ssize_t size = readlink(t->path, link, sizeof link - 1);
    if (size < 0)
        return 0;
    link[size] = 0;
    if (snprintf(path, PATH_MAX, "%s%s%s", *link == '/' ? "" : parent, *link == '/' ? "" : "/",
                 link) >= PATH_MAX)
        return ENAMETOOLONG;
    return EAGAIN;
}

static int resolve(struct target *t, const char *path)
{
    char at[PATH_MAX];
    int error = EAGAIN;

    if (snprintf(at, sizeof at, "%s", path) >= (int)sizeof at)
        return ENAMETOOLONG;
    for (int links = 0; error == EAGAIN && links < 40; links++) {
        t->exists = realpath(at, t->path) != NULL;
        if (t->exists)
            return stat(t->path, &t->old) < 0 ? errno : S_ISDIR(t->old.st_mode) ? EISDIR : 0;
        error = errno == ENOENT ? approach(t, at) : errno;
    }
    return error == EAGAIN ? ELOOP : error;
}

/* A file without a name is gone by itself when we are killed; not every file system has them. */
static int open_new(struct target *t)
{
    char directory[PATH_MAX];

    strcpy(directory, t->path);
    snprintf(t->temporary, sizeof t->temporary, "%s.pyvirt-%d", t->path, (int)getpid());
    const int fd = open(dirname(directory), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    t->nameless = fd >= 0;
    return t->nameless ? fd : open(t->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

static int finish(const struct target *t, int fd, mode_t mode)
{
    char link[64];

    if (t->exists && fchown(fd, t->old.st_uid, t->old.st_gid) < 0)
        return errno;
    if (fchmod(fd, mode) < 0)
        return errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (t->nameless &&
        linkat(AT_FDCWD, link, AT_FDCWD, t->temporary, AT_SYMLINK_FOLLOW) < 0)
        return errno;
    return close(fd) < 0 || rename(t->temporary, t->path) < 0 ? errno : 0;
}

/* A device or a pipe is written to, not replaced. */
static int put_into(const char *path)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    const int error = fd < 0 ? errno : copy(0, fd, false);

    return error == 0 && close(fd) < 0 ? errno : error;
}

static int put_new(struct target *t, mode_t mode)
{
    const int fd = open_new(t);

    if (fd < 0)
        return errno;
    int error = copy(0, fd, false);
    if (error == 0)
        error = finish(t, fd, mode);
    if (error != 0)
        unlink(t->temporary);
    return error;
}

int applet_put(char **args)
{
    static struct target t;

    if (args[0] == NULL || args[0][0] == 0 || args[1] == NULL)
        return applet_fail(EINVAL, "put");
    int error = resolve(&t, args[0]);
    if (error == 0)
        error = t.exists && !S_ISREG(t.old.st_mode)
            ? put_into(t.path)
            : put_new(&t, (mode_t)strtoul(args[1], NULL, 8) & 07777);
    return error == 0 ? 0 : applet_fail(error, args[0]);
}
