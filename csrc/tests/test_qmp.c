/* QMP's framing: whole, a byte at a time, cut in two at every place, damaged. However a
 * stream is cut, the same messages and the same fault must come of it. Built with -DFUZZ it
 * is a libFuzzer target instead. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pv_qmp.h"

#define MOST 4096  /* messages of one stream; one takes at least nine bytes */

typedef struct {
    pv_qmp_message messages[MOST];
    size_t count, where;
    pv_qmp_status status;
    uint64_t unwanted;
} outcome;

static const uint8_t wanted[] = "STOP\nRESUME\n";

/* Read `data` as it arrives in pieces of `piece` bytes, dropping what is used up. The bytes
 * lie in a block of just their size, so that the sanitizer sees a read beyond them. */
static void follow(const uint8_t *data, size_t size, size_t piece, const pv_qmp_limits *limits,
                   outcome *all)
{
    pv_qmp_state state = {0};
    size_t dropped = 0, arrived = 0;

    memset(all, 0, sizeof *all);
    while (arrived < size && all->status == PV_QMP_OK) {
        arrived += piece < size - arrived ? piece : size - arrived;
        uint8_t *buffer = malloc(arrived - dropped);
        assert(buffer != NULL);
        memcpy(buffer, data + dropped, arrived - dropped);
        size_t count, where = 0;
        do {
            assert(all->count + 3 <= MOST);
            pv_qmp_message *out = all->messages + all->count;
            all->status = pv_qmp_scan(&state, limits, buffer, arrived - dropped,
                                      wanted, sizeof wanted - 1, out, 3, &count, &where);
            for (size_t i = 0; i < count; i++) {
                const pv_qmp_message *m = out + i;
                assert(m->start < m->end && m->end <= arrived - dropped);
                assert(m->end - m->start <= limits->size && m->depth <= limits->depth);
                assert(m->start < m->value && m->value <= m->value_end && m->value_end < m->end);
                assert(m->id <= m->id_end && m->id_end < m->end);
                assert(buffer[m->start] == '{' && buffer[m->end - 1] == '}');
                out[i].start += dropped;
                out[i].end += dropped;
                out[i].value += dropped;
                out[i].value_end += dropped;
                if (out[i].id_end != 0) {
                    out[i].id += dropped;
                    out[i].id_end += dropped;
                }
            }
            all->count += count;
        } while (all->status == PV_QMP_OK && count > 0);
        all->where = all->status == PV_QMP_OK ? 0 : where + dropped;
        assert(all->where <= arrived);
        free(buffer);
        dropped += state.start;
        pv_qmp_moved(&state);
    }
    all->unwanted = state.unwanted;
}

static int same(const outcome *a, const outcome *b)
{
    return a->count == b->count && a->status == b->status && a->where == b->where
        && a->unwanted == b->unwanted
        && memcmp(a->messages, b->messages, a->count * sizeof *a->messages) == 0;
}

/* Whole and in pieces of several sizes. */
static void check(const uint8_t *data, size_t size, const pv_qmp_limits *limits, outcome *whole)
{
    static outcome parts;

    follow(data, size, size == 0 ? 1 : size, limits, whole);
    for (size_t piece = 1; piece <= 17; piece += piece < 3 ? 1 : 7) {
        follow(data, size, piece, limits, &parts);
        assert(same(whole, &parts));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static outcome whole;

    if (size < 2 || size > MOST)
        return 0;
    pv_qmp_limits limits = {1 + data[0] * 16u, 1 + data[1]};
    check(data + 2, size - 2, &limits, &whole);
    return 0;
}

#ifndef FUZZ
static const pv_qmp_limits usual = {1 << 20, PV_QMP_MAX_DEPTH};

static const char stream[] =
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22}}, \"capabilities\": [\"oob\"]}}\r\n"
    "{\"return\": {}}\r\n"
    "{\"timestamp\": {\"seconds\": 1}, \"event\": \"STOP\", \"data\": {\"a\": [1, \"}\\\"{\"]}}\r\n"
    "{\"timestamp\": {\"seconds\": 1}, \"event\": \"POWERDOWN\"}\r\n"
    "{\"id\": 7, \"error\": {\"class\": \"GenericError\", \"desc\": \"gr\xc3\xbc\xc3\x9f\"}}\r\n"
    "{\n    \"return\": [\n        1.5e3, true, null, \"\\u00e9\"\n    ]\n}\n";

