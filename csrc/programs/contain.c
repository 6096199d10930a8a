/* contain: process 1 of a container that runs one command.
 *
 *   contain USER DIRECTORY COMMAND [ARGUMENT...]    (USER and DIRECTORY may be empty)
 *
 * The command gets the container's console as its terminal. Orphans are reaped, signals are
 * handed on (the kernel gives process 1 only those it handles), and the end of the command
 * is the end of the container, with its exit code, or 128 and the signal's number.
 *
 * Once the command runs, this process is called "contained": so the host sees it. What keeps
 * the command from running is the last line on the console. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_RUN = 126, NOT_FOUND = 127, LINE = 1024 };

struct user {
    uid_t uid;
    gid_t gid;
    char home[256];
};

static int fail(const char *field, const char *value)
{
    const int code = errno == ENOENT ? NOT_FOUND : NOT_RUN;

    dprintf(STDERR_FILENO, "contain: %s %s: %s\n", field, value,
            errno == ENOKEY ? "is not in /etc/passwd, or its group not in /etc/group"
                            : strerror(errno));
    return code;
}

/* Field `index` of a line of fields with colons, cut out in place. */
static char *field(char *line, int index)
{
    while (index-- > 0 && line)
        if ((line = strchr(line, ':')))
            line++;
    return line;
}

static bool is_number(const char *text)
{
    return *text && strspn(text, "0123456789") == strlen(text);
}

/* The line of a passwd or group file whose name, or number in field 2, is `wanted`. */
static bool look_up(const char *path, const char *wanted, char line[LINE])
{
    FILE *file = fopen(path, "re");
    const size_t size = strlen(wanted);
    bool found = false;

    while (file && !found && fgets(line, LINE, file)) {
        const char *number = field(line, 2);
        line[strcspn(line, "\n")] = '\0';
        found = (!strncmp(line, wanted, size) && line[size] == ':') ||
                (number && !strncmp(number, wanted, size) && number[size] == ':');
    }
    if (file)
        fclose(file);
    return found;
}

static bool find_group(const char *wanted, gid_t *gid)
{
    char line[LINE];

    if (!is_number(wanted) && !look_up("/etc/group", wanted, line))
        return false;
    *gid = (gid_t)strtoul(is_number(wanted) ? wanted : field(line, 2), NULL, 10);
    return true;
}

/* "name", "name:group", "uid" or "uid:gid"; a number needs no line in /etc/passwd. */
static bool find_user(char *text, struct user *user)
{
    char *group = strchr(text, ':'), line[LINE];

    if (group)
        *group++ = '\0';
    if (look_up("/etc/passwd", text, line) && field(line, 5)) {
        user->uid = (uid_t)strtoul(field(line, 2), NULL, 10);
        user->gid = (gid_t)strtoul(field(line, 3), NULL, 10);
        snprintf(user->home, sizeof user->home, "%.*s", (int)strcspn(field(line, 5), ":"),
                 field(line, 5));
    } else if (is_number(text))
        user->uid = (uid_t)strtoul(text, NULL, 10);
    else
        return false;
    return !group || find_group(group, &user->gid);
}

static bool become(char *text)
{
    struct user user = {0, 0, "/"};

    if (!find_user(text, &user)) {
        errno = ENOKEY; /* no file lacks, but a line */
        return false;
    }
    setenv("HOME", user.home, 0);
    return !setgroups(0, NULL) && !setgid(user.gid) && !setuid(user.uid);
}

static void open_console(void)
{
    const int console = open("/dev/console", O_RDWR | O_NOCTTY);

    for (int fd = 0; console >= 0 && fd < 3; fd++)
        dup2(console, fd);
    if (console > 2)
        close(console);
}

static int run(char **argv, const sigset_t *before)
{
    setsid();
    ioctl(STDIN_FILENO, TIOCSCTTY, 0);
    if (*argv[1] && !become(argv[1]))
        return fail("user", argv[1]);
    setenv("HOME", "/root", 0);
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0);
    if (*argv[2] && chdir(argv[2]))
        return fail("cwd", argv[2]);
    sigprocmask(SIG_SETMASK, before, NULL);
    execvp(argv[3], argv + 3);
    return fail("command", argv[3]);
}

/* Reap all that has ended; the exit code once the command is among it, else -1. */
static int reap(pid_t command)
{
    int status, code = -1;

    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == command)
            code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return code;
}

static int serve(pid_t command, const sigset_t *all)
{
    for (int code = -1;;) {
        const int signal = sigwaitinfo(all, NULL);
        if (signal == SIGCHLD && (code = reap(command)) >= 0)
            return code;
        if (signal > 0 && signal != SIGCHLD)
            /* A request to end, as LXC makes it of an init, is SIGTERM to a program. */
            kill(command, signal == SIGPWR ? SIGTERM : signal);
    }
}

/* A successful exec closes the pipe with nothing in it. */
static void wait_for_exec(int pipe)
{
    char code;

    if (read(pipe, &code, 1) == 0)
        prctl(PR_SET_NAME, "contained");
    close(pipe);
}

static pid_t begin(char **argv, const sigset_t *before)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC))
        return -1;
    const pid_t command = fork();
    if (command == 0) {
        const char code = (char)run(argv, before);
        _exit(write(ends[1], &code, 1) == 1 ? code : NOT_RUN);
    }
    close(ends[1]);
    wait_for_exec(ends[0]);
    return command;
}

int main(int argc, char **argv)
{
    sigset_t all, before;

    if (argc < 4) {
        fputs("usage: contain USER DIRECTORY COMMAND [ARGUMENT...]\n", stderr);
        return 2;
    }
    open_console();
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    const pid_t command = begin(argv, &before);
    return command < 0 ? fail("command", argv[3]) : serve(command, &all);
}
