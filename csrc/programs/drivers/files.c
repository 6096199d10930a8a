#include "drivers.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *file_read(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t size = 0, room = 4096;
    char *text = fd < 0 ? NULL : malloc(room + 1);

    for (ssize_t got; text && (got = read(fd, text + size, room - size)) > 0;) {
        size += (size_t)got;
        if (size == room) {
            char *larger = realloc(text, 2 * room + 1);
            if (!larger)
                break;
            text = larger;
            room *= 2;
        }
    }
    if (fd >= 0)
        close(fd);
    if (text)
        text[size] = '\0';
    return text;
}

int file_write(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    const size_t size = strlen(text);

    if (fd < 0)
        return -1;
    const ssize_t done = write(fd, text, size);
    close(fd);
    return done == (ssize_t)size ? 0 : -1;
}

void complain(const char *what, const char *name, int error)
{
    char line[PATH_SIZE];

    snprintf(line, sizeof line, "<3>pyvirt: cannot %s %s: %s\n", what, name, strerror(error));
    file_write("/dev/kmsg", line);
}

const char *word_after(const char *line, const char *key)
{
    const size_t size = strlen(key);

    for (const char *at = line; (at = strstr(at, key)); at += size)
        if ((at == line || at[-1] == ' ') && at[size] == '=')
            return at + size + 1;
    return NULL;
}
