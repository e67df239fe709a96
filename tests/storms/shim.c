/* Faults on request: preloaded into craftd, it refuses, shortens, slows or holds up calls on files below one folder.

   SHIM_FOLDER  the folder; calls on other files are never touched
   SHIM_ORDER   a file with one line: number mode errno operations skip count millionths seed match
                (absent: nothing fails). See shim.py, which writes it.
   SHIM_CLOCK   a file with seconds to add to the wall clock (absent: none)
   SHIM_HITS    a FIFO that is told of each call that was hit: its operation and its path

   SHIM_TRACE   a file that gets what was done below the folder, in order: see power.py, which reads it

   Only the front is touched: its workers inherit the library, and are told by their command line. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { FAIL = 'f', PARTLY = 'p', HOLD = 'h', SLOW = 's' };

static struct {
    long number;
    char mode, operations[16], match[256];
    int error;
    long skip, count, millionths;
    unsigned seed;
} order;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder, *order_file, *clock_file, *hits_file;
static int trace = -1;
static pthread_mutex_t tracing = PTHREAD_MUTEX_INITIALIZER;
static int is_front;
static struct timespec order_time;
static long order_inode;

/* ---- Not through the functions that are replaced below. */

static long slurp(const char *path, char *text, long size) {
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    long length = syscall(SYS_read, fd, text, size - 1);
    syscall(SYS_close, fd);
    text[length > 0 ? length : 0] = 0;
    return length;
}

