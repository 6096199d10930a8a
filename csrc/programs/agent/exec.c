/* Starting processes: from the fields of an EXEC frame to a stream. */
#include "agent.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

/* One process to start. All text lies behind the pointers, in the same allocation. */
struct command {
    char **argv, **env;
    size_t argc, envc, env_room;
    char *text;
    const char *shell, *applet, *cwd, *user, *path;
    const char *blame; /* what an error is about */
    bool pty, no_input;
    struct winsize window;
    struct user as;
    int fds[3]; /* the child's ends */
};

/* --- from fields to argv and env --- */

static void count(const struct request *request, size_t *args, size_t *envs)
{
    pv_field field;
    size_t offset = 0;

    while (pv_field_next(request->fields, request->size, &offset, &field) == PV_FRAME_OK) {
        *args += field.tag == PV_TAG_ARG;
        *envs += field.tag == PV_TAG_ENV;
    }
}

static char *keep_text(struct command *c, const pv_field *field)
{
    char *at = c->text;

    memcpy(at, field->data, field->size);
    at[field->size] = 0;
    c->text += field->size + 1;
    return at;
}

static size_t key_size(const char *entry)
{
    return strcspn(entry, "=");
}

static const char *env_find(const struct command *c, const char *key)
{
    const size_t size = strlen(key);

    for (size_t i = 0; i < c->envc; i++)
        if (key_size(c->env[i]) == size && !strncmp(c->env[i], key, size))
            return c->env[i] + size + (c->env[i][size] == '=');
    return NULL;
}

static void env_default(struct command *c, char *entry)
{
    char key[256];

    snprintf(key, sizeof key, "%.*s", (int)key_size(entry), entry);
    if (c->envc < c->env_room && env_find(c, key) == NULL)
        c->env[c->envc++] = entry;
}

static void env_text(struct command *c, const char *key, const char *value)
{
    char *entry = c->text;

    c->text += sprintf(entry, "%s=%s", key, value) + 1;
    env_default(c, entry);
}

