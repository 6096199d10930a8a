#include "drivers.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define USER_SCRIPT "/etc/pyvirt/user"

static void mount_once(const char *type, const char *where, const char *proof)
{
    if (access(proof, F_OK) < 0 && mount(type, where, type, 0, NULL) < 0 && errno != EBUSY)
        complain("mount", where, errno);
}

static void set_hostname(void)
{
    char *name = file_read("/etc/hostname");

    if (name && sethostname(name, strcspn(name, "\n")) < 0)
        complain("set the name", name, errno);
    free(name);
}

/* Load each module that a file names, one in a line. */
static void load_listed(const char *path)
{
    char *names = file_read(path), *rest = names;

    for (char *name; rest && (name = strsep(&rest, "\n"));)
        if (*name && modules_load(name) < 0)
            complain("load", name, errno);
    free(names);
}

/* Run the user's script to its end, so that a guest that answers is one it has prepared; the
 * status with which it ended. */
static int run_user_script(void)
{
    if (access(USER_SCRIPT, X_OK) < 0)
        return 0;
    const pid_t child = fork();
    if (child == 0) {
        execl(USER_SCRIPT, USER_SCRIPT, (char *)NULL);
        complain("run", USER_SCRIPT, errno);
        _exit(127);
    }
    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (child < 0)
        return 126;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void serve(int events)
{
    struct pollfd wanted = {.fd = events, .events = POLLIN};

    setsid();
    signal(SIGCHLD, SIG_IGN); /* children that nobody asks about leave no zombies */
    for (;;)
        if (poll(&wanted, 1, -1) > 0)
            uevent_drain(events);
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '/');

    if (strcmp(name ? name + 1 : argv[0], "modprobe") == 0)
        return modprobe_main(argc, argv);
    mount_once("proc", "/proc", "/proc/self");
    mount_once("sysfs", "/sys", "/sys/bus");
    mount_once("devtmpfs", "/dev", "/dev/kmsg");
    const int events = uevent_open();
    if (events < 0 || modules_open() < 0)
        complain("prepare", "drivers", errno);
    else
        load_listed("/etc/pyvirt/modules");
    uevent_walk();
    uevent_drain(events);
    set_hostname();
    const int status = run_user_script();
    uevent_drain(events);
    /* The agent waits for this process, and begins to serve; its child goes on. */
    if (fork() == 0)
        serve(events);
    return status;
}
