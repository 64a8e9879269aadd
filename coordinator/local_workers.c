/* Workers as processes on this machine; see local_workers.h. */
#include "local_workers.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

#include "engine/memory.h"

#ifdef __APPLE__
extern char **environ; /* POSIX declares it nowhere; glibc does */
#endif

enum { CHILD_LIFE_FD = 3 };

/* -- the program ---------------------------------------------------------------------------------------------------------------------- */

static bool own_path (char path[PATH_MAX])
{
#ifdef __APPLE__
    char unresolved[PATH_MAX];
    uint32_t room = sizeof unresolved;
    return _NSGetExecutablePath (unresolved, &room) == 0 && realpath (unresolved, path);
#else
    ssize_t length = readlink ("/proc/self/exe", path, PATH_MAX - 1);
    if (length > 0)
        path[length] = 0;
    return length > 0;
#endif
}

char *local_worker_binary (const char *given, wl_error *err)
{
    char path[PATH_MAX] = "";
    struct stat status;
    if (given) {
        snprintf (path, sizeof path, "%s", given);
    } else {
        char *slash = own_path (path) ? strrchr (path, '/') : NULL;
        size_t folder = slash ? (size_t) (slash - path) + 1 : 0;
        snprintf (path + folder, sizeof path - folder, "woolly-worker");
    }
    errno = 0;
    if (access (path, X_OK) == 0 && stat (path, &status) == 0 && S_ISREG (status.st_mode))
        return wl_copy_text (path, strlen (path), err);
    wl_fail (err, WL_ERROR_CLUSTER,
             "%s: the worker program cannot be executed: %s: install woolly-worker beside woolly, or name it with "
             "--worker-binary",
             path, errno ? strerror (errno) : "not a file");
    return NULL;
}

/* -- starting ----------------------------------------------------------------------------------------------------------------------------- */

/* The child gets nothing of this process but stderr and its end of the pipe. */
static bool spawn (const local_worker_options *o, char *const *argv, int life_read, pid_t *pid, wl_error *err)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    sigemptyset (&none);
    sigemptyset (&defaults);
    sigaddset (&defaults, SIGINT);
    sigaddset (&defaults, SIGTERM);
    sigaddset (&defaults, SIGPIPE);
    posix_spawn_file_actions_init (&files);
    posix_spawnattr_init (&attributes);
    int rc = posix_spawn_file_actions_addopen (&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    rc = rc ? rc : posix_spawn_file_actions_addopen (&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    rc = rc ? rc : posix_spawn_file_actions_adddup2 (&files, life_read, CHILD_LIFE_FD);
    rc = rc ? rc : posix_spawnattr_setsigmask (&attributes, &none);
    rc = rc ? rc : posix_spawnattr_setsigdefault (&attributes, &defaults);
    rc = rc ? rc : posix_spawnattr_setflags (&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    rc = rc ? rc : posix_spawn (pid, o->binary, &files, &attributes, argv, environ);
    posix_spawn_file_actions_destroy (&files);
    posix_spawnattr_destroy (&attributes);
    if (rc != 0)
        return wl_fail (err, WL_ERROR_CLUSTER, "%s: the worker could not be started: %s", o->binary, strerror (rc));
    return true;
}

bool local_worker_start (local_worker *worker, const local_worker_options *o, wl_error *err)
{
    int ends[2] = {-1, -1}, life_read = -1;
    char threads[16], life[16];
    bool ok = false;
    *worker = (local_worker){.life_fd = -1};
    if (pipe (ends) != 0) {
        wl_fail (err, WL_ERROR_INTERNAL, "a pipe could not be opened: %s", strerror (errno));
        goto done;
    }
    fcntl (ends[0], F_SETFD, FD_CLOEXEC);
    fcntl (ends[1], F_SETFD, FD_CLOEXEC); /* a sibling that inherited it would keep this worker alive */
    life_read = fcntl (ends[0], F_DUPFD_CLOEXEC, CHILD_LIFE_FD + 1); /* dup2 onto itself would stay close-on-exec */
    if (life_read < 0) {
        wl_fail (err, WL_ERROR_INTERNAL, "a pipe could not be opened: %s", strerror (errno));
        goto done;
    }
    snprintf (threads, sizeof threads, "%u", o->n_threads);
    snprintf (life, sizeof life, "%d", CHILD_LIFE_FD);
    char *const argv[] = {(char *) o->binary,
                          (char *) "--join",
                          (char *) o->control_endpoint,
                          (char *) "--name",
                          (char *) o->name,
                          (char *) "--threads",
                          threads,
                          (char *) "--parent-fd",
                          life,
                          NULL};
    ok = spawn (o, argv, life_read, &worker->pid, err);
    if (ok) {
        worker->life_fd = ends[1];
        ends[1] = -1;
    }
done:
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0)
            close (ends[i]);
    if (life_read >= 0)
        close (life_read);
    return ok;
}

/* -- ending ---------------------------------------------------------------------------------------------------------------------------------- */

bool local_worker_ended (local_worker *worker, int *status)
{
    if (worker->pid <= 0)
        return false;
    pid_t ended = waitpid (worker->pid, status, WNOHANG);
    if (ended == 0 || (ended < 0 && errno == EINTR))
        return false;
    if (ended < 0)
        *status = 0; /* somebody else reaped it */
    worker->pid = 0;
    local_worker_release (worker);
    return true;
}

void local_worker_release (local_worker *worker)
{
    if (worker->life_fd >= 0)
        close (worker->life_fd);
    worker->life_fd = -1;
}

void local_worker_kill (local_worker *worker)
{
    int status;
    if (worker->pid > 0) {
        kill (worker->pid, SIGKILL);
        while (waitpid (worker->pid, &status, 0) < 0 && errno == EINTR)
            ;
    }
    worker->pid = 0;
    local_worker_release (worker);
}

void local_worker_describe (int status, char *text, size_t room)
{
    if (WIFSIGNALED (status))
        snprintf (text, room, "was killed by signal %d", WTERMSIG (status));
    else
        snprintf (text, room, "ended with exit code %d", WEXITSTATUS (status));
}