/* What the request names comes first and wins, then what the user implies, then ours. */
static void complete_env(struct command *c)
{
    if (c->user != NULL) {
        env_text(c, "HOME", c->as.home);
        env_text(c, "USER", c->as.name);
        env_text(c, "LOGNAME", c->as.name);
        env_text(c, "SHELL", c->as.shell);
    }
    for (char **entry = environ; *entry != NULL; entry++)
        env_default(c, *entry);
    env_default(c, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    env_default(c, "HOME=/root");
    if (c->pty)
        env_default(c, "TERM=xterm-256color");
}

static int parse_field(struct command *c, const pv_field *field)
{
    if (field->tag != PV_TAG_PTY && memchr(field->data, 0, field->size) != NULL)
        return EINVAL; /* C cannot say it: text ends at its first zero */
    switch (field->tag) {
    case PV_TAG_ARG:
        c->argv[c->argc++] = keep_text(c, field);
        break;
    case PV_TAG_SHELL:
        c->shell = keep_text(c, field);
        break;
    case PV_TAG_APPLET:
        c->applet = keep_text(c, field);
        break;
    case PV_TAG_ENV:
        c->env[c->envc++] = keep_text(c, field);
        break;
    case PV_TAG_CWD:
        c->cwd = keep_text(c, field);
        break;
    case PV_TAG_USER:
        c->user = keep_text(c, field);
        break;
    case PV_TAG_NO_INPUT:
        c->no_input = true;
        break;
    case PV_TAG_PTY:
        if (field->size != 4)
            return EINVAL;
        c->pty = true;
        c->window.ws_row = pv_frame_u16(field->data);
        c->window.ws_col = pv_frame_u16(field->data + 2);
        break;
    }
    return 0;
}

static int parse(struct command *c, const struct request *request, void **memory)
{
    size_t args = 3, envs = 16, offset = 0;
    int error = 0;
    pv_field field;

    count(request, &args, &envs);
    for (char **entry = environ; *entry != NULL; entry++)
        envs++;
    /* A zero takes the place of each field's header, so the text is never longer. */
    const size_t pointers = (args + envs + 2) * sizeof(char *);
    *memory = calloc(1, pointers + request->size + sizeof c->as + 256);
    if (*memory == NULL)
        return ENOMEM;
    c->argv = *memory;
    c->env = c->argv + args + 1;
    c->env_room = envs;
    c->text = (char *)*memory + pointers;
    while (error == 0 &&
           pv_field_next(request->fields, request->size, &offset, &field) == PV_FRAME_OK)
        error = parse_field(c, &field);
    return error;
}

/* A shell command takes the place of the arguments. */
static int complete(struct command *c)
{
    if (c->shell != NULL) {
        c->argv[0] = "/bin/sh";
        c->argv[1] = "-c";
        c->argv[2] = (char *)c->shell;
        c->argv[3] = NULL;
    } else if (c->argc == 0 && c->applet == NULL)
        return EINVAL;
    if (c->user != NULL) {
        c->blame = c->user;
        if (!user_find(c->user, &c->as))
            return ENOENT;
    }
    complete_env(c);
    c->path = env_find(c, "PATH");
    return 0;
}

/* --- the child; between vfork and exec it shares our memory --- */

static void reset_signals(void)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool become(const struct user *user)
{
    /* The system calls themselves: the C library's wrappers would look for threads. */
    return syscall(SYS_setgroups, user->groups_count, user->groups) == 0 &&
           syscall(SYS_setresgid, user->gid, user->gid, user->gid) == 0 &&
           syscall(SYS_setresuid, user->uid, user->uid, user->uid) == 0;
}

static bool prepare(struct command *c)
{
    setsid();
    for (int i = 0; i < 3; i++)
        if (dup2(c->fds[i], i) < 0)
            return false;
    if (c->pty && ioctl(0, TIOCSCTTY, 0) < 0)
        return false;
    c->blame = c->user;
    if (c->user != NULL && !become(&c->as))
        return false;
    c->blame = c->cwd;
    if (c->cwd != NULL && chdir(c->cwd) < 0)
        return false;
    reset_signals();
    return true;
}

/* Like execvpe(), but along the PATH that the command itself will see. */
static int execute(struct command *c)
{
    char name[PATH_MAX];
    int error = ENOENT;

    c->blame = c->argv[0];
    if (strchr(c->argv[0], '/') != NULL || c->path == NULL) {
        execve(c->argv[0], c->argv, c->env);
        return errno;
    }
    for (const char *at = c->path; *at; at += strspn(at, ":")) {
        const int size = (int)strcspn(at, ":");
        if (snprintf(name, sizeof name, "%.*s/%s", size, at, c->argv[0]) < (int)sizeof name) {
            execve(name, c->argv, c->env);
            if (errno != ENOENT && errno != ENOTDIR)
                error = errno;
        }
        at += size;
    }
    return error;
}

static pid_t start(struct command *c, int *error)
{
    volatile int failed = 0;
    const pid_t pid = vfork();

    if (pid == 0) {
        failed = prepare(c) ? execute(c) : errno;
        _exit(127);
    }
    *error = pid < 0 ? errno : failed;
    return pid;
}

static void close_others(void)
{
    if (syscall(SYS_close_range, 3u, ~0u, 0) < 0)
        for (int fd = 3; fd < 4096; fd++)
            close(fd);
}

/* An applet runs in a copy of the agent: no exec, no shared memory. */
static pid_t start_applet(struct command *c, int *error)
{
    applet *run = applet_find(c->applet);
    const pid_t pid = run == NULL ? -1 : fork();

    if (pid == 0) {
        if (!prepare(c))
            _exit(126);
        close_others();
        environ = c->env;
        _exit(run(c->argv));
    }
    *error = run == NULL ? ENOSYS : pid < 0 ? errno : 0;
    return pid;
}

/* --- descriptors: three for the child, three for the stream --- */

static bool pipe_for(int *child, int *ours, bool to_child)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    *child = ends[!to_child];
    *ours = ends[to_child];
    return fcntl(*ours, F_SETFL, O_NONBLOCK) == 0;
}

