/* udp-echo PORT: return every datagram to its sender. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    static char data[65536];
    struct sockaddr_in address = {.sin_family = AF_INET};
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);

    if (argc != 2)
        return 2;
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return 1;
    for (;;) {
        socklen_t size = sizeof address;
        const ssize_t n = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&address, &size);
        if (n >= 0)
            sendto(fd, data, (size_t)n, 0, (struct sockaddr *)&address, size);
    }
}
