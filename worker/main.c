/* woolly-worker: holds one stage of a model for a coordinator, on this or another machine.
 *
 * SIGTERM and SIGINT are blocked in all our threads but one that only waits for them, so that no call of ours is interrupted. Threads that libraries started before main
 * have them open as well; so the handler is what counts, and it only wakes the control thread. A worker that a coordinator started holds the read end of a pipe of the
 * coordinator's: a thread waits for its end and exits the process at once, whatever it is computing, so that no worker survives. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "engine/memory.h"
#include "session.h"

typedef struct watch { /* for the waiting threads: never freed, since they end with the process */
    sigset_t signals;
    int parent_fd;
    const char *folder; /* of ipc sockets, removed on a sudden exit; NULL: none */
} watch;

static volatile sig_atomic_t signal_wake_end; /* process-wide, as handlers are; set before there is one */

static void on_signal (int number)
{
    (void) number;
    wl_wake_signal (signal_wake_end);
}

static void *wait_for_signals (void *context)
{
    const watch *w = context;
    pthread_sigmask (SIG_UNBLOCK, &w->signals, NULL);
    for (;;)
        pause ();
    return NULL;
}

static void leave_at_once (const watch *w, int code)
{
    if (w->folder)
        wl_socket_folder_remove (w->folder);
    _exit (code);
}

static void *wait_for_parent (void *context)
{
    const watch *w = context;
    char byte;
    ssize_t got;
    do
        got = read (w->parent_fd, &byte, 1);
    while (got > 0 || (got < 0 && errno == EINTR));
    leave_at_once (w, 0);
    return NULL;
}

/* It may die while this worker leaves as it was told to; then the folder is nobody else's to remove. */
static bool parent_is_gone (int parent_fd)
{
    struct pollfd life = {.fd = parent_fd, .events = POLLIN};
    return poll (&life, 1, 0) > 0;
}

static bool start_thread (void *(*body) (void *), watch *w, wl_error *err)
{
    pthread_t thread;
    int rc = pthread_create (&thread, NULL, body, w);
    if (rc != 0)
        return wl_fail (err, WL_ERROR_INTERNAL, "a thread could not be started: %s", strerror (rc));
    pthread_detach (thread);
    return true;
}

/* -- flags ---------------------------------------------------------------------------------------------------------------------------------- */

typedef struct flags {
    session_options session;
    int parent_fd; /* -1: started by a person */
    bool help, version;
} flags;

static const char help_text[] =
    "usage: woolly-worker --join HOST:PORT [flags]\n\n"
    "  --join HOST:PORT     the coordinator's --listen address (or ipc://PATH)\n"
    "  --token T            join token, where the coordinator wants one\n"
    "  --threads N          compute threads (all cores)\n"
    "  --memory SIZE        memory to offer: 12G, 800M (what is available)\n"
    "  --name NAME          how the coordinator calls this worker (host name and process id)\n"
    "  --model-dir DIR      where to look for models first\n"
    "  --cache DIR          where to keep packed weights, and those that coordinators send ($WOOLLY_CACHE, or "
    "~/.cache/woolly)\n"
    "  --cache-size SIZE    how much of both: 40G (half of what the disk has room for)\n"
    "  --check-cache        compare all of the model's kept weights with their hashes at each start\n"
    "  --no-pack-cache      pack weights anew at each start, and keep none\n"
    "  --pack-cache-least SIZE  models smaller than this are packed anew at each start (512M)\n"
    "  --isa NAME           kernels: scalar, avx2, … (the best there is)\n"
    "  --measure            measure this machine anew (else what was measured in the last 30 days counts)\n"
    "  --insecure           allow unencrypted links beyond this host\n"
    "  --version\n";

static bool parse_number (const char *flag, const char *text, unsigned long long limit, unsigned long long *out,
                          wl_error *err)
{
    char *end = NULL;
    errno = 0;
    *out = text[0] >= '0' && text[0] <= '9' ? strtoull (text, &end, 10) : 0;
    if (!end || *end || errno || *out == 0 || *out > limit)
        return wl_fail (err, WL_ERROR_USAGE, "%s wants a whole number from 1 to %llu, not \"%s\"", flag, limit, text);
    return true;
}

