/* Faults on order: preloaded into the daemon (and inherited by its engine), it makes single calls fail.
 *
 * What is to fail is said by files in the folder that TALLY_FAULTS names, so that a test can begin and end a fault while
 * the process runs:
 *
 *   kill-at-rename     the engine dies (SIGKILL) just before it renames a new part into place whose path holds the
 *                      file's first line; the second line says how many times. The file is gone after the last one.
 *   no-repair          the engine's rename of a repaired deduplication log leaves the old one.
 *   fail-sync          fsync and fdatasync of a log segment fail with EIO.
 *   hold-sync          they wait until the file is gone; "held" is there while one does.
 *   slow-sync          they take as many milliseconds longer as the file says.
 *   no-space           writes to files whose path begins with the file's first line fail with ENOSPC, as soon as the
 *                      path in its second line exists.
 *   clock              the system's clock, of daemon and engine, is that many milliseconds ahead.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int order_path(const char *name, char *path) {
    const char *folder = getenv("TALLY_FAULTS");
    return folder != NULL && snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX;
}

/* The order's text, or -1 if there is none. */
static ssize_t read_order(const char *name, char *text, size_t size) {
    char path[PATH_MAX];
    if (!order_path(name, path)) return -1;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return -1;
    ssize_t length = read(file, text, size - 1);
    close(file);
    if (length < 0) return -1;
    text[length] = 0;
    return length;
}

static int is_ordered(const char *name) {
    char path[PATH_MAX];
    return order_path(name, path) && access(path, F_OK) == 0;
}

static int is_engine(void) {
    static int known = -1;
    if (known < 0) {
        char line[256];
        int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
        ssize_t length = file < 0 ? 0 : read(file, line, sizeof line - 1);
        if (file >= 0) close(file);
        line[length < 0 ? 0 : length] = 0;
        size_t first = strlen(line);
        known = (ssize_t)first < length && strcmp(line + first + 1, "engine") == 0;
    }
    return known;
}

/* The file's path; false if it can't be told. */
static int path_of(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

/* ---- The engine's renames ---- */

/* Returns whether the rename must be left out, if it returns. */
static int before_rename(const char *from, const char *to) {
    static const char repaired[] = "deduplication_log.new";
    char order[PATH_MAX];
    if (from == NULL || to == NULL || !is_engine()) return 0;
    size_t length = strlen(from), suffix = sizeof repaired - 1;
    if (length >= suffix && strcmp(from + length - suffix, repaired) == 0) return is_ordered("no-repair");
    if (strstr(from, "tmp_insert_") == NULL || strstr(to, "tmp_") != NULL) return 0;
    if (read_order("kill-at-rename", order, sizeof order) <= 0) return 0;
    char *times = strchr(order, '\n');
    int left = times == NULL ? 1 : atoi(times + 1);
    if (times != NULL) *times = 0;
    if (strstr(from, order) == NULL) return 0;
    char path[PATH_MAX];
    order_path("kill-at-rename", path);
    if (left <= 1) {
        unlink(path);
    } else {
        int file = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
        dprintf(file, "%s\n%d\n", order, left - 1);
        close(file);
    }
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

int rename(const char *from, const char *to) {
    return before_rename(from, to) ? 0 : NEXT(rename)(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    return before_rename(from, to) ? 0 : NEXT(renameat)(from_folder, from, to_folder, to);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned int flags) {
    return before_rename(from, to) ? 0 : NEXT(renameat2)(from_folder, from, to_folder, to, flags);
}

/* ClickHouse calls renameat2 by its number. */
long syscall(long number, ...) {
    static long (*next)(long, ...);
    if (next == NULL) next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_list list;
    va_start(list, number);
    long a[6];
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_renameat2 && before_rename((const char *)a[1], (const char *)a[3])) return 0;
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- The log's syncs ---- */

static int is_segment(int file) {
    char path[PATH_MAX];
    if (is_engine() || !path_of(file, path)) return 0;
    size_t length = strlen(path);
    return length > 4 && strcmp(path + length - 4, ".wal") == 0;
}

/* Returns whether the sync must fail. */
static int before_sync(int file) {
    char text[32], held[PATH_MAX];
    if (!is_segment(file)) return 0;
    if (is_ordered("hold-sync") && order_path("held", held)) {
        close(open(held, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        while (is_ordered("hold-sync")) usleep(1000);
        unlink(held);
    }
    if (read_order("slow-sync", text, sizeof text) > 0) usleep((useconds_t)atoi(text) * 1000);
    return is_ordered("fail-sync");
}

int fsync(int file) {
    if (!before_sync(file)) return NEXT(fsync)(file);
    errno = EIO;
    return -1;
}

int fdatasync(int file) {
    if (!before_sync(file)) return NEXT(fdatasync)(file);
    errno = EIO;
    return -1;
}

/* ---- Writes to a disk without room ---- */

static int has_no_space(int file) {
    char order[PATH_MAX], path[PATH_MAX];
    if (read_order("no-space", order, sizeof order) <= 0) return 0;
    char *after = strchr(order, '\n');
    if (after == NULL || access(after + 1, F_OK) != 0) return 0;
    *after = 0;
    if (!path_of(file, path) || strncmp(path, order, strlen(order)) != 0) return 0;
    errno = ENOSPC;
    return 1;
}

/* A segment that was filled before overwrites blocks that it has: those writes need no room. */
static int grows(int file, off_t end) {
    struct stat now;
    return fstat(file, &now) != 0 || end > now.st_size;
}

ssize_t write(int file, const void *bytes, size_t count) {
    return has_no_space(file) ? -1 : NEXT(write)(file, bytes, count);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) {
    return grows(file, at + (off_t)count) && has_no_space(file) ? -1 : NEXT(pwrite)(file, bytes, count, at);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off_t at) {
    return grows(file, at + (off_t)count) && has_no_space(file) ? -1 : NEXT(pwrite64)(file, bytes, count, at);
}

/* ---- A clock that is wrong ---- */

static int real_clock(clockid_t which, struct timespec *now) {
    return (int)syscall(SYS_clock_gettime, which, now);
}

/* How far ahead the clock is, in milliseconds. Asked for every few milliseconds at most: the engine reads clocks often. */
static long long clock_ahead(void) {
    static _Atomic long long ahead, asked_at;
    static __thread int asking;
    struct timespec now;
    if (asking || real_clock(CLOCK_MONOTONIC, &now) != 0) return ahead;
    long long at = now.tv_sec * 1000LL + now.tv_nsec / 1000000 + 1;
    if (at - asked_at < 5) return ahead;
    char order[32];
    int error = errno;
    asking = 1;
    asked_at = at;
    ahead = read_order("clock", order, sizeof order) > 0 ? atoll(order) : 0;
    asking = 0;
    errno = error;
    return ahead;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    int failed = real_clock(which, now);
    if (failed || (which != CLOCK_REALTIME && which != CLOCK_REALTIME_COARSE)) return failed;
    long long ahead = clock_ahead();
    now->tv_sec += ahead / 1000;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec at;
    if (clock_gettime(CLOCK_REALTIME, &at) != 0) return -1;
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec at;
    if (clock_gettime(CLOCK_REALTIME, &at) != 0) return -1;
    if (result != NULL) *result = at.tv_sec;
    return at.tv_sec;
}
