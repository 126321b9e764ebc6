/* flock() that other hosts do not see, as on Lustre with localflock: preloaded into the processes of a host.

   flock() of a file below GREENSEG_TEST_SHARED (folders, with ':' between them) becomes an OFD lock of fcntl() on bytes
   far behind its end, which are those of the host number GREENSEG_TEST_HOST. Such a lock also belongs to the open file
   description: forks and dup() share it, and it ends with LOCK_UN by any of them, or when the last of them is closed.

   fcntl() needs a file that is open for writing for an exclusive lock, and one open for reading for a shared lock. So
   of the bytes of a host, a file open for writing shares by locking one of the SLOTS, and others by reading GATE.
   An exclusive lock takes all of them. */

#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { GATE = 0, FIRST = 1, SLOTS = 63, ALL = FIRST + SLOTS };

static int lock(int fd, int wait, short type, int start, int length) {
    long host = atol(getenv("GREENSEG_TEST_HOST"));
    struct flock bytes = {.l_type = type, .l_whence = SEEK_SET, .l_start = (1L << 40) + host * ALL + start, .l_len = length};
    if (length == 0)
        return 0;
    return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &bytes);
}

static int is_shared_between_hosts(int fd) {
    const char *folders = getenv("GREENSEG_TEST_SHARED");
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!folders || !getenv("GREENSEG_TEST_HOST") || length < 0)
        return 0;
    path[length] = 0;
    while (*folders) {
        size_t n = strcspn(folders, ":");
        if (n && !strncmp(path, folders, n) && (path[n] == '/' || path[n] == 0))
            return 1;
        folders += n + (folders[n] == ':');
    }
    return 0;
}

static int share_by_slot(int fd, int wait) {
    static unsigned turn;
    unsigned first = (unsigned)getpid() + __atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED);
    for (unsigned i = 0; i <= SLOTS; i++) {
        int last = i == SLOTS; /* all are taken: by an exclusive lock, or by as many others */
        int slot = FIRST + (first + i) % SLOTS;
        if (last && !wait)
            break;
        if (lock(fd, last, F_WRLCK, slot, 1) == 0)
            return lock(fd, 0, F_UNLCK, GATE, slot) || lock(fd, 0, F_UNLCK, slot + 1, ALL - slot - 1) ? -1 : 0;
        if (errno != EWOULDBLOCK)
            return -1;
    }
    errno = EWOULDBLOCK;
    return -1;
}

int flock(int fd, int operation) {
    static int (*real)(int, int);
    if (!is_shared_between_hosts(fd)) {
        if (!real)
            real = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");
        return real(fd, operation);
    }
    int wait = !(operation & LOCK_NB), writable = (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    switch (operation & ~LOCK_NB) {
    case LOCK_UN:
        return lock(fd, 0, F_UNLCK, GATE, ALL);
    case LOCK_EX:
        if (!writable) {
            fputs("tests/hosts/flock.c: no exclusive lock on a file that is open for reading only\n", stderr);
            abort();
        }
        /* As the kernel does: a shared lock is given up first. */
        if (lock(fd, 0, F_WRLCK, GATE, ALL) == 0)
            return 0;
        if (errno != EWOULDBLOCK || lock(fd, 0, F_UNLCK, GATE, ALL))
            return -1;
        return lock(fd, wait, F_WRLCK, GATE, ALL);
    case LOCK_SH:
        if (writable)
            return share_by_slot(fd, wait);
        return lock(fd, wait, F_RDLCK, GATE, 1);
    }
    errno = EINVAL;
    return -1;
}
