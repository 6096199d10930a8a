/* The smallest QMP client: what blocking commands cost when nothing else is done.
 *
 *     qmp_client FD COMMAND
 *
 * speaks on the socket FD. For each line "N" on its standard input it sends COMMAND N times,
 * waits for each reply, and prints the nanoseconds that took and the bytes of one reply. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static char reply[4 << 20];

static size_t receive_line(int fd)
{
    size_t size = 0;

    do {
        ssize_t got = recv(fd, reply + size, sizeof reply - size, 0);
        if (got <= 0)
            exit(2);
        size += (size_t)got;
    } while (reply[size - 1] != '\n');
    return size;
}

static size_t ask(int fd, const char *command, size_t length)
{
    if (send(fd, command, length, 0) != (ssize_t)length)
        exit(3);
    return receive_line(fd);
}

static long long now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
    const char *hello = "{\"execute\":\"qmp_capabilities\"}";
    size_t size = 0;
    long count;

    if (argc != 3)
        return 1;
    const int fd = atoi(argv[1]);
    const size_t length = strlen(argv[2]);
    receive_line(fd);
    ask(fd, hello, strlen(hello));
    while (scanf("%ld", &count) == 1) {
        const long long begun = now();
        for (long i = 0; i < count; i++)
            size = ask(fd, argv[2], length);
        const long long took = now() - begun;
        if (memcmp(reply, "{\"return\"", 9) != 0)
            return 4;
        printf("%lld %zu\n", took, size);
        fflush(stdout);
    }
    return 0;
}
