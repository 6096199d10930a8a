/* What pyvirt does with split virtqueues, as somebody would write it for just this: `rings MEMORY
 * sample ROUNDS RING...` notes the indexes of all rings, `walk ROUNDS RING` follows all chains in
 * flight. RING is the address of its descriptor table and its size, with the areas behind each
 * other as RingLayout.at puts them: DESC,DRIVER,DEVICE,SIZE. Prints nanoseconds of processor time
 * and what came out. It trusts the rings. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

typedef struct {
    const uint8_t *desc, *driver, *device;
    uint32_t size;
} ring;

typedef struct {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
} desc;

typedef struct {
    uint64_t readable, writable;
    uint32_t count;
    uint16_t slots, head;
    uint32_t first, status;
} chain;

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint16_t index_of(const uint8_t *area)
{
    return __atomic_load_n((const uint16_t *)(area + 2), __ATOMIC_ACQUIRE);
}

static uint64_t sample(const ring *rings, size_t count, uint16_t (*out)[4])
{
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++) {
        uint16_t used, avail;
        do {
            used = index_of(rings[i].device);
            avail = index_of(rings[i].driver);
        } while (index_of(rings[i].device) != used);
        out[i][0] = avail;
        out[i][1] = used;
        out[i][2] = (uint16_t)(avail - used);
        out[i][3] = out[i][2] > rings[i].size;
        sum += out[i][2];
    }
    return sum;
}

static size_t follow(const uint8_t *memory, const uint8_t *table, uint16_t at, chain *to, desc *out,
                     size_t used)
{
    for (;;) {
        desc d;
        memcpy(&d, table + 16 * (size_t)at, sizeof d);
        to->slots += table != memory && to->status == 0;
        if (d.flags & 4) {
            to->status = 1;
            return follow(memory, memory + d.address, 0, to, out, used);
        }
        out[used++] = d;
        to->count++;
        if (d.flags & 2)
            to->writable += d.length;
        else
            to->readable += d.length;
        if (!(d.flags & 1))
            return used;
        at = d.next;
    }
}

static uint64_t walk(const uint8_t *memory, const ring *r, chain *chains, desc *out)
{
    const uint16_t avail = index_of(r->driver), used = index_of(r->device);
    size_t count = 0, at = 0;
    uint64_t sum = 0;

    for (uint16_t i = used; i != avail; i++) {
        uint16_t head;
        memcpy(&head, r->driver + 4 + 2 * (i % r->size), 2);
        chain c = {.head = head, .first = (uint32_t)at};
        at = follow(memory, r->desc, head, &c, out, at);
        c.status = 0;
        chains[count++] = c;
        sum += c.readable + c.writable;
    }
    return sum + at;
}

int main(int count, char **words)
{
    struct stat st;
    const int fd = open(words[1], O_RDONLY);

    if (count < 5 || fd < 0 || fstat(fd, &st) != 0)
        return 2;
    const uint8_t *memory = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    const long rounds = atol(words[3]);
    const size_t rings_count = (size_t)count - 4;
    ring *rings = calloc(rings_count, sizeof *rings);
    for (size_t i = 0; i < rings_count; i++) {
        uint64_t a, b, c;
        uint32_t size;
        if (sscanf(words[i + 4], "%" SCNu64 ",%" SCNu64 ",%" SCNu64 ",%" SCNu32, &a, &b, &c,
                   &size) != 4)
            return 2;
        rings[i] = (ring){memory + a, memory + b, memory + c, size};
    }
    uint16_t(*out)[4] = calloc(rings_count, sizeof *out);
    chain *chains = calloc(1 << 16, sizeof *chains);
    desc *descs = calloc(1 << 18, sizeof *descs);
    uint64_t sum = words[2][0] == 's' ? sample(rings, rings_count, out)
                                      : walk(memory, rings, chains, descs);
    const uint64_t begun = now();
    for (long i = 0; i < rounds; i++)
        sum = words[2][0] == 's' ? sample(rings, rings_count, out)
                                 : walk(memory, rings, chains, descs);
    printf("%" PRIu64 " %" PRIu64 "\n", now() - begun, sum);
    return 0;
}
