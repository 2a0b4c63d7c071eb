/* Calls of the C library that fail when told to: loaded before it (LD_PRELOAD), armed by the process itself.

   fault_arm("write,rename", 12, 1, ENOSPC, "/study/") lets the 12th write or rename on a path that holds "/study/" fail;
   a negative number in place of the error is a signal that the process sends to itself there. Calls on other paths (the
   interpreter's, the system's) are neither counted nor disturbed. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static const char *const names[] = {"open", "read", "write", "rename", "unlink", "mkdir", "fsync", "chmod", "stat", "opendir"};
enum { N_NAMES = sizeof names / sizeof *names };
static atomic_long counts[N_NAMES];
static char armed_calls[256], armed_under[1024], last_hit[2048];
static atomic_long seen, first, times;
static int fault;

void fault_arm(const char *calls, long number, long how_often, int error, const char *under) {
    snprintf(armed_calls, sizeof armed_calls, ",%s,", calls);
    snprintf(armed_under, sizeof armed_under, "%s", under);
    seen = 0;
    for (int i = 0; i < N_NAMES; i++) counts[i] = 0;
    first = number;
    times = how_often;
    fault = error;
    last_hit[0] = 0;
}

/* How many calls of this name were made on such paths, disturbed or not */
long fault_count(const char *call) {
    for (int i = 0; i < N_NAMES; i++)
        if (!strcmp(names[i], call)) return counts[i];
    return -1;
}

const char *fault_last(void) { return last_hit; }

/* 1 if the call is to fail, with errno set */
static int fails(const char *call, const char *path) {
    char wrapped[32];
    if (!armed_calls[0] || !path || !strstr(path, armed_under)) return 0;
    for (int i = 0; i < N_NAMES; i++)
        if (!strcmp(names[i], call)) counts[i]++;
    snprintf(wrapped, sizeof wrapped, ",%s,", call);
    if (!strstr(armed_calls, wrapped)) return 0;
    long number = ++seen;
    if (number < first || number >= first + times) return 0;
    snprintf(last_hit, sizeof last_hit, "%s %s", call, path);
    if (fault < 0) {
        kill(getpid(), -fault);
        return 0;
    }
    errno = fault;
    return 1;
}

static int fails_fd(const char *call, int descriptor) {
    char name[64], path[4096];
    if (!armed_calls[0]) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(call, path);
}

/* A name below an open folder */
static int fails_at(const char *call, int folder, const char *path) {
    char name[64], whole[8192];
    if (!armed_calls[0] || !path) return 0;
    if (path[0] == '/' || folder == AT_FDCWD) return fails(call, path);
    snprintf(name, sizeof name, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(name, whole, 4096);
    if (length < 0) return 0;
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return fails(call, whole);
}

#define NEXT(type, name, ...)                                                                                          \
    static type (*next)(__VA_ARGS__);                                                                                  \
    if (!next) next = dlsym(RTLD_NEXT, name)

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list list;                                                                                                  \
        va_start(list, flags);                                                                                         \
        mode = va_arg(list, mode_t);                                                                                   \
        va_end(list);                                                                                                  \
    }

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        MODE(flags)                                                                                                    \
        NEXT(int, #name, const char *, int, ...);                                                                      \
        return fails("open", path) ? -1 : next(path, flags, mode);                                                     \
    }
