/* enter: what liblxc does by copying its caller, done by a caller that is small.
 *
 *   enter ROOT NAME start OFFSET OFFSET COMMAND [ARGUMENT...]
 *   enter ROOT NAME attach OFFSET UID FD COUNT VARIABLE... PROGRAM [ARGUMENT...]
 *
 * liblxc forks whoever starts a container or runs something in one, and the copy stays as
 * the container's monitor: copies of an interpreter would be slow and large. It also moves
 * whoever starts one into the monitor's control group.
 *
 * The offsets are those of want_daemonize and start, or of attach, in struct lxc_container;
 * our caller knows that structure. `attach` runs PROGRAM, which is the descriptor FD, with
 * COUNT variables, as user UID (-1: as liblxc thinks fit), and ends as it ended. */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEFAULTS = 0xffff, CLEAR_ENV = 1, FAILED = 124, NO_LIBRARY = 123 };

/* lxc/attach_options.h */
struct options {
    int flags, namespaces;
    long personality;
    char *cwd;
    uid_t uid;
    gid_t gid;
    int env_policy;
    char **env, **keep;
    int in, out, err, log;
    char *label;
    size_t groups;
    gid_t *group_list;
};

struct command {
    char *program, **argv;
};

typedef void *container_new(const char *name, const char *path);
typedef bool daemonizer(void *container, bool wanted);
typedef bool starter(void *container, int init, char *const argv[]);
typedef int attacher(void *container, int (*run)(void *), void *payload, struct options *,
                     pid_t *pid);

static void *function_at(void *container, const char *offset)
{
    void *function;

    memcpy(&function, (char *)container + strtoul(offset, NULL, 10), sizeof function);
    return function;
}

static int start(void *container, char **argv)
{
    daemonizer *daemonize = (daemonizer *)function_at(container, argv[0]);
    starter *begin = (starter *)function_at(container, argv[1]);

    daemonize(container, true);
    return begin(container, 0, argv + 2) ? 0 : FAILED;
}

/* As it ended, so that our caller learns of a signal too. */
static int outcome(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) < 0)
        return FAILED;
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    return WEXITSTATUS(status);
}

static int attach(void *library, void *container, char **argv)
{
    attacher *enter = (attacher *)function_at(container, argv[0]);
    int (*run)(void *) = (int (*)(void *))dlsym(library, "lxc_attach_run_command");
    const int count = atoi(argv[3]);
    char *env[count + 1];
    struct command command = {argv[4 + count], argv + 4 + count};
    struct options options = {
        DEFAULTS, -1, -1, "/", (uid_t)atoi(argv[1]), (gid_t)atoi(argv[1]), CLEAR_ENV, env, NULL,
        STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, -1, NULL, 0, NULL,
    };
    pid_t pid;

    memcpy(env, argv + 4, (size_t)count * sizeof *env);
    env[count] = NULL;
    fcntl(atoi(argv[2]), F_SETFD, FD_CLOEXEC);
    if (!run || enter(container, run, &command, &options, &pid) != 0)
        return FAILED;
    /* Who is waited for must not be kept from ending by what we hold. */
    close(STDIN_FILENO);
    return outcome(pid);
}

int main(int argc, char **argv)
{
    /* Beyond PROGRAM and what it works on, nothing of our caller's gets into a container. */
    syscall(SYS_close_range, 5u, ~0u, 0);
    void *library = dlopen("liblxc.so.1", RTLD_NOW);
    container_new *make = library ? (container_new *)dlsym(library, "lxc_container_new") : NULL;

    if (argc < 7 || !make) {
        fprintf(stderr, "enter: %s\n", make ? "too few words" : dlerror());
        return NO_LIBRARY;
    }
    void *container = make(argv[2], argv[1]);
    if (!container)
        return FAILED;
    if (!strcmp(argv[3], "start"))
        return start(container, argv + 4);
    return argc < 9 ? NO_LIBRARY : attach(library, container, argv + 4);
}
