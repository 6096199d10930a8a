/* The port: bytes in, frames out, and the life of a session. */
#include "agent.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/utsname.h>
#include <unistd.h>

/* HUNTING drops bytes until a preamble, GREETING expects the HELLO behind it. */
static struct {
    int fd;
    enum { HUNTING, GREETING, TALKING } state;
    bool readable, writable;
    uint32_t last; /* the highest stream opened */
    size_t in_size, out_head, out_size;
    uint8_t in[PV_FRAME_HEADER + PV_FRAME_PAYLOAD];
    uint8_t out[OUT_SIZE];
} port;

void session_open(int fd)
{
    port.fd = fd;
    port.in_size = 0;
    port.readable = port.writable = true;
    watch(agent.epoll, fd, EPOLLIN | EPOLLOUT | EPOLLET, ROLE_PORT);
}

void session_reset(void)
{
    streams_drop();
    port.state = HUNTING;
    port.last = 0;
    port.out_head = port.out_size = 0;
}

/* While there is no room for a whole frame of data beside the ends of all streams, nothing is
 * taken from anywhere: neither from processes nor from the host. */
bool session_congested(void)
{
    return OUT_SIZE - port.out_size < DATA + RESERVE;
}

/* Where a frame's payload of up to *size* bytes may be written, before session_emit(). */
uint8_t *session_reserve(size_t size)
{
    if (port.out_head + port.out_size + PV_FRAME_HEADER + size > OUT_SIZE) {
        memmove(port.out, port.out + port.out_head, port.out_size);
        port.out_head = 0;
    }
    return port.out + port.out_head + port.out_size + PV_FRAME_HEADER;
}

void session_emit(uint32_t stream, enum pv_kind kind, uint8_t channel, size_t size)
{
    const pv_frame frame = {(uint32_t)size, stream, kind, channel};

    pv_frame_write(port.out + port.out_head + port.out_size, &frame);
    port.out_size += PV_FRAME_HEADER + size;
}

void session_send(uint32_t stream, enum pv_kind kind, uint8_t channel, const void *data,
                  size_t size)
{
    /* Cannot happen while callers ask session_congested(); a lost session is better than
     * memory written past its end. */
    if (port.out_size + PV_FRAME_HEADER + size > OUT_SIZE) {
        session_reset();
        return;
    }
    uint8_t *at = session_reserve(size);
    if (size > 0)
        memcpy(at, data, size);
    session_emit(stream, kind, channel, size);
}

void session_fail(uint32_t stream, int error, const char *what)
{
    uint8_t data[ERROR_SIZE];
    pv_fields fields = {data, sizeof data, 0, false};

    pv_fields_number(&fields, PV_TAG_ERRNO, (uint64_t)error);
    pv_fields_text(&fields, PV_TAG_WHAT, what);
    session_send(stream, PV_FAILED, 0, data, fields.size);
}

static void answer_hello(const pv_field *nonce)
{
    uint8_t data[1024];
    pv_fields fields = {data, sizeof data, 0, false};
    struct utsname uts;

    uname(&uts);
    pv_fields_number(&fields, PV_TAG_VERSION, PV_FRAME_VERSION);
    pv_fields_bytes(&fields, PV_TAG_NONCE, nonce->data, nonce->size);
    pv_fields_number(&fields, PV_TAG_WINDOW, WINDOW);
    pv_fields_number(&fields, PV_TAG_COUNT, MAX_STREAMS);
    pv_fields_number(&fields, PV_TAG_PID, (uint64_t)getpid());
    pv_fields_number(&fields, PV_TAG_INIT_STATUS, (uint64_t)(unsigned)agent.init_status);
    pv_fields_text(&fields, PV_TAG_HOSTNAME, uts.nodename);
    pv_fields_text(&fields, PV_TAG_KERNEL, uts.release);
    pv_fields_text(&fields, PV_TAG_MACHINE, uts.machine);
    memcpy(session_reserve(PV_FRAME_PREAMBLE) - PV_FRAME_HEADER, pv_frame_preamble,
           PV_FRAME_PREAMBLE);
    port.out_size += PV_FRAME_PREAMBLE;
    session_send(0, PV_HELLO, 0, data, fields.size);
}

static bool greet(const pv_frame *frame, const uint8_t *payload)
{
    pv_field field, nonce = {0, 0, payload};
    size_t offset = 0;

    if (frame->kind != PV_HELLO)
        return false;
    agent.window = 0;
    while (pv_field_next(payload, frame->length, &offset, &field) == PV_FRAME_OK) {
        if (field.tag == PV_TAG_NONCE && field.size <= 64)
            nonce = field;
        if (field.tag == PV_TAG_WINDOW)
            agent.window = pv_field_number(&field);
    }
    if (agent.window > UINT32_MAX / 4)
        agent.window = UINT32_MAX / 4;
    answer_hello(&nonce);
    return true;
}

static void end_guest(uint32_t id, const uint8_t *payload, size_t size)
{
    char mode[16] = "powerdown";
    pv_field field;
    size_t offset = 0;

    while (pv_field_next(payload, size, &offset, &field) == PV_FRAME_OK)
        if (field.tag == PV_TAG_ARG && field.size < sizeof mode) {
            memcpy(mode, field.data, field.size);
            mode[field.size] = 0;
        }
    const int error = agent.init ? shutdown_check(mode) : shutdown_begin(mode);
    if (error != 0) {
        session_fail(id, error, mode);
        return;
    }
    session_send(id, PV_END, 0, NULL, 0);
    session_flush(1000);
    if (agent.init)
        shutdown_now(mode);
}

