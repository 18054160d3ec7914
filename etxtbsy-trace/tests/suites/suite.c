/* A test suite: each test writes a tool, and runs it a moment later. With `fixed`, a lock keeps other tests from forking
   while a tool is open for writing. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 6, TESTS = 40 };
/* The shell reads no further than `exit`. */
static char TOOL[500000] = "#!/bin/sh\nsleep 0.003\nexit\n#";
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int is_fixed, failed;
static const char *directory;

static void lock(void) {
    if (is_fixed) pthread_mutex_lock(&mutex);
}

static void unlock(void) {
    if (is_fixed) pthread_mutex_unlock(&mutex);
}

static int test(const char *path, unsigned *seed) {
    lock();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    if (fd < 0 || write(fd, TOOL, sizeof TOOL) < 0) exit(2);
    close(fd);
    unlock();
    usleep(1000 + rand_r(seed) % 3000);
    char *argv[] = {(char *)path, NULL}, *env[] = {"PATH=/bin:/usr/bin", NULL};
    lock();
    pid_t child = fork();
    if (child == 0) {
        execve(path, argv, env);
        _exit(errno == ETXTBSY ? 99 : 98);
    }
    unlock();
    int status;
    if (child < 0 || waitpid(child, &status, 0) < 0) exit(2);
    if (status != 0) printf("%s: exit status %d\n", path, WEXITSTATUS(status));
    return status != 0;
}

static void *work(void *worker) {
    unsigned seed = getpid() + (unsigned)(long)worker;
    for (int number = 0; number < TESTS; number++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/tool-%ld-%d", directory, (long)worker, number);
        if (test(path, &seed)) __atomic_fetch_add(&failed, 1, __ATOMIC_RELAXED);
        unlink(path);
    }
    return NULL;
}

int main(int argc, char **argv) {
    directory = argv[1];
    is_fixed = argc > 2 && strcmp(argv[2], "fixed") == 0;
    pthread_t workers[WORKERS];
    for (long n = 0; n < WORKERS; n++) pthread_create(&workers[n], NULL, work, (void *)n);
    for (long n = 0; n < WORKERS; n++) pthread_join(workers[n], NULL);
    return failed > 0;
}
