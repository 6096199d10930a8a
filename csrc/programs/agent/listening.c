/* listening PROTOCOL PORT: exit code 0 when something in the guest listens there, else 2. */
#include "agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A line is `sl local:PORT remote:PORT state ...`, in hexadecimal. */
static bool listens(const char *path, unsigned port, unsigned state)
{
    char line[512];
    unsigned found_port, found_state;
    bool found = false;
    FILE *file = fopen(path, "re");

    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL)
        found = sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x", &found_port,
                       &found_state) == 2 &&
                found_port == port && found_state == state;
    if (file != NULL)
        fclose(file);
    return found;
}

int applet_listening(char **args)
{
    enum { LISTEN = 0x0a, UNCONNECTED = 0x07 }; /* TCP_LISTEN, TCP_CLOSE of the kernel */

    if (args[0] == NULL || args[1] == NULL)
        return applet_fail(EINVAL, "listening");
    const unsigned port = (unsigned)strtoul(args[1], NULL, 10);
    const bool udp = !strcmp(args[0], "udp");
    const bool found = udp
        ? listens("/proc/net/udp", port, UNCONNECTED) || listens("/proc/net/udp6", port, UNCONNECTED)
        : listens("/proc/net/tcp", port, LISTEN) || listens("/proc/net/tcp6", port, LISTEN);
    return found ? 0 : 2;
}
