/* Each line of modules.dep is "PATH: NEED NEED ...", where the first need is the one to load
 * last. Each line of modules.alias is "alias PATTERN NAME". Both files are small, as they
 * hold only what the initramfs brings; they are split in place, and never freed. */
#include "drivers.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

typedef struct {
    char *path;
    char *needs;
    bool tried;
} module;

typedef struct {
    const char *pattern;
    const char *name;
} alias;

static char folder[PATH_SIZE], cmdline[CMDLINE_SIZE];
static module *modules;
static alias *aliases;
static size_t module_count, alias_count;

static size_t lines(const char *text)
{
    size_t count = 0;

    while ((text = strchr(text, '\n'))) {
        text++;
        count++;
    }
    return count;
}

static char *table(const char *name)
{
    char path[PATH_SIZE + 32];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    return file_read(path);
}

static int dep_parse(char *text)
{
    modules = text ? calloc(lines(text) + 1, sizeof *modules) : NULL;
    if (!modules)
        return -1;
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        char *colon = strchr(line, ':');
        if (!colon)
            continue;
        *colon = '\0';
        modules[module_count++] = (module){.path = line, .needs = colon + 1};
    }
    return 0;
}

static int alias_parse(char *text)
{
    aliases = text ? calloc(lines(text) + 1, sizeof *aliases) : NULL;
    if (!aliases)
        return -1;
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        const char *word = strsep(&line, " "), *pattern = strsep(&line, " ");
        if (line && strcmp(word, "alias") == 0)
            aliases[alias_count++] = (alias){pattern, line};
    }
    return 0;
}

int modules_open(void)
{
    struct utsname kernel;
    char *words = file_read("/proc/cmdline");

    uname(&kernel);
    snprintf(folder, sizeof folder, "/lib/modules/%s", kernel.release);
    snprintf(cmdline, sizeof cmdline, "%s", words ? words : "");
    free(words);
    cmdline[strcspn(cmdline, "\n")] = '\0';
    return dep_parse(table("modules.dep")) || alias_parse(table("modules.alias")) ? -1 : 0;
}

static bool same(char a, char b)
{
    return (a == '-' ? '_' : a) == (b == '-' ? '_' : b);
}

/* Whether *path* is the file of the module *name*, where dashes are underscores. */
static bool is_named(const char *path, const char *name)
{
    const char *base = strrchr(path, '/');

    base = base ? base + 1 : path;
    while (*name && same(*base, *name)) {
        base++;
        name++;
    }
    return !*name && strncmp(base, ".ko", 3) == 0;
}

static bool is_path(const char *path, const char *wanted)
{
    return strcmp(path, wanted) == 0;
}

static module *find(bool (*is)(const char *, const char *), const char *what)
{
    for (size_t i = 0; i < module_count; i++)
        if (is(modules[i].path, what))
            return &modules[i];
    return NULL;
}

/* The module's parameters: the words "NAME.PARAMETER=VALUE" of the kernel's command line. */
static void parameters(const module *of, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (const char *word = cmdline; *word;) {
        const size_t length = strcspn(word, " "), dot = strcspn(word, ".= ");
        char name[64];
        if (word[dot] == '.' && dot < sizeof name && used + length < size) {
            memcpy(name, word, dot);
            name[dot] = '\0';
            if (is_named(of->path, name))
                used += (size_t)snprintf(out + used, size - used, "%.*s ",
                                         (int)(length - dot - 1), word + dot + 1);
        }
        word += length;
        word += strspn(word, " ");
    }
}

static int insert(module *one)
{
    char path[2 * PATH_SIZE], arguments[CMDLINE_SIZE];

    if (one->tried)
        return 0;
    one->tried = true;
    snprintf(path, sizeof path, "%s/%s", folder, one->path);
    parameters(one, arguments, sizeof arguments);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const long failed = fd < 0 ? -1 : syscall(SYS_finit_module, fd, arguments, 0);
    const int error = errno;
    if (fd >= 0)
        close(fd);
    if (!failed || error == EEXIST)
        return 0;
    if (error != ENODEV) /* the driver looked, and its hardware is not there */
        complain("load", one->path, error);
    errno = error;
    return -1;
}

static int load(module *one)
{
    char *end = one->needs + strlen(one->needs);

    if (one->tried)
        return 0;
    while (end > one->needs) { /* the last need is the first to load */
        char *start = end;
        while (start > one->needs && start[-1] != ' ')
            start--;
        *end = '\0';
        module *need = *start ? find(is_path, start) : NULL;
        if (need)
            insert(need);
        end = start > one->needs ? start - 1 : start;
    }
    return insert(one);
}

int modules_load(const char *name)
{
    module *one = find(is_named, name);

    if (one)
        return load(one);
    errno = ENOENT;
    return -1;
}

size_t modules_match(const char *text)
{
    size_t matches = 0;

    for (size_t i = 0; i < alias_count; i++) {
        /* No pattern begins with a wildcard, and nearly all lines end here. */
        if (aliases[i].pattern[0] != text[0] || aliases[i].pattern[1] != text[1]
            || fnmatch(aliases[i].pattern, text, 0) != 0)
            continue;
        matches++;
        modules_load(aliases[i].name);
    }
    return matches;
}