static bool open_pty(struct command *c, int ours[3])
{
    const int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    int unlocked = 0;

    ours[0] = master;
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlocked) < 0)
        return false;
    if (c->window.ws_row != 0)
        ioctl(master, TIOCSWINSZ, &c->window);
    c->fds[0] = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (c->fds[0] < 0)
        return false;
    c->fds[1] = c->fds[2] = c->fds[0];
    ours[1] = fcntl(master, F_DUPFD_CLOEXEC, 3);
    return ours[1] >= 0;
}

static bool open_streams(struct command *c, int ours[3])
{
    if (c->pty)
        return open_pty(c, ours);
    if (c->no_input)
        c->fds[0] = agent.null;
    else if (!pipe_for(&c->fds[0], &ours[0], true))
        return false;
    return pipe_for(&c->fds[1], &ours[1], false) && pipe_for(&c->fds[2], &ours[2], false);
}

static void close_all(const int fds[3], int count)
{
    for (int i = 0; i < count; i++)
        if (fds[i] >= 0 && fds[i] != agent.null)
            close(fds[i]);
}

/* Bulk data goes through fewer, larger steps; when a limit refuses, the usual size serves. */
static void widen(const struct command *c, const int ours[3])
{
    for (int i = 0; c->applet != NULL && i < 2; i++)
        if (ours[i] >= 0 && fcntl(ours[i], F_SETPIPE_SZ, 256 << 10) < 0)
            errno = 0;
}

static void report_start(const struct stream *s)
{
    uint8_t data[16];
    pv_fields fields = {data, sizeof data, 0, false};

    pv_fields_number(&fields, PV_TAG_PID, (uint64_t)s->pid);
    session_send(s->id, PV_STARTED, 0, data, fields.size);
}

static int launch(struct stream *s, struct command *c)
{
    int ours[3] = {-1, -1, -1}, error = 0;

    s->started = monotonic();
    if (open_streams(c, ours)) {
        widen(c, ours);
        s->pid = c->applet != NULL ? start_applet(c, &error) : start(c, &error);
    } else
        error = errno;
    close_all(c->fds, c->pty ? 1 : 3);
    if (error != 0) {
        close_all(ours, 3);
        s->pid = 0; /* a child that could not exec is reaped as an orphan */
        return error;
    }
    s->pty = c->pty;
    stream_open(s, ours[0], ours[1], ours[2]);
    report_start(s);
    if (c->pty)
        session_send(s->id, PV_EOF, 2, NULL, 0);
    return 0;
}

/* What the agent must undo when the host goes away. */
static void remember_freeze(const struct command *c)
{
    if (c->applet != NULL && !strcmp(c->applet, "freeze"))
        agent.frozen = true;
    if (c->applet != NULL && !strcmp(c->applet, "thaw"))
        agent.frozen = false;
}

void exec_request(uint32_t id, const struct request *request)
{
    struct command c = {.fds = {-1, -1, -1}};
    void *memory = NULL;
    struct stream *s = stream_new(id);
    int error = s == NULL ? EMFILE : parse(&c, request, &memory);

    if (error == 0)
        error = complete(&c);
    if (error == 0)
        error = launch(s, &c);
    if (error == 0)
        remember_freeze(&c);
    else {
        session_fail(id, error, c.blame != NULL ? c.blame : "starting a command");
        if (s != NULL)
            stream_free(s);
    }
    free(memory);
}

/* For process 1 itself: a process without a stream, on the console. */
pid_t exec_detached(char *const argv[])
{
    struct command c = {.argv = (char **)argv, .env = environ, .path = getenv("PATH"),
                        .fds = {0, 1, 2}};
    int error;
    const pid_t pid = start(&c, &error);

    errno = error;
    return error == 0 ? pid : -1;
}

void exec_applet_detached(const char *name)
{
    char *args[] = {NULL};
    struct command c = {.argv = args, .env = environ, .applet = name,
                              .fds = {agent.null, agent.null, agent.null}};
    int error;

    start_applet(&c, &error);
}
