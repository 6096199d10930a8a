/* pyvirt's agent protocol: what travels between the host and the agent in a guest.
 *
 * Both directions are the same: a preamble, then frames. A receiver without a session hunts:
 * it drops bytes until a preamble. The preamble read as a header has a length that no frame
 * may have, so a peer that starts again in the middle is noticed. A new preamble from the
 * host ends everything that the session before it had started.
 *
 *   preamble   FF "pyvirt agent" CR LF 00
 *   frame      u32 length of payload   at most PV_FRAME_PAYLOAD
 *              u32 stream              chosen by the host, increasing; 0 is the connection
 *              u8  kind
 *              u8  channel             0 to the guest; 1 and 2 from it
 *              u16 zero
 *              payload
 *   fields     repeated: u8 tag, u24 length, bytes. Numbers are u64. Integers are
 *              little-endian everywhere. Unknown tags are skipped.
 *
 *   kind       from   payload
 *   HELLO      both   fields VERSION NONCE WINDOW; first frame of a session, stream 0. The
 *                     guest answers with the host's NONCE, so that an answer to an older hello
 *                     is recognised, with the COUNT of streams that it has room for, PID,
 *                     INIT_STATUS, HOSTNAME, KERNEL and MACHINE.
 *   PING PONG  host, guest   up to 64 bytes, echoed; stream 0
 *   EXEC       host   fields ARG.. | SHELL | APPLET ARG.., ENV.. CWD USER PTY NO_INPUT: opens
 *   CONNECT    host   fields PROTOCOL HOST PORT: opens a stream to a socket in the guest
 *   SHUTDOWN   host   fields ARG (powerdown, halt, reboot); answered by END, then done
 *   STARTED    guest  fields PID
 *   FAILED     guest  fields ERRNO WHAT: the stream did not open, and is over
 *   DATA       both   bytes, at most as many as there is credit for; one datagram for udp
 *   EOF        both   nothing follows on this channel; from the guest on 0: nobody reads it
 *   CREDIT     both   u32: so many more bytes may be sent on this channel
 *   SIGNAL     host   u32: send to the process group
 *   RESIZE     host   u16 rows, u16 columns
 *   CANCEL     host   kill the whole session of the process, close its streams
 *   EXITED     guest  fields EXIT_CODE or SIGNAL, DURATION: the process is gone; its output
 *                     may still come
 *   END        guest  the stream is over
 *
 * Credit begins at the WINDOW that the receiver named in its HELLO. Frames that the host
 * sends to a stream that ended meanwhile are dropped by the guest.
 *
 * An APPLET is an internal command that runs in a process of its own, so that nothing that
 * can wait stops the agent. It reads and writes channels 0 and 1 and writes fields on
 * channel 2: SIZE ahead of the data, ERRNO and WHAT when it fails with exit code 1.
 *   get PATH; put PATH MODE; pack DIR; unpack DIR (GNU tar on channels 1 and 0);
 *   info; listening PROTOCOL PORT (exit code 0 or 2); freeze; thaw (COUNT); settime NS
 */
#ifndef PV_FRAME_H
#define PV_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PV_FRAME_VERSION = 1,
    PV_FRAME_PREAMBLE = 16,
    PV_FRAME_HEADER = 12,
    PV_FRAME_PAYLOAD = 256 << 10,
    PV_FIELD_HEADER = 4,
};

enum pv_kind {
    PV_HELLO = 1,
    PV_PING,
    PV_PONG,
    PV_EXEC,
    PV_CONNECT,
    PV_SHUTDOWN,
    PV_STARTED,
    PV_FAILED,
    PV_DATA,
    PV_EOF,
    PV_CREDIT,
    PV_SIGNAL,
    PV_RESIZE,
    PV_CANCEL,
    PV_EXITED,
    PV_END,
    PV_KINDS,
};

enum pv_tag {
    PV_TAG_VERSION = 1,
    PV_TAG_NONCE,
    PV_TAG_WINDOW,
    PV_TAG_ARG,
    PV_TAG_SHELL,
    PV_TAG_APPLET,
    PV_TAG_ENV,
    PV_TAG_CWD,
    PV_TAG_USER,
    PV_TAG_PTY, /* u16 rows, u16 columns */
    PV_TAG_NO_INPUT,
    PV_TAG_PROTOCOL,
    PV_TAG_HOST,
    PV_TAG_PORT,
    PV_TAG_PID,
    PV_TAG_ERRNO,
    PV_TAG_WHAT,
    PV_TAG_EXIT_CODE,
    PV_TAG_SIGNAL,
    PV_TAG_DURATION, /* nanoseconds */
    PV_TAG_SIZE,
    PV_TAG_COUNT,
    PV_TAG_INIT_STATUS, /* of /etc/pyvirt/init, as wait(2) gives it */
    PV_TAG_HOSTNAME,
    PV_TAG_KERNEL,
    PV_TAG_MACHINE,
    PV_TAG_OS_RELEASE,
    PV_TAG_UPTIME, /* nanoseconds */
    PV_TAG_TIME,   /* nanoseconds since 1970 */
    PV_TAG_INTERFACE,  /* fields NAME MAC ADDRESS.. */
    PV_TAG_FILESYSTEM, /* fields NAME TYPE DEVICE TOTAL USED */
    PV_TAG_LOGIN,      /* fields NAME TIME */
    PV_TAG_NAME,
    PV_TAG_MAC,
    PV_TAG_ADDRESS,
    PV_TAG_TYPE,
    PV_TAG_DEVICE,
    PV_TAG_TOTAL,
    PV_TAG_USED,
};

typedef enum { PV_FRAME_OK, PV_FRAME_MORE, PV_FRAME_BAD } pv_frame_status;

typedef struct {
    uint32_t length, stream;
    uint8_t kind, channel;
} pv_frame;

typedef struct {
    uint8_t tag;
    size_t size;
    const uint8_t *data;
} pv_field;

/* Fields being written into a buffer; `full` once one did not fit (and was left out). */
typedef struct {
    uint8_t *data;
    size_t room, size;
    bool full;
} pv_fields;

extern const uint8_t pv_frame_preamble[PV_FRAME_PREAMBLE];

/* How many bytes a hunting receiver may drop; `found` when a whole preamble ends there. */
size_t pv_frame_hunt(const uint8_t *data, size_t size, bool *found);

/* Read the header of a frame whose payload may be incomplete: MORE asks for more bytes. */
pv_frame_status pv_frame_read(const uint8_t *data, size_t size, pv_frame *frame);
void pv_frame_write(uint8_t header[PV_FRAME_HEADER], const pv_frame *frame);

/* The field at *offset, which moves behind it: MORE at the end, BAD when it is cut short. */
pv_frame_status pv_field_next(const uint8_t *data, size_t size, size_t *offset, pv_field *field);

/* Whether the whole payload is well-formed fields. */
bool pv_field_check(const uint8_t *data, size_t size);

/* A number, or a whole flag field; other sizes than 8 bytes read as 0. */
uint64_t pv_field_number(const pv_field *field);

void pv_fields_bytes(pv_fields *fields, uint8_t tag, const void *data, size_t size);
void pv_fields_text(pv_fields *fields, uint8_t tag, const char *text);
void pv_fields_number(pv_fields *fields, uint8_t tag, uint64_t number);

/* Fields inside a field: what `begin` returns is given back to `end`. */
size_t pv_fields_begin(pv_fields *fields, uint8_t tag);
void pv_fields_end(pv_fields *fields, size_t begun);

uint32_t pv_frame_u32(const uint8_t *data);
uint16_t pv_frame_u16(const uint8_t *data);

#endif