/* "12G", "1.5G", "800M", "4096K" or bytes; powers of 1024. */
static bool parse_size (const char *flag, const char *text, uint64_t *out, wl_error *err)
{
    static const char units[] = "KMGT";
    char *end = NULL;
    double value = text[0] >= '0' && text[0] <= '9' ? strtod (text, &end) : 0;
    const char *unit = end && *end ? strchr (units, *end & ~0x20) : NULL;
    if (unit) {
        value *= (double) (UINT64_C (1) << 10 * (unit - units + 1));
        end++;
        end += *end == 'i';
        end += *end == 'B';
    }
    if (!end || *end || !(value >= 1 && value < 0x1p60))
        return wl_fail (err, WL_ERROR_USAGE, "%s wants a size such as 12G or 800M, not \"%s\"", flag, text);
    *out = (uint64_t) value;
    return true;
}

static bool check_name (const char *name, wl_error *err)
{
    enum { LONGEST = 80 };
    size_t length = strlen (name);
    bool ok = length > 0 && length <= LONGEST;
    for (size_t i = 0; ok && i < length; i++)
        ok = (unsigned char) name[i] > 0x20 && name[i] != 0x7f;
    return ok || wl_fail (err, WL_ERROR_USAGE, "--name wants 1 to %d characters without spaces", LONGEST);
}

static bool parse_flags (int argc, char **argv, flags *f, wl_error *err)
{
    enum {
        JOIN = 256,
        TOKEN,
        THREADS,
        MEMORY,
        NAME,
        MODEL_DIR,
        CACHE,
        CACHE_SIZE,
        CHECK_CACHE,
        NO_PACK_CACHE,
        PACK_CACHE_LEAST,
        ISA,
        MEASURE,
        INSECURE,
        PARENT_FD,
        HELP,
        VERSION
    };
    static const struct option table[] = {{"join", required_argument, NULL, JOIN},
                                          {"token", required_argument, NULL, TOKEN},
                                          {"threads", required_argument, NULL, THREADS},
                                          {"memory", required_argument, NULL, MEMORY},
                                          {"name", required_argument, NULL, NAME},
                                          {"model-dir", required_argument, NULL, MODEL_DIR},
                                          {"cache", required_argument, NULL, CACHE},
                                          {"cache-size", required_argument, NULL, CACHE_SIZE},
                                          {"check-cache", no_argument, NULL, CHECK_CACHE},
                                          {"no-pack-cache", no_argument, NULL, NO_PACK_CACHE},
                                          {"pack-cache-least", required_argument, NULL, PACK_CACHE_LEAST},
                                          {"isa", required_argument, NULL, ISA},
                                          {"measure", no_argument, NULL, MEASURE},
                                          {"insecure", no_argument, NULL, INSECURE},
                                          {"parent-fd", required_argument, NULL, PARENT_FD}, /* local_workers.c only */
                                          {"help", no_argument, NULL, HELP},
                                          {"version", no_argument, NULL, VERSION},
                                          {NULL, 0, NULL, 0}};
    session_options *s = &f->session;
    unsigned long long number;
    int flag;
    opterr = 0;
    while ((flag = getopt_long (argc, argv, ":", table, NULL)) != -1) {
        switch (flag) {
        case JOIN:
            s->join = optarg;
            break;
        case TOKEN:
            s->token = optarg;
            break;
        case NAME:
            s->name = optarg;
            break;
        case MODEL_DIR:
            s->offer.source.model_dir = optarg;
            break;
        case CACHE:
            s->offer.source.cache = optarg;
            break;
        case CACHE_SIZE:
            if (!parse_size ("--cache-size", optarg, &s->offer.source.cache_bytes, err))
                return false;
            break;
        case CHECK_CACHE:
            s->offer.source.check_cache = true;
            break;
        case NO_PACK_CACHE:
            s->offer.no_pack_cache = true;
            break;
        case PACK_CACHE_LEAST:
            if (!parse_size ("--pack-cache-least", optarg, &s->offer.pack_least_bytes, err))
                return false;
            break;
        case ISA:
            s->offer.isa = optarg;
            break;
        case MEASURE:
            s->measures_anew = true;
            break;
        case INSECURE:
            s->insecure = true;
            break;
        case HELP:
            f->help = true;
            return true;
        case VERSION:
            f->version = true;
            return true;
        case THREADS:
            if (!parse_number ("--threads", optarg, 1024, &number, err))
                return false;
            s->offer.n_threads = (uint32_t) number;
            break;
        case MEMORY:
            if (!parse_size ("--memory", optarg, &s->offer.memory_bytes, err))
                return false;
            break;
        case PARENT_FD:
            if (!parse_number ("--parent-fd", optarg, 1 << 20, &number, err))
                return false;
            f->parent_fd = (int) number;
            break;
        case ':':
            return wl_fail (err, WL_ERROR_USAGE, "%s wants a value: see woolly-worker --help", argv[optind - 1]);
        default:
            return wl_fail (err, WL_ERROR_USAGE, "unknown flag %s: see woolly-worker --help", argv[optind - 1]);
        }
    }
    if (optind < argc)
        return wl_fail (err, WL_ERROR_USAGE, "unexpected argument \"%s\": see woolly-worker --help", argv[optind]);
    if (!s->join)
        return wl_fail (err, WL_ERROR_USAGE, "which coordinator? Name it with --join HOST:PORT");
    return !s->name || check_name (s->name, err);
}

