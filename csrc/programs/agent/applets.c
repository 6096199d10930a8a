/* The internal commands, and what they share. */
#include "agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name;
    applet *run;
} applets[] = {
    {"get", applet_get},       {"put", applet_put},
    {"pack", applet_pack},     {"unpack", applet_unpack},
    {"info", applet_info},     {"listening", applet_listening},
    {"freeze", applet_freeze}, {"thaw", applet_thaw},
    {"settime", applet_settime},
};

applet *applet_find(const char *name)
{
    for (size_t i = 0; i < sizeof applets / sizeof *applets; i++)
        if (!strcmp(applets[i].name, name))
            return applets[i].run;
    return NULL;
}

bool write_whole(int fd, const void *data, size_t size)
{
    for (const char *at = data; size > 0;) {
        const ssize_t n = write(fd, at, size);
        if (n < 0 && errno != EINTR)
            return false;
        at += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* As much as there is, up to *size*; -1 when reading failed. */
ssize_t read_whole(int fd, void *data, size_t size)
{
    size_t done = 0;

    while (done < size) {
        const ssize_t n = read(fd, (char *)data + done, size - done);
        if (n < 0 && errno != EINTR)
            return -1;
        if (n == 0)
            break;
        done += n > 0 ? (size_t)n : 0;
    }
    return (ssize_t)done;
}

/* Said on channel 2; the exit code tells the host to look there. */
int applet_fail(int error, const char *what)
{
    uint8_t data[ERROR_SIZE];
    char text[ERROR_SIZE - 32];
    pv_fields fields = {data, sizeof data, 0, false};

    snprintf(text, sizeof text, "%s", what);
    pv_fields_number(&fields, PV_TAG_ERRNO, (uint64_t)error);
    pv_fields_text(&fields, PV_TAG_WHAT, text);
    write_whole(2, data, fields.size);
    return 1;
}

void applet_number(enum pv_tag tag, uint64_t number)
{
    uint8_t data[16];
    pv_fields fields = {data, sizeof data, 0, false};

    pv_fields_number(&fields, (uint8_t)tag, number);
    write_whole(2, data, fields.size);
}

/* settime NANOSECONDS */
int applet_settime(char **args)
{
    const uint64_t now = args[0] == NULL ? 0 : strtoull(args[0], NULL, 10);
    const struct timespec time = {(time_t)(now / 1000000000), (long)(now % 1000000000)};

    return clock_settime(CLOCK_REALTIME, &time) < 0 ? applet_fail(errno, "setting the clock") : 0;
}
