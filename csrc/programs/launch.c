/* launch: become another program that ends when its parent ends.
 *
 *   launch parent=PID report=FD [keep=FD,FD...] [cpus=N,N-N...] [directory=PATH] -- PROGRAM ARG...
 *
 * Between fork and exec only C may run safely, so everything a child needs is
 * done here, after an exec and before the next one. FD `report` is closed by a
 * successful exec; a step that fails writes "ERRNO STEP" to it instead, so that
 * the parent raises at once and in the calling thread. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_KEPT = 1024, LOST = 126 };

static int report = STDERR_FILENO;

static _Noreturn void fail(const char *step, int error)
{
    dprintf(report, "%d %s", error, step);
    _exit(LOST);
}

/* The number at *text, which moves behind it; `after` tells what may follow. */
static long number(const char **text, const char *after, const char *step)
{
    char *end;

    errno = 0;
    const long value = strtol(*text, &end, 10);
    if (errno || end == *text || value < 0 || !(*end == '\0' || strchr(after, *end)))
        fail(step, EINVAL);
    *text = end;
    return value;
}

/* The parent may have died before the kernel knew that we care. */
static void die_with(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        fail("prctl", errno);
    if (getppid() != parent)
        _exit(LOST);
}

/* Python ignores SIGPIPE, and an exec would hand that down. */
static void default_signals(void)
{
    sigset_t none;

    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void pin(const char *cpus)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    for (const char *next = cpus; *next;) {
        const long first = number(&next, ",-", "cpus");
        long last = first;
        if (*next == '-') {
            next++;
            last = number(&next, ",", "cpus");
        }
        if (last < first || last >= CPU_SETSIZE)
            fail("cpus", EINVAL);
        for (long cpu = first; cpu <= last; cpu++)
            CPU_SET(cpu, &set);
        next += *next == ',';
    }
    if (sched_setaffinity(0, sizeof set, &set))
        fail("cpus", errno);
}

static int ascending(const void *left, const void *right)
{
    const int a = *(const int *)left, b = *(const int *)right;

    return (a > b) - (a < b);
}

static void close_between(int first, int last)
{
    if (first <= last && syscall(SYS_close_range, first, last, 0))
        fail("close_range", errno);
}

/* Close everything above stderr but `keep` and `report`. */
static void close_others(const char *keep)
{
    int kept[MAX_KEPT + 1];
    int count = 0, next = STDERR_FILENO + 1;

    kept[count++] = report;
    while (*keep) {
        if (count > MAX_KEPT)
            fail("keep", E2BIG);
        kept[count++] = (int)number(&keep, ",", "keep");
        keep += *keep == ',';
    }
    qsort(kept, count, sizeof *kept, ascending);
    for (int i = 0; i < count; i++) {
        close_between(next, kept[i] - 1);
        if (kept[i] >= next)
            next = kept[i] + 1;
    }
    close_between(next, ~0U >> 1);
}

static const char *value_of(const char *word, const char *key)
{
    const size_t size = strlen(key);

    return strncmp(word, key, size) ? NULL : word + size;
}

int main(int argc, char **argv)
{
    const char *keep = "", *cpus = "", *directory = "", *value;
    pid_t parent = 0;
    int i = 1;

    for (; i < argc && strcmp(argv[i], "--"); i++) {
        if ((value = value_of(argv[i], "parent=")))
            parent = (pid_t)number(&value, "", "parent");
        else if ((value = value_of(argv[i], "report=")))
            report = (int)number(&value, "", "report");
        else if ((value = value_of(argv[i], "keep=")))
            keep = value;
        else if ((value = value_of(argv[i], "cpus=")))
            cpus = value;
        else if ((value = value_of(argv[i], "directory=")))
            directory = value;
        else
            fail(argv[i], EINVAL);
    }
    if (i + 1 >= argc || fcntl(report, F_SETFD, report > STDERR_FILENO ? FD_CLOEXEC : 0))
        fail("usage", EINVAL);

    die_with(parent);
    setsid(); /* Fails only for a session leader, which is as good. */
    default_signals();
    close_others(keep);
    if (*cpus)
        pin(cpus);
    if (*directory && chdir(directory))
        fail("directory", errno);
    execvp(argv[i + 1], argv + i + 1);
    fail("exec", errno);
}