/* A stream of the host's choosing begins; ids only grow, so that none is taken twice. */
static bool begin_stream(const pv_frame *frame, const uint8_t *payload)
{
    const struct request request = {payload, frame->length};

    if (frame->stream <= port.last || !pv_field_check(payload, frame->length))
        return false;
    port.last = frame->stream;
    if (frame->kind == PV_EXEC)
        exec_request(frame->stream, &request);
    else if (frame->kind == PV_CONNECT)
        connect_request(frame->stream, &request);
    else
        end_guest(frame->stream, payload, frame->length);
    return true;
}

/* Frames to a stream that is over crossed its END on the way, which is no mistake. */
static bool to_stream(const pv_frame *frame, const uint8_t *payload)
{
    struct stream *s = stream_find(frame->stream);

    if (s == NULL)
        return frame->stream != 0 && frame->stream <= port.last;
    if (frame->kind == PV_DATA)
        stream_data(s, payload, frame->length);
    else if (frame->kind == PV_EOF)
        stream_eof(s);
    else if (frame->kind == PV_CANCEL)
        stream_cancel(s);
    else if (frame->length != 4)
        return false;
    else if (frame->kind == PV_CREDIT)
        stream_credit(s, frame->channel, pv_frame_u32(payload));
    else if (frame->kind == PV_SIGNAL)
        stream_signal(s, (int)pv_frame_u32(payload));
    else
        stream_resize(s, pv_frame_u16(payload), pv_frame_u16(payload + 2));
    return true;
}

static bool handle(const pv_frame *frame, const uint8_t *payload)
{
    switch (frame->kind) {
    case PV_PING:
        if (frame->length > 64)
            return false;
        session_send(0, PV_PONG, 0, payload, frame->length);
        return true;
    case PV_EXEC:
    case PV_CONNECT:
    case PV_SHUTDOWN:
        return begin_stream(frame, payload);
    case PV_DATA:
    case PV_EOF:
    case PV_CREDIT:
    case PV_SIGNAL:
    case PV_RESIZE:
    case PV_CANCEL:
        return to_stream(frame, payload);
    default:
        return false;
    }
}

static size_t hunt(const uint8_t *data, size_t size)
{
    bool found;
    const size_t junk = pv_frame_hunt(data, size, &found);

    if (found)
        port.state = GREETING;
    return junk;
}

/* Take one frame, or the junk before a preamble, from the front of the input. Returns how
 * many bytes that was; 0 when more are needed. */
static size_t step(const uint8_t *data, size_t size)
{
    const uint8_t *payload = data + PV_FRAME_HEADER;
    pv_frame frame;

    if (port.state == HUNTING)
        return hunt(data, size);
    const pv_frame_status status = pv_frame_read(data, size, &frame);
    if (status == PV_FRAME_MORE)
        return 0;
    if (status == PV_FRAME_OK && port.state == GREETING && greet(&frame, payload)) {
        port.state = TALKING;
        return PV_FRAME_HEADER + frame.length;
    }
    if (status == PV_FRAME_OK && port.state == TALKING && handle(&frame, payload))
        return PV_FRAME_HEADER + frame.length;
    /* What could not be read may be the next preamble: nothing is consumed unseen. */
    session_reset();
    return hunt(data, size);
}

static void consume(void)
{
    size_t at = 0, taken;

    while (!session_congested() && (taken = step(port.in + at, port.in_size - at)) > 0)
        at += taken;
    port.in_size -= at;
    memmove(port.in, port.in + at, port.in_size);
}

static void flush(void)
{
    while (port.writable && port.out_size > 0) {
        const ssize_t n = write(port.fd, port.out + port.out_head, port.out_size);
        if (n <= 0) {
            port.writable = false;
            return;
        }
        port.out_head += (size_t)n;
        port.out_size -= (size_t)n;
        if (port.out_size == 0)
            port.out_head = 0;
    }
}

/* Before the guest ends: give the answer a moment to leave. */
void session_flush(int milliseconds)
{
    flush();
    while (port.out_size > 0) {
        struct pollfd wait = {port.fd, POLLOUT, 0};
        if (poll(&wait, 1, milliseconds) <= 0 || wait.revents & (POLLERR | POLLHUP))
            return;
        port.writable = true;
        flush();
    }
}

/* The host let go, and what it still had sent is nobody's wish any more. A virtio port stays,
 * and tells when somebody is there again; false when it does not. */
static bool hung_up(void)
{
    ssize_t n;

    session_reset();
    while ((n = read(port.fd, port.in, sizeof port.in)) > 0)
        ;
    port.in_size = 0;
    port.readable = false;
    return !agent.once && (n == 0 || errno == EAGAIN);
}

/* One turn for the port; false when it is gone for good. */
bool session_turn(uint32_t events)
{
    if (events & (EPOLLHUP | EPOLLERR))
        return hung_up();
    if (events & EPOLLIN)
        port.readable = true;
    if (events & EPOLLOUT)
        port.writable = true;
    for (int turns = 0; turns < 32; turns++) {
        consume();
        flush();
        if (!port.readable || session_congested())
            break;
        const ssize_t n = read(port.fd, port.in + port.in_size, sizeof port.in - port.in_size);
        if (n > 0)
            port.in_size += (size_t)n;
        else if (n < 0 && errno == EAGAIN)
            port.readable = false;
        else
            return hung_up();
    }
    return true;
}

/* Whether the port has work that no event will announce. */
bool session_busy(void)
{
    return port.readable && !session_congested();
}