__attribute__((constructor)) static void begin(void) {
    char line[4096];
    long length = slurp("/proc/self/cmdline", line, sizeof line);
    for (long at = 0; at < length; at += strlen(line + at) + 1)
        if (!strcmp(line + at, "craftd")) is_front = 1;
    folder = getenv("SHIM_FOLDER"), order_file = getenv("SHIM_ORDER");
    clock_file = getenv("SHIM_CLOCK"), hits_file = getenv("SHIM_HITS");
    is_front = is_front && folder && order_file;
    const char *file = getenv("SHIM_TRACE");
    if (is_front && file)
        trace = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void tell(char operation, const char *path) {
    char line[1024];
    int length = snprintf(line, sizeof line, "%c %s\n", operation, path);
    int fd = hits_file ? syscall(SYS_openat, AT_FDCWD, hits_file, O_WRONLY | O_NONBLOCK | O_CLOEXEC, 0) : -1;
    if (fd < 0) return;
    syscall(SYS_write, fd, line, length);
    syscall(SYS_close, fd);
}

/* ---- The order of the moment. */

static void read_order(void) {
    struct stat found;
    if (syscall(SYS_newfstatat, AT_FDCWD, order_file, &found, 0) < 0) {
        order.number = 0, order_inode = 0;
        return;
    }
    if ((long)found.st_ino == order_inode && found.st_mtim.tv_sec == order_time.tv_sec
        && found.st_mtim.tv_nsec == order_time.tv_nsec) return;
    char text[1024];
    order_inode = found.st_ino, order_time = found.st_mtim, order.match[0] = 0;
    if (slurp(order_file, text, sizeof text) <= 0
        || sscanf(text, "%ld %c %d %15s %ld %ld %ld %u %255s", &order.number, &order.mode, &order.error,
                  order.operations, &order.skip, &order.count, &order.millionths, &order.seed, order.match) < 8)
        order.number = 0;
}

/* The mode in which this call is hit; 0: not at all. */
static int strike(char operation, const char *path) {
    read_order();
    if (!order.number || !strchr(order.operations, operation) || !strstr(path, order.match)) return 0;
    if (order.skip > 0) return order.skip--, 0;
    if (!order.count || (long)(rand_r(&order.seed) % 1000000) >= order.millionths) return 0;
    if (order.count > 0) order.count--;
    return order.mode;
}

static int hit(char operation, const char *path) {
    long number = 0;
    int mode = 0, saved = errno;
    if (!is_front || !path || strncmp(path, folder, strlen(folder))) return 0;
    do {
        if (number) usleep(1000); /* held, for as long as that order stands */
        pthread_mutex_lock(&lock);
        if (number) read_order();
        if (!number || order.number != number) mode = strike(operation, path), number = 0;
        int is_new = mode && !number;
        number = mode == HOLD ? order.number : 0;
        pthread_mutex_unlock(&lock);
        if (is_new) tell(operation, path);
    } while (number);
    if (mode == SLOW) usleep(order.error * 1000);
    errno = mode == FAIL ? order.error : saved;
    return mode;
}

static int hit_fd(char operation, int fd) {
    char link[64], path[4096];
    struct stat found;
    if (!is_front || (!order.number && syscall(SYS_newfstatat, AT_FDCWD, order_file, &found, 0) < 0)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return hit(operation, path);
}

static int hit_open(const char *path, int flags) {
    int is_for_writing = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT;
    return (is_for_writing && hit('c', path) == FAIL) || hit('o', path) == FAIL;
}

/* ---- The functions that are replaced. w: write, f: sync, r: rename, c: open for writing, o: open,
        l: list a folder, m: make a folder or a link, u: unlink, t: truncate */

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* What was done is noted before anything else is: the trace has the order in which it happened. */

static int is_traced(const char *path) {
    return trace >= 0 && path && !strncmp(path, folder, strlen(folder)) && strstr(path, "/data");
}

static void note(char operation, const char *path, long at, const void *data, long size) {
    char head[4200];
    if (!is_traced(path)) return;
    int length = snprintf(head, sizeof head, "%c %ld %ld %ld\n%s", operation, (long)strlen(path), at, size, path);
    char *record = malloc(length + size);
    memcpy(record, head, length);
    if (size) memcpy(record + length, data, size);
    syscall(SYS_write, trace, record, length + size);
    free(record);
}

static const char *name_of(int fd, char *path, long size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = trace < 0 ? -1 : syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return path;
}

#define DO(kind, call, noted) \
    int saved; \
    if (trace < 0) return call; \
    pthread_mutex_lock(&tracing); \
    kind done = call; \
    saved = errno; \
    if (done >= 0) noted; \
    pthread_mutex_unlock(&tracing); \
    errno = saved; \
    return done

/* Python writes to a pipe from its signal handlers, on a stack of a few kilobytes: too few for the paths below. */

static int is_file(int fd) {
    struct stat found;
    int saved = errno, is = syscall(SYS_fstat, fd, &found) < 0 || S_ISREG(found.st_mode);
    errno = saved;
    return is;
}

__attribute__((noinline)) static ssize_t write_file(int fd, const void *data, size_t size, __typeof__(write) *real) {
    char path[4096];
    int mode = hit_fd('w', fd);
    if (mode == FAIL) return -1;
    if (mode == PARTLY && size > 1) size /= 2;
    const char *name = name_of(fd, path, sizeof path);
    if (!is_traced(name)) return real(fd, data, size);
    DO(ssize_t, real(fd, data, size), note('w', name, lseek(fd, 0, SEEK_CUR) - done, data, done));
}
ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    return is_front && is_file(fd) ? write_file(fd, data, size, real) : real(fd, data, size);
}
#define PWRITE(name_, offset) \
    ssize_t name_(int fd, const void *data, size_t size, offset at) { \
        REAL(name_); \
        char path[4096]; \
        int mode = hit_fd('w', fd); \
        if (mode == FAIL) return -1; \
        if (mode == PARTLY && size > 1) size /= 2; \
        DO(ssize_t, real(fd, data, size, at), note('w', name_of(fd, path, sizeof path), at, data, done)); \
    }
#define BY_FD(name_, letter, ...) \
        REAL(name_); \
        char path[4096]; \
        if (hit_fd(letter, fd) == FAIL) return -1; \
        DO(int, real(__VA_ARGS__), note(letter, name_of(fd, path, sizeof path), letter == 't' ? size : 0, NULL, 0))
PWRITE(pwrite, off_t) PWRITE(pwrite64, off64_t)
int fsync(int fd) { const long size = 0; BY_FD(fsync, 'f', fd); }
int fdatasync(int fd) { const long size = 0; BY_FD(fdatasync, 'f', fd); }
int ftruncate(int fd, off_t size) { BY_FD(ftruncate, 't', fd, size); }
int ftruncate64(int fd, off64_t size) { BY_FD(ftruncate64, 't', fd, size); }
int rename(const char *from, const char *to) {
    REAL(rename);
    if (hit('r', to) == FAIL) return -1;
    DO(int, real(from, to), note('r', to, 0, from, strlen(from)));
}
int unlink(const char *path) {
    REAL(unlink);
    if (hit('u', path) == FAIL) return -1;
    DO(int, real(path), note('u', path, 0, NULL, 0));
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    if (hit('m', path) == FAIL) return -1;
    DO(int, real(path, mode), note('m', path, 0, NULL, 0));
}
int symlink(const char *target, const char *path) {
    REAL(symlink);
    return hit('m', path) == FAIL ? -1 : real(target, path);
}
DIR *opendir(const char *path) { REAL(opendir); return hit('l', path) == FAIL ? NULL : real(path); }

#define NOTE_OPEN(call) \
    if (hit_open(path, flags)) return -1; \
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE) return call; \
    DO(int, call, note('c', path, flags & O_TRUNC ? 1 : 0, NULL, 0))

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        NOTE_OPEN(real(path, flags, mode)); \
    }
#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        NOTE_OPEN(real(at, path, flags, mode)); \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

/* ---- The wall clock. */

static double clock_offset(void) {
    static struct timespec read_at;
    static double offset;
    struct stat found;
    if (!is_front || !clock_file) return 0;
    if (syscall(SYS_newfstatat, AT_FDCWD, clock_file, &found, 0) < 0) return 0;
    if (found.st_mtim.tv_sec != read_at.tv_sec || found.st_mtim.tv_nsec != read_at.tv_nsec) {
        char text[64];
        read_at = found.st_mtim;
        offset = slurp(clock_file, text, sizeof text) > 0 ? atof(text) : 0;
    }
    return offset;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    REAL(clock_gettime);
    int status = real(id, now);
    if (!status && id == CLOCK_REALTIME) now->tv_sec += (long)clock_offset();
    return status;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int status = real(now, zone);
    if (!status) now->tv_sec += (long)clock_offset();
    return status;
}
time_t time(time_t *out) {
    static time_t (*real)(time_t *);
    if (!real) real = dlsym(RTLD_NEXT, "time");
    time_t now = real(NULL) + (time_t)clock_offset();
    if (out) *out = now;
    return now;
}
