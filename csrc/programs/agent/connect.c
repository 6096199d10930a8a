/* Streams to sockets in the guest: what forwards ports when there is no user network. */
#include "agent.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct target {
    char protocol[8], host[128];
    uint16_t port;
    struct sockaddr_storage address;
    socklen_t size;
};

static void take_text(char *out, size_t room, const pv_field *field)
{
    snprintf(out, room, "%.*s", (int)field->size, (const char *)field->data);
}

static int set_unix(struct target *t)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&t->address;

    if (strlen(t->host) >= sizeof un->sun_path)
        return ENAMETOOLONG;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, t->host, strlen(t->host) + 1);
    t->size = sizeof *un;
    return 0;
}

/* Addresses only: names would need the guest's resolver. */
static int set_address(struct target *t)
{
    struct sockaddr_in *four = (struct sockaddr_in *)&t->address;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&t->address;

    if (!strcmp(t->protocol, "unix"))
        return set_unix(t);
    if (strcmp(t->protocol, "tcp") && strcmp(t->protocol, "udp"))
        return EPROTONOSUPPORT;
    if (inet_pton(AF_INET, t->host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(t->port);
        t->size = sizeof *four;
    } else if (inet_pton(AF_INET6, t->host, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(t->port);
        t->size = sizeof *six;
    } else
        return EINVAL;
    return 0;
}

static int parse(struct target *t, const struct request *request)
{
    pv_field field;
    size_t offset = 0;

    while (pv_field_next(request->fields, request->size, &offset, &field) == PV_FRAME_OK) {
        if (field.tag == PV_TAG_PROTOCOL)
            take_text(t->protocol, sizeof t->protocol, &field);
        else if (field.tag == PV_TAG_HOST)
            take_text(t->host, sizeof t->host, &field);
        else if (field.tag == PV_TAG_PORT)
            t->port = (uint16_t)pv_field_number(&field);
    }
    return set_address(t);
}

static int open_socket(struct stream *s, const struct target *t)
{
    const int type = strcmp(t->protocol, "udp") ? SOCK_STREAM : SOCK_DGRAM;
    const int fd = socket(t->address.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return errno;
    const int other = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (other < 0 || (connect(fd, (const struct sockaddr *)&t->address, t->size) < 0 &&
                      errno != EINPROGRESS)) {
        const int error = errno;
        close(fd);
        close(other);
        return error;
    }
    s->socket = s->connecting = true;
    s->datagram = type == SOCK_DGRAM;
    stream_open(s, fd, other, -1);
    s->in.watched = true;
    watch(agent.streams_epoll, fd, EPOLLOUT, stream_token(s, ROLE_IN));
    return 0;
}

void connect_request(uint32_t id, const struct request *request)
{
    struct target t = {.host = "127.0.0.1", .protocol = "tcp"};
    struct stream *s = stream_new(id);
    int error = s == NULL ? EMFILE : parse(&t, request);

    if (error == 0)
        error = open_socket(s, &t);
    if (error != 0) {
        session_fail(id, error, t.host);
        if (s != NULL)
            stream_free(s);
    }
}

void connect_done(struct stream *s)
{
    int error = 0;
    socklen_t size = sizeof error;

    getsockopt(s->in.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    s->connecting = false;
    if (error != 0) {
        session_fail(s->id, error, "connect");
        stream_free(s);
        return;
    }
    session_send(s->id, PV_STARTED, 0, NULL, 0);
    stream_connected(s);
}
