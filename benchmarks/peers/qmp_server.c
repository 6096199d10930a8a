/* A QMP server that answers at once, so that only its client takes time.
 *
 *     qmp_server FD SCHEMA
 *
 * query-status     the reply that QEMU gives
 * query-qmp-schema the bytes of the file SCHEMA as what it returns
 * x-storm-N-R      N events, R a second (0: as fast as they go), and then a reply
 *
 * A string that was given as "id" comes back, as from QEMU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 1000

static const char greeting[] =
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 0, \"major\": 9}, "
    "\"package\": \"\"}, \"capabilities\": []}}\r\n";
static const char status[] = "{\"status\": \"prelaunch\", \"singlestep\": false, \"running\": false}";
static const char event[] =
    "{\"timestamp\": {\"seconds\": 1795341341, \"microseconds\": 529837}, "
    "\"event\": \"GUEST_PANICKED\", \"data\": {\"action\": \"run\"}}\r\n";

static char schema[2 << 20], reply[4 << 20], batch[BATCH * sizeof event], request[1 << 16];
static size_t schema_size;
static int fd;

static void send_all(const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0)
            exit(0);
        data += sent;
        size -= (size_t)sent;
    }
}

static void storm(long count, long rate)
{
    struct timespec next;

    clock_gettime(CLOCK_MONOTONIC, &next);
    for (long sent = 0; sent < count; sent += BATCH) {
        send_all(batch, BATCH * (sizeof event - 1));
        if (rate == 0)
            continue;
        next.tv_nsec += BATCH * (1000000000L / rate);
        next.tv_sec += next.tv_nsec / 1000000000L;
        next.tv_nsec %= 1000000000L;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
}

/* One line that returns `value`, with the id of the command. */
static void send_return(const char *value, size_t size, const char *command)
{
    const char *id = strstr(command, "\"id\":\"");
    size_t used = (size_t)sprintf(reply, "{\"return\": ");

    memcpy(reply + used, value, size);
    used += size;
    if (id != NULL)
        used += (size_t)sprintf(reply + used, ", %.*s", (int)(strchr(id + 6, '"') + 1 - id), id);
    memcpy(reply + used, "}\r\n", 3);
    send_all(reply, used + 3);
}

static void answer(const char *command)
{
    long count, rate;
    const char *found = strstr(command, "x-storm-");

    if (found != NULL && sscanf(found, "x-storm-%ld-%ld", &count, &rate) == 2)
        storm(count, rate);
    if (strstr(command, "query-qmp-schema") != NULL)
        send_return(schema, schema_size, command);
    else
        send_return(status, sizeof status - 1, command);
}

int main(int argc, char **argv)
{
    size_t size = 0, depth = 0;
    FILE *file;

    if (argc != 3 || (file = fopen(argv[2], "rb")) == NULL)
        return 1;
    schema_size = fread(schema, 1, sizeof schema, file);
    fclose(file);
    fd = atoi(argv[1]);
    for (size_t i = 0; i < BATCH; i++)
        memcpy(batch + i * (sizeof event - 1), event, sizeof event - 1);
    send_all(greeting, sizeof greeting - 1);
    for (;;) {
        ssize_t got = recv(fd, request + size, sizeof request - size - 1, 0);
        if (got <= 0)
            return 0;
        size_t begun = 0, end = size + (size_t)got;
        for (size_t i = size; i < end; i++) {
            depth += (request[i] == '{') - (request[i] == '}');
            if (request[i] == '}' && depth == 0) {
                char after = request[i + 1];
                request[i + 1] = 0;
                answer(request + begun);
                request[i + 1] = after;
                begun = i + 1;
            }
        }
        size = end - begun;
        memmove(request, request + begun, size);
    }
}