#define OPENAT(name)                                                                                                   \
    int name(int folder, const char *path, int flags, ...) {                                                           \
        MODE(flags)                                                                                                    \
        NEXT(int, #name, int, const char *, int, ...);                                                                 \
        return fails_at("open", folder, path) ? -1 : next(folder, path, flags, mode);                                  \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

#define BY_DESCRIPTOR(type, name, call, parameters, arguments, ...)                                                    \
    type name parameters {                                                                                             \
        NEXT(type, #name, __VA_ARGS__);                                                                                \
        return fails_fd(call, descriptor) ? -1 : next arguments;                                                       \
    }
BY_DESCRIPTOR(ssize_t, read, "read", (int descriptor, void *to, size_t size), (descriptor, to, size), int, void *, size_t)
BY_DESCRIPTOR(ssize_t, pread64, "read", (int descriptor, void *to, size_t size, off64_t at), (descriptor, to, size, at), int,
              void *, size_t, off64_t)
BY_DESCRIPTOR(ssize_t, write, "write", (int descriptor, const void *from, size_t size), (descriptor, from, size), int,
              const void *, size_t)
BY_DESCRIPTOR(ssize_t, pwrite64, "write", (int descriptor, const void *from, size_t size, off64_t at),
              (descriptor, from, size, at), int, const void *, size_t, off64_t)
BY_DESCRIPTOR(int, fchmod, "chmod", (int descriptor, mode_t mode), (descriptor, mode), int, mode_t)
BY_DESCRIPTOR(int, fstat, "stat", (int descriptor, struct stat *to), (descriptor, to), int, struct stat *)
BY_DESCRIPTOR(int, fstat64, "stat", (int descriptor, struct stat64 *to), (descriptor, to), int, struct stat64 *)

/* Nobody pulls the plug here: counted, but the disk is not waited for */
int fsync(int descriptor) { return fails_fd("fsync", descriptor) ? -1 : 0; }

#define BY_PATH(type, name, call, failed, parameters, arguments, ...)                                                  \
    type name parameters {                                                                                             \
        NEXT(type, #name, __VA_ARGS__);                                                                                \
        return fails(call, path) ? failed : next arguments;                                                            \
    }
BY_PATH(int, rename, "rename", -1, (const char *from, const char *path), (from, path), const char *, const char *)
BY_PATH(int, unlink, "unlink", -1, (const char *path), (path), const char *)
BY_PATH(int, mkdir, "mkdir", -1, (const char *path, mode_t mode), (path, mode), const char *, mode_t)
BY_PATH(int, chmod, "chmod", -1, (const char *path, mode_t mode), (path, mode), const char *, mode_t)
BY_PATH(int, stat, "stat", -1, (const char *path, struct stat *to), (path, to), const char *, struct stat *)
BY_PATH(int, stat64, "stat", -1, (const char *path, struct stat64 *to), (path, to), const char *, struct stat64 *)
BY_PATH(int, lstat, "stat", -1, (const char *path, struct stat *to), (path, to), const char *, struct stat *)
BY_PATH(int, lstat64, "stat", -1, (const char *path, struct stat64 *to), (path, to), const char *, struct stat64 *)
BY_PATH(DIR *, opendir, "opendir", NULL, (const char *path), (path), const char *)

#define BY_PATH_AT(name, call, parameters, arguments, ...)                                                             \
    int name parameters {                                                                                              \
        NEXT(int, #name, __VA_ARGS__);                                                                                 \
        return fails_at(call, folder, path) ? -1 : next arguments;                                                     \
    }
BY_PATH_AT(unlinkat, "unlink", (int folder, const char *path, int flags), (folder, path, flags), int, const char *, int)
BY_PATH_AT(mkdirat, "mkdir", (int folder, const char *path, mode_t mode), (folder, path, mode), int, const char *, mode_t)
BY_PATH_AT(fstatat, "stat", (int folder, const char *path, struct stat *to, int flags), (folder, path, to, flags), int,
           const char *, struct stat *, int)
BY_PATH_AT(fstatat64, "stat", (int folder, const char *path, struct stat64 *to, int flags), (folder, path, to, flags), int,
           const char *, struct stat64 *, int)

int renameat(int from_folder, const char *from, int folder, const char *path) {
    NEXT(int, "renameat", int, const char *, int, const char *);
    return fails_at("rename", folder, path) ? -1 : next(from_folder, from, folder, path);
}

DIR *fdopendir(int descriptor) {
    NEXT(DIR *, "fdopendir", int);
    return fails_fd("opendir", descriptor) ? NULL : next(descriptor);
}
