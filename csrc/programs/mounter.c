/* mounter: fasten a file system, made outside, inside a container that runs.
 *
 *   mounter FD TARGET file|dir      mount what FD is (open_tree(2), fsmount(2)) on TARGET
 *   mounter umount TARGET           undo that
 *
 * TARGET, and what leads to it, is made when it is missing. Run by liblxc inside. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int umount2(const char *target, int flags);

enum { DETACH = 2, NOFOLLOW = 8 }; /* MNT_DETACH, UMOUNT_NOFOLLOW of sys/mount.h */

static int end(int failed)
{
    return failed ? errno : 0; /* the errno is the exit code */
}

static void make(const char *target, int file)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s", target);
    for (char *at = path + 1; (at = strchr(at, '/')); *at++ = '/') {
        *at = '\0';
        mkdir(path, 0755);
    }
    if (!file)
        mkdir(path, 0755);
    else {
        const int made = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
        if (made >= 0)
            close(made);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "umount"))
        return end(umount2(argv[2], DETACH | NOFOLLOW));
    if (argc != 4)
        return EINVAL;
    make(argv[2], !strcmp(argv[3], "file"));
    return end(syscall(SYS_move_mount, atoi(argv[1]), "", AT_FDCWD, argv[2],
                       MOVE_MOUNT_F_EMPTY_PATH) < 0);
}
