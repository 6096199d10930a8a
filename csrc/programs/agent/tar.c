/* pack DIR and unpack DIR: a tree as GNU tar, because both ends then need no format of their
 * own and the host has safe tools for it.
 *
 * Written: directories, files, symbolic links, pipes and devices; a hard link becomes a file
 * of its own. Names and targets from 100 bytes on go ahead in entries of type L and K, numbers
 * too large for octal in base 256. Read: the same, whoever wrote it. Owners are not restored. */
#include "agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { BLOCK = 512, DEEPEST = 256, LONGEST = PATH_MAX - 1, BUFFER = 256 << 10 };

struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type;
    char link[100], magic[8], owner[32], group[32], major[8], minor[8], rest[167];
};
_Static_assert(sizeof(struct header) == BLOCK, "a tar header is one block");

static char buffer[BUFFER];
static size_t filled; /* of the buffer; packing only */

/* What went wrong where: the first failure ends everything. */
static int failure;
static char culprit[PATH_MAX];

static bool fail(int error, const char *path)
{
    if (failure == 0) {
        failure = error;
        snprintf(culprit, sizeof culprit, "%s", path);
    }
    return false;
}

/* --- pack --- */

static bool flush(void)
{
    const bool ok = write_whole(1, buffer, filled);

    filled = 0;
    return ok || fail(errno, "output");
}

static bool put(const void *data, size_t size)
{
    if (filled + size > BUFFER && !flush())
        return false;
    memcpy(buffer + filled, data, size);
    filled += size;
    return true;
}

static bool pad(uint64_t size)
{
    static const char zeros[BLOCK];

    return put(zeros, (size_t)(-size % BLOCK));
}

static void number(char *out, size_t width, uint64_t value)
{
    if (value >> 3 * (width - 1) == 0) {
        for (size_t i = width - 1; i-- > 0; value >>= 3)
            out[i] = (char)('0' + (value & 7));
        return;
    }
    for (size_t i = width; i-- > 0; value >>= 8)
        out[i] = (char)value;
    out[0] = (char)0x80;
}

static unsigned checksum(const struct header *h)
{
    const unsigned char *bytes = (const unsigned char *)h;
    const size_t from = offsetof(struct header, checksum), to = offsetof(struct header, type);
    unsigned sum = 0;

    for (size_t i = 0; i < sizeof *h; i++)
        sum += i >= from && i < to ? ' ' : bytes[i];
    return sum;
}

static bool put_header(const char *name, const char *link, char type, uint64_t size,
                       const struct stat *info)
{
    struct header h = {.type = type, .magic = "ustar "};

    h.magic[7] = ' ';
    memcpy(h.magic, "ustar  ", 8);
    strncpy(h.name, name, sizeof h.name - 1);
    strncpy(h.link, link, sizeof h.link - 1);
    number(h.mode, sizeof h.mode, info->st_mode & 07777);
    number(h.uid, sizeof h.uid, info->st_uid);
    number(h.gid, sizeof h.gid, info->st_gid);
    number(h.size, sizeof h.size, size);
    number(h.mtime, sizeof h.mtime, info->st_mtime < 0 ? 0 : (uint64_t)info->st_mtime);
    number(h.major, sizeof h.major, major(info->st_rdev));
    number(h.minor, sizeof h.minor, minor(info->st_rdev));
    number(h.checksum, 7, checksum(&h));
    h.checksum[7] = ' ';
    return put(&h, sizeof h);
}

/* A name too long for a header goes ahead, as the content of an entry of its own. */
static bool put_long(const char *text, char type)
{
    static const struct stat nobody;
    const size_t size = strlen(text) + 1;

    if (size <= sizeof((struct header *)0)->name)
        return true;
    return put_header("././@LongLink", "", type, size, &nobody) && put(text, size) && pad(size);
}

static bool put_entry(const char *name, const char *link, char type, uint64_t size,
                      const struct stat *info)
{
    return put_long(name, 'L') && put_long(link, 'K') &&
           put_header(name, link, type, size, info);
}

/* The header has promised the size: a file that shrank is filled up, and then refused. */
static bool put_content(int fd, uint64_t size, const char *path)
{
    bool shrank = false;

    for (uint64_t left = size; left > 0;) {
        if (filled == BUFFER && !flush())
            return false;
        const size_t room = BUFFER - filled, want = left < room ? (size_t)left : room;
        const ssize_t n = shrank ? 0 : read_whole(fd, buffer + filled, want);
        if (n < 0)
            return fail(errno, path);
        shrank = (size_t)n < want;
        memset(buffer + filled + n, 0, want - (size_t)n);
        filled += want;
        left -= want;
    }
    if (shrank)
        return fail(ESTALE, path);
    return pad(size);
}

