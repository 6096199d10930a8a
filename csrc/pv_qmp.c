/* QMP's framing: which bytes are one message, and of which kind.
 *
 * A message ends where its outermost brace does, not at a newline, so a monitor with
 * pretty=on is understood too. Values are only skipped here (brackets must match, strings
 * must be well-formed); whoever wants one decodes it. The outermost object is checked
 * member by member, because from its keys comes the kind.
 *
 *   place   BETWEEN --{--> VALUE <--"--> STRING <--\--> ESCAPE
 *   expect  (outermost object)  KEY -string-> COLON -:-> MEMBER -,-> KEY
 *
 * Each byte is looked at once however the stream is cut; only a message with bytes beyond
 * ASCII is passed over a second time, when it is whole, to check its UTF-8.
 */
#include "pv_qmp.h"

#include <string.h>

enum { BETWEEN, VALUE, STRING, ESCAPE };
enum { KEY, COLON, MEMBER };

#define ONES 0x0101010101010101u
#define TOPS 0x8080808080808080u

static uint64_t load(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* Set top bits say: some byte is `c`, a control character or beyond ASCII. Exact enough: a
 * false alarm only sends one byte through the slow way. */
static uint64_t has_byte(uint64_t word, uint8_t c)
{
    uint64_t x = word ^ (ONES * c);
    return (x - ONES) & ~x & TOPS;
}

/* The first byte from `at` that is not plain string text. */
static size_t skip_text(const uint8_t *p, size_t at, size_t size)
{
    while (size - at >= 8) {
        uint64_t word = load(p + at);
        uint64_t control = (word - ONES * 0x20) & ~word;
        if ((has_byte(word, '"') | has_byte(word, '\\') | ((control | word) & TOPS)) != 0)
            break;
        at += 8;
    }
    while (at < size && p[at] >= 0x20 && p[at] < 0x80 && p[at] != '"' && p[at] != '\\')
        at++;
    return at;
}

/* The length of the UTF-8 sequence at p, 0 if there is none (Unicode 15, table 3-7). */
static size_t utf8_length(const uint8_t *p, size_t left)
{
    static const struct { uint8_t from, to, low, high, length; } rows[] = {
        {0x00, 0x7f, 0x00, 0xff, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        if (p[0] < rows[row].from || p[0] > rows[row].to)
            continue;
        if (rows[row].length > left)
            return 0;
        for (size_t i = 1; i < rows[row].length; i++) {
            uint8_t low = i == 1 ? rows[row].low : 0x80, high = i == 1 ? rows[row].high : 0xbf;
            if (p[i] < low || p[i] > high)
                return 0;
        }
        return rows[row].length;
    }
    return 0;
}

/* The first byte of [at, end) that is not UTF-8, or `end`. */
static size_t utf8_fault(const uint8_t *p, size_t at, size_t end)
{
    while (at < end) {
        if (end - at >= 8 && (load(p + at) & TOPS) == 0) {
            at += 8;
            continue;
        }
        size_t length = utf8_length(p + at, end - at);
        if (length == 0)
            break;
        at += length;
    }
    return at;
}

static int key_is(const pv_qmp_state *s, const uint8_t *p, const char *key)
{
    size_t length = strlen(key);
    return s->key_end - s->key == length && memcmp(p + s->start + s->key, key, length) == 0;
}

/* A member of the outermost object ended before s->at. */
static pv_qmp_status take_member(pv_qmp_state *s, const uint8_t *p)
{
    static const char *const kinds[] = {0, "QMP", "return", "error", "event"};
    const uint32_t end = s->at - s->start;

    for (uint32_t kind = PV_QMP_GREETING; kind <= PV_QMP_EVENT; kind++) {
        if (!key_is(s, p, kinds[kind]))
            continue;
        if (s->found.kind != PV_QMP_NOTHING)
            return PV_QMP_KIND;
        s->found.kind = kind;
        s->found.value = s->value;
        s->found.value_end = end;
    }
    if (key_is(s, p, "id")) {
        if (s->found.id_end != 0)
            return PV_QMP_KIND;
        s->found.id = s->value;
        s->found.id_end = end;
    }
    s->expect = KEY;
    return PV_QMP_OK;
}

/* Whether somebody wants the event whose name, quotes and blanks around it, is [at, end). */
static int is_wanted(const uint8_t *p, size_t at, size_t end,
                     const uint8_t *wanted, size_t wanted_size)
{
    if (wanted == NULL)
        return 1;
    while (at < end && p[at] != '"')
        at++;
    size_t length = 0;
    while (at + 1 + length < end && p[at + 1 + length] != '"')
        length++;
    for (size_t from = 0; from < wanted_size;) {
        const uint8_t *stop = memchr(wanted + from, '\n', wanted_size - from);
        size_t to = stop == NULL ? wanted_size : (size_t)(stop - wanted);
        if (to - from == length && memcmp(wanted + from, p + at + 1, length) == 0)
            return 1;
        from = to + 1;
    }
    return 0;
}

/* The outermost brace closed just before s->at: hand the message out with offsets from the
 * start of the buffer. */
static pv_qmp_status finish(pv_qmp_state *s, const uint8_t *p,
                            const uint8_t *wanted, size_t wanted_size,
                            pv_qmp_message *out, size_t *count, size_t *where)
{
    pv_qmp_message found = s->found;

    *where = s->start;
    if (found.kind == PV_QMP_NOTHING)
        return PV_QMP_KIND;
    if (s->wide && (*where = utf8_fault(p, s->start, s->at)) != s->at)
        return PV_QMP_UTF8;
    found.depth = s->deepest;
    found.start = s->start;
    found.end = s->at;
    found.value += s->start;
    found.value_end += s->start;
    if (found.id_end != 0) {
        found.id += s->start;
        found.id_end += s->start;
    }
    s->start = s->at;
    s->place = BETWEEN;
    if (found.kind == PV_QMP_EVENT
        && !is_wanted(p, found.value, found.value_end, wanted, wanted_size))
        s->unwanted++;
    else
        out[(*count)++] = found;
    return PV_QMP_OK;
}

static void begin(pv_qmp_state *s)
{
    memset(&s->found, 0, sizeof s->found);
    s->start = s->at;
    s->depth = s->deepest = s->wide = 0;
    s->expect = KEY;
    s->place = VALUE;
}

/* Enter an object or array; 0 if that is too deep. */
static int enter(pv_qmp_state *s, const pv_qmp_limits *limits, int array)
{
    if (s->depth >= limits->depth || s->depth >= PV_QMP_MAX_DEPTH)
        return 0;
    const uint64_t bit = (uint64_t)1 << (s->depth % 64);
    if (array)
        s->shape[s->depth / 64] |= bit;
    else
        s->shape[s->depth / 64] &= ~bit;
    s->depth++;
    if (s->depth > s->deepest)
        s->deepest = s->depth;
    return 1;
}

/* Leave an object or array; 0 if the other one was entered last. */
static int leave(pv_qmp_state *s, int array)
{
    const uint32_t level = s->depth - 1;

    if ((int)(s->shape[level / 64] >> (level % 64) & 1) != array)
        return 0;
    s->depth--;
    return 1;
}

static pv_qmp_status open_level(pv_qmp_state *s, const pv_qmp_limits *limits, int array)
{
    if (s->depth == 1 && s->expect != MEMBER)
        return PV_QMP_GARBAGE;
    return enter(s, limits, array) ? PV_QMP_OK : PV_QMP_DEEP;
}

static pv_qmp_status close_level(pv_qmp_state *s, const uint8_t *p, int array)
{
    if (!leave(s, array))
        return PV_QMP_GARBAGE;
    if (s->depth > 0)
        return PV_QMP_OK;
    return s->expect == MEMBER ? take_member(s, p) : PV_QMP_GARBAGE;
}

/* Nearly all bytes of a large reply lie below its outermost object, where only brackets and
 * strings matter. Pass over as many of them as are in [s->at, stop); what is left, if
 * anything, is for step(): the end of that level, a string that is cut, or a fault. */
static void skim(pv_qmp_state *s, const pv_qmp_limits *limits, const uint8_t *p, size_t stop)
{
    size_t at = s->at;

    while (at < stop && s->depth > 1) {
        const uint8_t c = p[at];
        if (c == '"') {
            const size_t end = skip_text(p, at + 1, stop);
            if (end == stop || p[end] != '"')
                break;
            at = end + 1;
        } else if (c == '{' || c == '[') {
            if (!enter(s, limits, c == '['))
                break;
            at++;
        } else if (c == '}' || c == ']') {
            if (!leave(s, c == ']'))
                break;
            at++;
        } else if ((c > 0x20 && c < 0x7f) || c == ' ' || c == '\n' || c == '\r' || c == '\t') {
            at++;
        } else {
            break;
        }
    }
    s->at = (uint32_t)at;
}

static pv_qmp_status close_string(pv_qmp_state *s)
{
    s->place = VALUE;
    if (s->depth == 1 && s->expect == KEY) {
        s->key_end = s->at - s->start;
        s->expect = COLON;
    }
    return PV_QMP_OK;
}

static pv_qmp_status open_string(pv_qmp_state *s)
{
    s->place = STRING;
    if (s->depth == 1 && s->expect == COLON)
        return PV_QMP_GARBAGE;
    if (s->depth == 1 && s->expect == KEY)
        s->key = s->at + 1 - s->start;
    return PV_QMP_OK;
}

/* One byte of a value, outside strings. */
static pv_qmp_status step_value(pv_qmp_state *s, const pv_qmp_limits *limits, const uint8_t *p)
{
    const uint8_t c = p[s->at];

    switch (c) {
    case ' ': case '\t': case '\r': case '\n':
        return PV_QMP_OK;
    case '"':
        return open_string(s);
    case '{': case '[':
        return open_level(s, limits, c == '[');
    case '}': case ']':
        return close_level(s, p, c == ']');
    case ':':
        if (s->depth > 1)
            return PV_QMP_OK;
        if (s->expect != COLON)
            return PV_QMP_GARBAGE;
        s->value = s->at + 1 - s->start;
        s->expect = MEMBER;
        return PV_QMP_OK;
    case ',':
        if (s->depth > 1)
            return PV_QMP_OK;
        return s->expect == MEMBER ? take_member(s, p) : PV_QMP_GARBAGE;
    default:
        if (c < 0x20 || c >= 0x7f || (s->depth == 1 && s->expect != MEMBER))
            return PV_QMP_GARBAGE;
        return PV_QMP_OK;
    }
}

/* One byte that skip_text stopped at. */
static pv_qmp_status step_string(pv_qmp_state *s, uint8_t c)
{
    if (c == '"')
        return close_string(s);
    if (c < 0x20)
        return PV_QMP_GARBAGE;
    if (c == '\\')
        s->place = ESCAPE;
    else if (c >= 0x80)
        s->wide = 1;
    return PV_QMP_OK;
}

static pv_qmp_status step_between(pv_qmp_state *s, const pv_qmp_limits *limits, uint8_t c)
{
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
        return PV_QMP_OK;
    if (c != '{')
        return PV_QMP_GARBAGE;
    begin(s);
    return open_level(s, limits, 0);
}

static pv_qmp_status step(pv_qmp_state *s, const pv_qmp_limits *limits, const uint8_t *p)
{
    switch (s->place) {
    case BETWEEN:
        return step_between(s, limits, p[s->at]);
    case STRING:
        return step_string(s, p[s->at]);
    case ESCAPE:
        s->place = STRING;
        return p[s->at] < 0x20 || p[s->at] >= 0x80 ? PV_QMP_GARBAGE : PV_QMP_OK;
    default:
        return step_value(s, limits, p);
    }
}

pv_qmp_status pv_qmp_scan(pv_qmp_state *s, const pv_qmp_limits *limits,
                          const uint8_t *p, size_t size,
                          const uint8_t *wanted, size_t wanted_size,
                          pv_qmp_message *out, size_t cap, size_t *count, size_t *where)
{
    *count = 0;
    while (s->at < size && *count < cap) {
        const size_t stop = s->place == BETWEEN || size - s->start <= limits->size
                          ? size : s->start + (size_t)limits->size;
        if (s->place == STRING)
            s->at = (uint32_t)skip_text(p, s->at, stop);
        else if (s->place == VALUE && s->depth > 1)
            skim(s, limits, p, stop);
        if (s->at == stop)
            break;
        pv_qmp_status status = step(s, limits, p);
        *where = s->at;
        if (status != PV_QMP_OK)
            return status;
        s->at++;
        if (s->place == BETWEEN) {
            s->start = s->at;
        } else if (s->depth == 0) {
            status = finish(s, p, wanted, wanted_size, out, count, where);
            if (status != PV_QMP_OK)
                return status;
        }
    }
    *where = (size_t)s->start + limits->size;
    return s->place != BETWEEN && s->at == *where ? PV_QMP_LONG : PV_QMP_OK;
}

void pv_qmp_moved(pv_qmp_state *s)
{
    s->at -= s->start;
    s->start = 0;
}
