/* A plain program that does what pyvirt does with the tables of a qcow2 image, as somebody
 * would write it for just this: `map FILE [DUMP]` makes columns of extents, `check FILE` rebuilds
 * the refcounts, `read FILE` only reads the L2 tables. Prints nanoseconds of processor time and
 * what came out. Only for images of the benchmark. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define OFFSET 0x00fffffffffffe00u

typedef struct {
    uint64_t size, l1_offset, table_offset, file_size;
    uint32_t l1_size, bits, table_clusters;
    bool extended;
    int fd;
} image;

static void *room(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    madvise(p, size, MADV_HUGEPAGE);
    return p;
}

static uint64_t be64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return __builtin_bswap64(v);
}

static uint32_t be32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}

static void get(const image *i, void *p, size_t size, uint64_t offset)
{
    if (pread(i->fd, p, size, (off_t)offset) != (ssize_t)size)
        exit(2);
}

static image open_image(const char *path)
{
    image i = {.fd = open(path, O_RDONLY)};
    uint8_t h[104];
    struct stat st;
    get(&i, h, sizeof h, 0);
    fstat(i.fd, &st);
    i.file_size = (uint64_t)st.st_size;
    i.bits = be32(h + 20);
    i.size = be64(h + 24);
    i.l1_size = be32(h + 36);
    i.l1_offset = be64(h + 40);
    i.table_offset = be64(h + 48);
    i.table_clusters = be32(h + 56);
    i.extended = be64(h + 72) & 16;
    return i;
}

/* -- Extents ------------------------------------------------------------------------------- */

static uint64_t *start, *length, *host;
static uint8_t *flags;
static size_t count;
static uint64_t expect;

static void add(uint64_t guest, uint64_t size, uint64_t place, uint8_t flag)
{
    if (count > 0 && flags[count - 1] == flag && place == expect) {
        length[count - 1] += size;
    } else {
        start[count] = guest;
        length[count] = size;
        host[count] = place;
        flags[count++] = flag;
    }
    expect = place ? place + size : 0;
}

static void map(const image *i)
{
    const uint64_t cluster = UINT64_C(1) << i->bits, sub = cluster / 32;
    const size_t entries = cluster / (i->extended ? 16 : 8);
    uint64_t most = i->size / (i->extended ? sub : cluster) + 2;
    uint8_t *l1 = malloc(i->l1_size * 8), *l2 = malloc(cluster);

    start = room(most * 8), length = room(most * 8), host = room(most * 8), flags = room(most);
    get(i, l1, i->l1_size * 8, i->l1_offset);
    for (uint64_t t = 0; t < i->l1_size; t++) {
        const uint64_t offset = be64(l1 + 8 * t) & OFFSET, guest = t * entries * cluster;
        if (!offset) {
            add(guest, entries * cluster, 0, 2);
            continue;
        }
        get(i, l2, cluster, offset);
        for (size_t e = 0; e < entries; e++) {
            const uint64_t entry = be64(l2 + (i->extended ? 16 : 8) * e), place = entry & OFFSET;
            const uint64_t at = guest + e * cluster;
            if (!i->extended) {
                add(at, cluster, place, place ? 25 : entry & 1 ? 10 : 2);
                continue;
            }
            const uint64_t bitmap = be64(l2 + 16 * e + 8);
            for (unsigned s = 0; s < 32; s++) {
                const uint8_t flag = bitmap >> s & 1 ? 25 : bitmap >> 32 >> s & 1 ? 10 : 2;
                add(at + s * sub, sub, place ? place + s * sub : 0, flag | (place ? 16 : 0));
            }
        }
    }
}

static void dump(const char *path)
{
    FILE *f = fopen(path, "wb");
    fwrite(start, 8, count, f);
    fwrite(length, 8, count, f);
    fwrite(host, 8, count, f);
    fwrite(flags, 1, count, f);
    fclose(f);
}

/* -- Check ----------------------------------------------------------------------------------- */

static uint64_t check(const image *i)
{
    const uint64_t cluster = UINT64_C(1) << i->bits;
    const uint64_t clusters = (i->file_size + cluster - 1) >> i->bits;
    uint16_t *stored = room(clusters * 2), *found = room(clusters * 2);
    uint8_t *l1 = malloc(i->l1_size * 8), *l2 = malloc(cluster), *table = malloc(cluster);
    uint64_t wrong = 0;

    get(i, table, cluster, i->table_offset);
    for (uint64_t b = 0; b < cluster / 8; b++) {
        const uint64_t offset = be64(table + 8 * b), first = b * (cluster / 2);
        if (!offset || first >= clusters)
            continue;
        get(i, l2, cluster, offset);
        found[offset >> i->bits]++;
        for (uint64_t c = 0; c < cluster / 2 && first + c < clusters; c++)
            stored[first + c] = (uint16_t)(l2[2 * c] << 8 | l2[2 * c + 1]);
    }
    found[0]++;
    found[i->table_offset >> i->bits]++;
    for (uint64_t c = 0; c * cluster < i->l1_size * 8; c++)
        found[(i->l1_offset >> i->bits) + c]++;
    get(i, l1, i->l1_size * 8, i->l1_offset);
    for (uint64_t t = 0; t < i->l1_size; t++) {
        const uint64_t one = be64(l1 + 8 * t), offset = one & OFFSET;
        if (!offset)
            continue;
        found[offset >> i->bits]++;
        wrong += (stored[offset >> i->bits] == 1) != one >> 63;
        get(i, l2, cluster, offset);
        for (uint64_t e = 0; e < cluster / 8; e += i->extended ? 2 : 1) {
            const uint64_t entry = be64(l2 + 8 * e), at = (entry & OFFSET) >> i->bits;
            if (!at)
                continue;
            if (at >= clusters)
                exit(3);
            found[at]++;
            wrong += (stored[at] == 1) != entry >> 63;
        }
    }
    for (uint64_t c = 0; c < clusters; c++)
        wrong += stored[c] != found[c];
    return wrong;
}

/* How many tables there are: what any map must read at least. */
static uint64_t read_tables(const image *i)
{
    const uint64_t cluster = UINT64_C(1) << i->bits;
    uint8_t *l1 = malloc(i->l1_size * 8), *l2 = malloc(cluster);
    uint64_t tables = 0;

    get(i, l1, i->l1_size * 8, i->l1_offset);
    for (uint64_t t = 0; t < i->l1_size; t++) {
        const uint64_t offset = be64(l1 + 8 * t) & OFFSET;
        if (offset) {
            get(i, l2, cluster, offset);
            tables++;
        }
    }
    return tables;
}

int main(int argc, char **argv)
{
    struct timespec a, b;
    uint64_t result;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    const image i = open_image(argv[2]);
    if (strcmp(argv[1], "map") == 0) {
        map(&i);
        result = count;
    } else if (strcmp(argv[1], "read") == 0) {
        result = read_tables(&i);
    } else {
        result = check(&i);
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    printf("%" PRId64 " %" PRIu64 "\n",
           (int64_t)(b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec, result);
    if (argc > 3)
        dump(argv[3]);
    return 0;
}
