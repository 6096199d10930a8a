/* keeper: remove what a dead process left behind.
 *
 * Reads "+PATH\0" (keep in mind), "@PATH\0" (a control group to end) and "-PATH\0"
 * (forget) from stdin. End of file means that every holder of the other end is gone,
 * killed or not: then all processes of the groups are killed, and all remaining trees are
 * removed. The owner sends nothing it does not own, but the trees' contents are not
 * trusted: symbolic links are removed, never followed, and nothing below a mount point is
 * touched. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_MESSAGE = 1 + 4096, MAX_DEPTH = 256 };

static int open_below(int parent, const char *name)
{
    const struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV | RESOLVE_BENEATH,
    };

    return (int)syscall(SYS_openat2, parent, name, &how, sizeof how);
}

/* One pass removes all: POSIX lets readdir() skip only what was added meanwhile. */
static void remove_below(int parent, const char *name, int depth)
{
    if (unlinkat(parent, name, 0) == 0 || errno != EISDIR || depth == 0)
        return;
    const int fd = open_below(parent, name);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        if (fd >= 0)
            close(fd);
        return;
    }
    fchmod(fd, S_IRWXU);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            remove_below(fd, entry->d_name, depth - 1);
    closedir(directory);
    unlinkat(parent, name, AT_REMOVEDIR);
}

static void kill_listed(int group)
{
    struct statfs where;
    /* Anybody can write a file of this name elsewhere. */
    if (fstatfs(group, &where) || (where.f_type != CGROUP_SUPER_MAGIC &&
                                   where.f_type != CGROUP2_SUPER_MAGIC))
        return;
    const int fd = openat(group, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    FILE *procs = fd < 0 ? NULL : fdopen(fd, "r");

    if (!procs)
        return;
    for (long pid; fscanf(procs, "%ld", &pid) == 1;)
        if (pid > 1)
            kill((pid_t)pid, SIGKILL);
    fclose(procs);
}

/* In cgroup v1 what is frozen does not even die. */
static void thaw(int group)
{
    const int fd = openat(group, "freezer.state", O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        if (write(fd, "THAWED", 6) < 0)
            errno = 0;
        close(fd);
    }
}

static void kill_below(int parent, const char *name, int depth)
{
    const int fd = open_below(parent, name);
    DIR *group = fd < 0 ? NULL : fdopendir(fd);

    if (!group)
        return;
    kill_listed(fd);
    thaw(fd);
    for (struct dirent *entry; depth > 0 && (entry = readdir(group));)
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
            kill_below(fd, entry->d_name, depth - 1);
    closedir(group);
}

/* Path is cut in two, because only its last part must not be a link or a mount. */
static void remove_tree(char *path)
{
    char *name = strrchr(path, '/');
    *name++ = '\0';
    const int parent = open(*path ? path : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (parent < 0 || !*name)
        return;
    /* Those who die with the owner may still be adding files: they get 5 s. */
    for (int i = 0; i < 50; i++) {
        remove_below(parent, name, MAX_DEPTH);
        if (faccessat(parent, name, F_OK, AT_SYMLINK_NOFOLLOW))
            break;
        /* Who should have cleaned up a control group, and hangs, has had its time. */
        if (i >= 20)
            kill_below(parent, name, MAX_DEPTH);
        usleep(100 * 1000);
    }
    close(parent);
}

/* Whoever made the group removes it when the last process in it has died; one that was
 * about to be made when the owner died gets the same 5 s to appear. */
static void kill_group(char *path)
{
    char *name = strrchr(path, '/');
    *name++ = '\0';
    const int parent = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool seen = false;

    for (int i = 0; parent >= 0 && *name && i < 250; i++) {
        const bool there = !faccessat(parent, name, F_OK, AT_SYMLINK_NOFOLLOW);
        if (seen && !there)
            break;
        seen = seen || there;
        kill_below(parent, name, MAX_DEPTH);
        usleep(20 * 1000);
    }
    if (parent >= 0)
        close(parent);
}

/* Memory is bounded by what the owner keeps at once. */
struct paths {
    char **items;
    size_t count, room;
};

static void remember(struct paths *paths, const char *path)
{
    if (paths->count == paths->room) {
        const size_t room = paths->room ? 2 * paths->room : 16;
        char **items = realloc(paths->items, room * sizeof *items);
        if (!items)
            return;
        paths->items = items;
        paths->room = room;
    }
    if ((paths->items[paths->count] = strdup(path)))
        paths->count++;
}

static void forget(struct paths *paths, const char *path)
{
    for (size_t i = 0; i < paths->count; i++)
        if (!strcmp(paths->items[i], path)) {
            free(paths->items[i]);
            paths->items[i] = paths->items[--paths->count];
            return;
        }
}

struct kept {
    struct paths trees, groups;
};

static void obey(struct kept *kept, const char *message)
{
    if (message[0] == '+' && message[1] == '/')
        remember(&kept->trees, message + 1);
    else if (message[0] == '@' && message[1] == '/')
        remember(&kept->groups, message + 1);
    else if (message[0] == '-') {
        forget(&kept->trees, message + 1);
        forget(&kept->groups, message + 1);
    }
}

/* Until end of file. A message too long for any path is skipped whole. */
static void listen_to_owner(struct kept *kept)
{
    char message[MAX_MESSAGE + 1], chunk[4096];
    size_t used = 0;

    for (;;) {
        const ssize_t got = read(STDIN_FILENO, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return;
        for (ssize_t i = 0; i < got; i++) {
            if (used < sizeof message)
                message[used++] = chunk[i];
            if (chunk[i])
                continue;
            if (message[used - 1] == '\0')
                obey(kept, message);
            used = 0;
        }
    }
}

/* Go on alone: a child of nobody, in its own session, holding nothing but the pipe. */
static int detach(void)
{
    const int outliving[] = {SIGINT, SIGHUP, SIGTERM, SIGQUIT, SIGPIPE};
    const int null = open("/dev/null", O_RDWR);
    const pid_t child = fork();

    if (child)
        _exit(child < 0);
    setsid();
    for (size_t i = 0; i < sizeof outliving / sizeof *outliving; i++)
        signal(outliving[i], SIG_IGN);
    if (dup2(null, STDOUT_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0 || chdir("/"))
        return -1;
    return syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0) ? -1 : 0;
}

int main(void)
{
    struct kept kept = {0};

    if (detach())
        return 1;
    listen_to_owner(&kept);
    for (size_t i = 0; i < kept.groups.count; i++)
        kill_group(kept.groups.items[i]);
    for (size_t i = 0; i < kept.trees.count; i++)
        remove_tree(kept.trees.items[i]);
    return 0;
}
