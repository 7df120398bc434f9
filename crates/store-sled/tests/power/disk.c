/* Stands between a process and its files, and keeps a journal of what it does to those below a folder.
 *
 * The journal is a sequence of entries: kind, file, offset, length (u64 each, in the machine's order), then so many
 * bytes. Nothing is really synchronised: what a synchronisation would have saved is worked out from the journal.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME, WRITE, LENGTH, SYNC_BEGINS, SYNC_ENDS };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static const char *folder;
static uint64_t known[256];
static size_t known_count;

static void put(const void *bytes, size_t length) {
    const char *at = bytes;
    while (length > 0) {
        ssize_t written = write(journal, at, length);
        if (written <= 0) abort();
        at += written;
        length -= written;
    }
}

static void note(uint64_t kind, uint64_t file, uint64_t offset, const void *bytes, uint64_t length, uint64_t stored) {
    uint64_t head[4] = {kind, file, offset, length};
    put(head, sizeof head);
    put(bytes, stored);
}

/* The file's number, or 0 when it is none of ours. The lock is held. */
static uint64_t file_of(int fd) {
    if (journal == -1) {
        const char *path = getenv("STEADFAST_POWER_JOURNAL");
        folder = getenv("STEADFAST_POWER_FOLDER");
        if (path == NULL || folder == NULL) return 0;
        journal = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (journal == -1) abort();
    }
    struct stat found;
    if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode)) return 0;
    for (size_t i = 0; i < known_count; i++)
        if (known[i] == found.st_ino) return found.st_ino;
    char link[64] = "/proc/self/fd/", name[PATH_MAX];
    char digits[16];
    int count = 0;
    for (int rest = fd; rest > 0 || count == 0; rest /= 10) digits[count++] = (char)('0' + rest % 10);
    for (char *at = link + strlen(link); count > 0;) *at++ = digits[--count];
    ssize_t length = readlink(link, name, sizeof name);
    size_t prefix = strlen(folder);
    if (length <= (ssize_t)prefix || strncmp(name, folder, prefix) != 0) return 0;
    if (known_count == sizeof known / sizeof *known) abort();
    known[known_count++] = found.st_ino;
    length -= prefix;
    note(NAME, found.st_ino, 0, name + prefix, length, length);
    return found.st_ino;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    pthread_mutex_lock(&lock);
    if (real == NULL) real = (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    ssize_t written = real(fd, bytes, count, offset);
    uint64_t file = written > 0 ? file_of(fd) : 0;
    if (file != 0) note(WRITE, file, offset, bytes, written, written);
    pthread_mutex_unlock(&lock);
    return written;
}

int ftruncate64(int fd, off64_t length) {
    static int (*real)(int, off64_t);
    pthread_mutex_lock(&lock);
    if (real == NULL) real = (int (*)(int, off64_t))dlsym(RTLD_NEXT, "ftruncate64");
    int result = real(fd, length);
    uint64_t file = result == 0 ? file_of(fd) : 0;
    if (file != 0) note(LENGTH, file, 0, NULL, length, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

static int sync_file(int fd) {
    static uint64_t syncs;
    uint64_t sync = 0;
    for (uint64_t kind = SYNC_BEGINS; kind <= SYNC_ENDS; kind++) {
        pthread_mutex_lock(&lock);
        uint64_t file = file_of(fd);
        if (kind == SYNC_BEGINS) sync = syncs++;
        if (file != 0) note(kind, file, sync, NULL, 0, 0);
        pthread_mutex_unlock(&lock);
        /* As a disk, it takes its time, in which others may write. */
        if (kind == SYNC_BEGINS) usleep(300);
    }
    return 0;
}

int fsync(int fd) { return sync_file(fd); }

int fdatasync(int fd) { return sync_file(fd); }

/* Promises nothing about power: it waits for the device to take the data, not for the device to keep them. */
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned int flags) {
    (void)fd, (void)offset, (void)length, (void)flags;
    return 0;
}