static void expect(const char *text, pv_qmp_limits limits, pv_qmp_status status, size_t where)
{
    static outcome whole;

    check((const uint8_t *)text, strlen(text), &limits, &whole);
    if (whole.status != status || whole.where != where) {
        fprintf(stderr, "%s: status %d at %zu, expected %d at %zu\n",
                text, whole.status, whole.where, status, where);
        abort();
    }
}

static void test_kinds(void)
{
    static const uint32_t kinds[] = {PV_QMP_GREETING, PV_QMP_RETURN, PV_QMP_EVENT, PV_QMP_ERROR,
                                     PV_QMP_RETURN};
    static outcome whole;

    check((const uint8_t *)stream, sizeof stream - 1, &usual, &whole);
    assert(whole.status == PV_QMP_OK && whole.count == 5 && whole.unwanted == 1);
    for (size_t i = 0; i < 5; i++)
        assert(whole.messages[i].kind == kinds[i]);
    const pv_qmp_message *error = whole.messages + 3, *event = whole.messages + 2;
    assert(memcmp(stream + error->id, " 7", 2) == 0 && error->id_end - error->id == 2);
    assert(event->depth == 3);
    assert(memcmp(stream + event->value, " \"STOP\"", event->value_end - event->value) == 0);
}

static void test_faults(void)
{
    const pv_qmp_limits small = {12, 3};

    expect("x", usual, PV_QMP_GARBAGE, 0);
    expect("[]", usual, PV_QMP_GARBAGE, 0);
    expect("{\"return\": [}", usual, PV_QMP_GARBAGE, 12);
    expect("{\"return\" 1}", usual, PV_QMP_GARBAGE, 10);
    expect("{\"return\": 1,}", usual, PV_QMP_GARBAGE, 13);
    expect("{}", usual, PV_QMP_GARBAGE, 1);
    expect("{\"return\": \"\n\"}", usual, PV_QMP_GARBAGE, 12);
    expect("{\"a\": 1}", usual, PV_QMP_KIND, 0);
    expect("{\"return\": 1, \"error\": 1}", usual, PV_QMP_KIND, 24);
    expect("{\"return\": \"\xff\"}", usual, PV_QMP_UTF8, 12);
    expect("{\"return\": \"\xed\xa0\x80\"}", usual, PV_QMP_UTF8, 12);
    expect("{\"return\":1}", small, PV_QMP_OK, 0);
    expect("{\"return\":12}", small, PV_QMP_LONG, 12);
    expect(" {\"return\":\"12345", small, PV_QMP_LONG, 13);
    expect("{\"a\":[[[", small, PV_QMP_DEEP, 7);
}

static void test_cut_everywhere(void)
{
    static outcome whole, cut;

    follow((const uint8_t *)stream, sizeof stream - 1, sizeof stream, &usual, &whole);
    for (size_t piece = 1; piece < sizeof stream; piece++) {
        follow((const uint8_t *)stream, sizeof stream - 1, piece, &usual, &cut);
        assert(same(&whole, &cut));
        follow((const uint8_t *)stream, piece, piece, &usual, &cut);
        assert(cut.status == PV_QMP_OK && cut.count <= whole.count);
    }
}

static void test_damaged(void)
{
    static const char dirt[] = "{}[]\",:\\ \n\x01\x80\xc3\xff" "0e";
    static outcome whole;
    uint8_t copy[sizeof stream];

    srand(1);
    for (int round = 0; round < 5000; round++) {
        memcpy(copy, stream, sizeof stream);
        for (int i = rand() % 4; i >= 0; i--)
            copy[rand() % (sizeof stream - 1)] = (uint8_t)dirt[rand() % (sizeof dirt - 1)];
        check(copy, (size_t)rand() % sizeof stream, &usual, &whole);
    }
}

int main(void)
{
    test_kinds();
    test_faults();
    test_cut_everywhere();
    test_damaged();
    puts("qmp: ok");
    return 0;
}
#endif