static bool pack_file(int parent, const char *base, const char *name, const struct stat *seen)
{
    struct stat info;
    const int fd = openat(parent, base, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &info) < 0)
        return fail(errno, name);
    if (info.st_ino != seen->st_ino || !S_ISREG(info.st_mode)) {
        close(fd);
        return fail(ESTALE, name);
    }
    const uint64_t size = (uint64_t)info.st_size;
    const bool ok = put_entry(name, "", '0', size, &info) && put_content(fd, size, name);
    close(fd);
    return ok;
}

static bool pack_link(int parent, const char *base, const char *name, const struct stat *info)
{
    char target[PATH_MAX];
    const ssize_t size = readlinkat(parent, base, target, sizeof target - 1);

    if (size < 0)
        return fail(errno, name);
    target[size] = 0;
    return put_entry(name, target, '2', 0, info);
}

static bool pack_directory(int fd, char *name, size_t length, int depth);

static bool pack_entry(int parent, const char *base, char *name, size_t length, int depth)
{
    struct stat info;

    if (fstatat(parent, base, &info, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(errno, name);
    switch (info.st_mode & S_IFMT) {
    case S_IFREG:
        return pack_file(parent, base, name, &info);
    case S_IFLNK:
        return pack_link(parent, base, name, &info);
    case S_IFIFO:
        return put_entry(name, "", '6', 0, &info);
    case S_IFCHR:
        return put_entry(name, "", '3', 0, &info);
    case S_IFBLK:
        return put_entry(name, "", '4', 0, &info);
    case S_IFDIR:
        break;
    default: /* tar knows no sockets */
        return fail(EOPNOTSUPP, name);
    }
    const int fd = openat(parent, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (fd < 0)
        return fail(errno, name);
    strcpy(name + length, "/");
    return put_entry(name, "", '5', 0, &info) && pack_directory(fd, name, length + 1, depth + 1);
}

/* Everything below the directory open as *fd*, whose name with its slash is *name*. */
static bool pack_directory(int fd, char *name, size_t length, int depth)
{
    DIR *directory = fdopendir(fd);
    bool ok = directory != NULL && depth < DEEPEST;

    if (!ok)
        fail(directory == NULL ? errno : ELOOP, name);
    for (struct dirent *entry; ok && (entry = readdir(directory)) != NULL;) {
        const size_t size = strlen(entry->d_name);
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (length + size + 2 > PATH_MAX)
            ok = fail(ENAMETOOLONG, name);
        else {
            strcpy(name + length, entry->d_name);
            ok = pack_entry(fd, entry->d_name, name, length + size, depth);
        }
        name[length] = 0;
    }
    if (directory != NULL)
        closedir(directory);
    return ok;
}

int applet_pack(char **args)
{
    static char name[PATH_MAX + 2];
    static const char end[2 * BLOCK];

    if (args[0] == NULL)
        return applet_fail(EINVAL, "pack");
    const int fd = open(args[0], O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return applet_fail(errno, args[0]);
    if (pack_directory(fd, name, 0, 0) && put(end, sizeof end) && flush())
        return 0;
    return applet_fail(failure, culprit[0] ? culprit : args[0]);
}

/* --- unpack --- */

struct entry {
    char name[PATH_MAX], link[PATH_MAX];
    char type;
    mode_t mode;
    uint64_t size, mtime;
    unsigned major, minor;
};

static bool take(void *data, size_t size)
{
    const ssize_t n = read_whole(0, data, size);

    if (n < 0)
        return fail(errno, "input");
    return (size_t)n == size || fail(ENODATA, "input"); /* it ends too early */
}

static uint64_t parse_number(const char *text, size_t width)
{
    uint64_t value = 0;

    if (text[0] & 0x80) {
        for (size_t i = 1; i < width; i++)
            value = value << 8 | (unsigned char)text[i];
        return value;
    }
    for (size_t i = 0; i < width && text[i]; i++)
        if (text[i] >= '0' && text[i] <= '7')
            value = value << 3 | (uint64_t)(text[i] - '0');
    return value;
}

static bool skip(uint64_t size)
{
    for (uint64_t left = size; left > 0;) {
        const size_t part = left < BUFFER ? (size_t)left : BUFFER;
        if (!take(buffer, part))
            return false;
        left -= part;
    }
    return true;
}

static uint64_t padded(uint64_t size)
{
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

static bool take_long(char out[PATH_MAX], uint64_t size)
{
    if (size > PATH_MAX)
        return fail(ENAMETOOLONG, "input");
    if (!take(buffer, (size_t)padded(size)))
        return false;
    memcpy(out, buffer, (size_t)size);
    out[size < PATH_MAX ? size : LONGEST] = 0;
    return true;
}

static void fill(struct entry *e, const struct header *h)
{
    if (e->name[0] == 0)
        snprintf(e->name, sizeof e->name, "%.100s", h->name);
    if (e->link[0] == 0)
        snprintf(e->link, sizeof e->link, "%.100s", h->link);
    e->type = h->type ? h->type : '0';
    e->mode = (mode_t)parse_number(h->mode, sizeof h->mode) & 07777;
    e->mtime = parse_number(h->mtime, sizeof h->mtime);
    e->major = (unsigned)parse_number(h->major, sizeof h->major);
    e->minor = (unsigned)parse_number(h->minor, sizeof h->minor);
}

/* The next real entry; false at the end, and when something is wrong. */
static bool take_entry(struct entry *e)
{
    struct header h;

    for (e->name[0] = e->link[0] = 0; take(&h, sizeof h);) {
        if (h.name[0] == 0 && checksum(&h) == ' ' * 8)
            return false;
        if (parse_number(h.checksum, sizeof h.checksum) != checksum(&h))
            return fail(EBADMSG, "input");
        e->size = parse_number(h.size, sizeof h.size);
        if (e->size > INT64_MAX - BLOCK)
            return fail(EFBIG, "input");
        if (h.type != 'L' && h.type != 'K') {
            fill(e, &h);
            return true;
        }
        if (!take_long(h.type == 'L' ? e->name : e->link, e->size))
            return false;
    }
    return false;
}

static bool unpack_file(const struct entry *e)
{
    const int fd = open(e->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);

    if (fd < 0)
        return fail(errno, e->name);
    bool ok = true;
    for (uint64_t left = e->size; ok && left > 0;) {
        const size_t part = left < BUFFER ? (size_t)left : BUFFER;
        ok = take(buffer, part) && (write_whole(fd, buffer, part) || fail(errno, e->name));
        left -= part;
    }
    if (close(fd) < 0)
        ok = fail(errno, e->name);
    return ok && skip(padded(e->size) - e->size);
}

static bool make_directory(const char *name)
{
    struct stat info;

    if (mkdir(name, 0700) == 0 || (errno == EEXIST && stat(name, &info) == 0 &&
                                   S_ISDIR(info.st_mode)))
        return true;
    return fail(errno, name);
}

static bool make_node(const struct entry *e)
{
    const mode_t type = e->type == '6' ? S_IFIFO : e->type == '3' ? S_IFCHR : S_IFBLK;

    return mknod(e->name, type | 0600, makedev(e->major, e->minor)) == 0 || fail(errno, e->name);
}

static bool create(const struct entry *e)
{
    if (e->type != '5' && unlink(e->name) < 0 && errno != ENOENT)
        return fail(errno, e->name);
    switch (e->type) {
    case '0':
    case '7':
        return unpack_file(e);
    case '1':
        return link(e->link, e->name) == 0 || fail(errno, e->name);
    case '2':
        return symlink(e->link, e->name) == 0 || fail(errno, e->name);
    case '3':
    case '4':
    case '6':
        return make_node(e);
    case '5':
        return make_directory(e->name);
    default:
        return fail(EOPNOTSUPP, e->name);
    }
}

static bool unpack_entry(const struct entry *e)
{
    const struct timespec times[2] = {{0, UTIME_NOW}, {(time_t)e->mtime, 0}};

    if (!create(e))
        return false;
    if (e->type == '1' || e->type == '2')
        return true;
    if (chmod(e->name, e->mode) < 0 || utimensat(AT_FDCWD, e->name, times, 0) < 0)
        return fail(errno, e->name);
    return true;
}

int applet_unpack(char **args)
{
    static struct entry e;

    if (args[0] == NULL)
        return applet_fail(EINVAL, "unpack");
    if (!make_directory(args[0]) || chdir(args[0]) < 0)
        return applet_fail(failure ? failure : errno, args[0]);
    while (take_entry(&e))
        if (!unpack_entry(&e))
            break;
    if (failure != 0)
        return applet_fail(failure, culprit);
    /* Writers end with more zeros than they need: read them, so that nobody writes to a closed
     * pipe. */
    while (read(0, buffer, BUFFER) > 0)
        ;
    return 0;
}
