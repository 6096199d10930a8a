/* modprobe as the kernel calls it ("modprobe -q -- fs-ext4") and as people do; what else
 * modprobe can do is left to busybox's. */
#include "drivers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int is_plain(const char *word)
{
    static const char *const known[] = {"-q", "-a", "-b", "-s", "-v", "--"};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(word, known[i]) == 0)
            return 1;
    return word[0] != '-' && !strchr(word, '=');
}

int modprobe_main(int argc, char **argv)
{
    int failed = 0, quiet = 0;

    for (int i = 1; i < argc; i++)
        if (!is_plain(argv[i])) {
            argv[0] = "modprobe";
            execv("/usr/bin/busybox", argv);
            return 127;
        }
    if (modules_open() < 0) {
        perror("modprobe: /lib/modules");
        return 1;
    }
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-') {
            quiet |= strcmp(argv[i], "-q") == 0;
        } else if (modules_load(argv[i]) < 0 && !(errno == ENOENT && modules_match(argv[i]))) {
            failed = 1;
            if (!quiet)
                fprintf(stderr, "modprobe: %s: %s\n", argv[i], strerror(errno));
        }
    }
    return failed;
}