/* -- main ------------------------------------------------------------------------------------------------------------------------------------- */

/* The folder of a local worker's sockets is the one that its coordinator made; who joined over ipc by hand makes one. */
static char *choose_folder (const flags *f, wl_error *err)
{
    static const char prefix[] = "ipc://";
    const char *join = f->session.join;
    if (!join || strncmp (join, prefix, sizeof prefix - 1) != 0)
        return NULL;
    if (f->parent_fd < 0)
        return wl_socket_folder_new (err);
    const char *path = join + sizeof prefix - 1, *slash = strrchr (path, '/');
    return wl_copy_text (path, slash ? (size_t) (slash - path) : 0, err);
}

static void take_signals (sigset_t *set, int wake_end, bool is_local)
{
    struct sigaction wake = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, ignore = {.sa_handler = SIG_IGN};
    signal_wake_end = wake_end;
    sigemptyset (set);
    sigaddset (set, SIGTERM);
    sigaddset (set, SIGINT);
    pthread_sigmask (SIG_BLOCK, set, NULL);
    sigaction (SIGTERM, &wake, NULL);
    /* a terminal's Ctrl-C reaches local workers too, but it is the coordinator's to handle */
    sigaction (SIGINT, is_local ? &ignore : &wake, NULL);
    sigaction (SIGPIPE, &ignore, NULL);
}

static bool watch_the_outside (watch *w, int wake_end, const flags *f, const char *folder, wl_error *err)
{
    take_signals (&w->signals, wake_end, f->session.is_local);
    w->parent_fd = f->parent_fd;
    w->folder = folder;
    if (!start_thread (wait_for_signals, w, err))
        return false;
    if (f->parent_fd < 0)
        return true;
#ifdef __linux__
    /* A worker that is stopped when its coordinator dies goes on, and sees the pipe's end. */
    prctl (PR_SET_PDEATHSIG, SIGCONT);
#endif
    return start_thread (wait_for_parent, w, err);
}

int main (int argc, char **argv)
{
    watch *outside = NULL;
    flags f = {.parent_fd = -1};
    wl_error err = {0};
    int wake[2] = {-1, -1};
    char host[64] = "worker", name[96];
    char *folder = NULL;
    session_end end = SESSION_FAILED;
    if (!parse_flags (argc, argv, &f, &err))
        goto done;
    if (f.help || f.version) {
        if (f.help)
            fputs (help_text, stdout);
        else
            printf ("woolly-worker %s\n", WOOLLY_VERSION);
        return 0;
    }
    if (!f.session.name) {
        gethostname (host, sizeof host - 1);
        snprintf (name, sizeof name, "%s-%ld", host, (long) getpid ());
        f.session.name = name;
    }
    if (f.session.offer.memory_bytes == 0)
        f.session.offer.memory_bytes = wl_memory_available ();
    f.session.is_local = f.session.offer.is_local = f.parent_fd >= 0;
    f.session.folder = folder = choose_folder (&f, &err);
    outside = wl_new (1, sizeof *outside, &err);
    if (err.code != WL_OK || !wl_wake_open (wake, &err) || !watch_the_outside (outside, wake[1], &f, folder, &err))
        goto done;
    wl_link_start_process ();
    end = session_run (&f.session, wake[0], &err);
    if (end == SESSION_BUSY)
        leave_at_once (outside, 0);
    wl_link_end_process ();
done:
    if (folder && (f.parent_fd < 0 || parent_is_gone (f.parent_fd)))
        wl_socket_folder_remove (folder);
    if (end == SESSION_LEFT)
        return 0;
    fprintf (stderr, "woolly-worker: %s\n", err.text);
    return err.code;
}
