// Opens a file for writing, lets a child inherit that, and fails to execute the file. The test finds the lines by their
// last words. With a second argument, it then waits to be killed.

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define APART __attribute__((noinline))

static volatile int opened;

APART int open_program(const char *path) {
	opened = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755); // the open
	return opened;
}

APART int write_program(const char *path) {
	int fd = open_program(path); // calls the open
	return write(fd, "#!/bin/true\n", 12) == 12 ? fd : -1;
}

APART pid_t fork_holder(void) {
	pid_t child = fork(); // the fork
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
		_exit(0);
	}
	return child;
}

APART void execute(const char *path) {
	char *argv[] = { (char *) path, NULL };
	execv(path, argv); // the exec
	_exit(1);
}

int main(int argc, char **argv) {
	int fd = argc > 1 ? write_program(argv[1]) : -1;
	if (fd < 0)
		return 2;
	pid_t holder = fork_holder();
	close(fd);
	pid_t victim = fork();
	if (victim == 0)
		execute(argv[1]);
	int status;
	waitpid(victim, &status, 0);
	if (argc > 2)
		pause();
	kill(holder, SIGKILL);
	waitpid(holder, NULL, 0);
	return WEXITSTATUS(status);
}
