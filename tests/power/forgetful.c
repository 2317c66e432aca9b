// A disk that forgets what was not synced, preloaded into a process: with each fsync and fdatasync of something below
// FORGETFUL_FOLDER, what would survive a power cut is copied to FORGETFUL_MEMORY.
//
//   bytes/<file>   the bytes of a file when it was synced last
//   names/<folder> the path of a folder, then a line for each name in it when it was synced last: d or f, the file, the name
//
// <file> and <folder> are inode and time of birth, because a file is synced before it gets its name.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static char folder[PATH_MAX], memory[PATH_MAX];

__attribute__((constructor)) static void start(void) {
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    const char *of = getenv("FORGETFUL_FOLDER"), *to = getenv("FORGETFUL_MEMORY");
    if (of && to) {
        snprintf(folder, sizeof folder, "%s", of);
        snprintf(memory, sizeof memory, "%s", to);
    }
}

static void fail(const char *what) {
    fprintf(stderr, "forgetful: %s: %s\n", what, strerror(errno));
    abort();
}

static int identify(int at, const char *name, char *out, size_t size, int *is_folder) {
    struct statx found;
    if (statx(at, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &found)) return -1;
    *is_folder = S_ISDIR(found.stx_mode);
    snprintf(out, size, "%llu-%lld-%u", (unsigned long long)found.stx_ino, (long long)found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
    return 0;
}

static void remember_bytes(int from, const char *to) {
    char path[64], buffer[1 << 16];
    snprintf(path, sizeof path, "/proc/self/fd/%d", from);
    // What is synced may be open for writing only.
    int in = open(path, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (in < 0 || out < 0) fail(to);
    ssize_t got;
    while ((got = read(in, buffer, sizeof buffer)) > 0)
        if (write(out, buffer, got) != got) fail(to);
    if (got < 0) fail(to);
    close(in);
    close(out);
}

static void remember_names(int from, const char *path, const char *to) {
    int copy = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    FILE *out = fopen(to, "we");
    if (!entries || !out) fail(to);
    fprintf(out, "%s\n", path);
    for (struct dirent *entry; (entry = readdir(entries));) {
        char file[80];
        int is_folder;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (identify(copy, entry->d_name, file, sizeof file, &is_folder)) continue;
        fprintf(out, "%c %s %s\n", is_folder ? 'd' : 'f', file, entry->d_name);
    }
    if (fclose(out)) fail(to);
    closedir(entries);
}

static void remember(int descriptor) {
    char link[64], path[PATH_MAX], file[80], to[PATH_MAX + 100], fresh[PATH_MAX + 110];
    int is_folder, error = errno;
    if (!*folder) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    size_t prefix = strlen(folder);
    if (strncmp(path, folder, prefix) || (path[prefix] && path[prefix] != '/')) return;
    if (identify(descriptor, "", file, sizeof file, &is_folder)) fail(path);
    pthread_mutex_lock(&lock);
    snprintf(to, sizeof to, "%s/%s/%s", memory, is_folder ? "names" : "bytes", file);
    snprintf(fresh, sizeof fresh, "%s.fresh", to);
    if (is_folder) remember_names(descriptor, path, fresh);
    else remember_bytes(descriptor, fresh);
    if (rename(fresh, to)) fail(to);
    pthread_mutex_unlock(&lock);
    errno = error;
}

int fsync(int descriptor) {
    int done = real_fsync(descriptor);
    if (!done) remember(descriptor);
    return done;
}

int fdatasync(int descriptor) {
    int done = real_fdatasync(descriptor);
    if (!done) remember(descriptor);
    return done;
}
