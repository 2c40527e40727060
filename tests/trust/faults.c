/* System calls that die, fail or stop at the n-th one: loaded before the C library into a worker of the tests.
 * Only calls that change files or lock them are counted; those on descriptors 0 to 2 are left alone, and so is letting
 * go of a lock, which no kernel refuses. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { DIE = 1, FAIL = 2, STOP = 3 };

static long counted, due;
static int armed, deed, failure;

void faults_arm(long at, int what, int error) { counted = 0; due = at; deed = what; failure = error; armed = 1; }
long faults_disarm(void) { armed = 0; return counted; }

/* Counts one call; returns 1 if it is to fail. */
static int strikes(void) {
    if (!armed || ++counted != due) return 0;
    if (deed == DIE) kill(getpid(), SIGKILL);
    if (deed == STOP) kill(getpid(), SIGSTOP);
    if (deed != FAIL) return 0;
    errno = failure;
    return 1;
}

#define WRAP(type, symbol, parameters, arguments, guard) \
    type symbol parameters { \
        static type(*next) parameters; \
        if (!next) next = (type(*) parameters)dlsym(RTLD_NEXT, #symbol); \
        if ((guard) && strikes()) return -1; \
        return next arguments; \
    }

WRAP(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), fd > 2)
WRAP(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), fd > 2)
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), fd > 2)
WRAP(int, fsync, (int fd), (fd), 1)
WRAP(int, fdatasync, (int fd), (fd), 1)
WRAP(int, ftruncate, (int fd, off_t size), (fd, size), 1)
WRAP(int, ftruncate64, (int fd, off64_t size), (fd, size), 1)
WRAP(int, rename, (const char *from, const char *to), (from, to), 1)
WRAP(int, unlink, (const char *path), (path), 1)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), 1)
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode), 1)
WRAP(int, flock, (int fd, int operation), (fd, operation), !(operation & LOCK_UN))

#define WRAP_OPEN(symbol) \
    int symbol(const char *path, int flags, ...) { \
        static int (*next)(const char *, int, ...); \
        mode_t mode = 0; \
        if (!next) next = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #symbol); \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && strikes()) return -1; \
        return next(path, flags, mode); \
    }

WRAP_OPEN(open)
WRAP_OPEN(open64)

#define WRAP_FCNTL(symbol) \
    int symbol(int fd, int command, ...) { \
        static int (*next)(int, int, ...); \
        void *argument; \
        va_list rest; \
        if (!next) next = (int (*)(int, int, ...))dlsym(RTLD_NEXT, #symbol); \
        va_start(rest, command); \
        argument = va_arg(rest, void *); \
        va_end(rest); \
        if (command == F_SETLK && ((struct flock *)argument)->l_type != F_UNLCK && strikes()) return -1; \
        return next(fd, command, argument); \
    }

WRAP_FCNTL(fcntl)
WRAP_FCNTL(fcntl64)
