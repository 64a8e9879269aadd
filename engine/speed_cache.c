/* What was measured, kept in the cache folder; see speed.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#include "cache_folder.h"
#include "memory.h"
#include "speed.h"

/* A program built to find mistakes is slow: what it measures is not for others. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BUILD "-sanitized"
#elif !defined(__OPTIMIZE__)
#define BUILD "-unoptimized"
#else
#define BUILD ""
#endif

enum { PATH_LENGTH = 1024, FRESH_DAYS = 30, FILE_LIMIT = 1 << 16 };

static const double undisturbed = 0.85; /* of the processor time that all threads together could have had */

/* -- the machine ---------------------------------------------------------------------------------------------------------------------------------- */

static void read_line_of (const char *path, const char *key, char *out, size_t size)
{
    char line[512];
    FILE *file = fopen (path, "r");
    *out = 0;
    while (file && !*out && fgets (line, sizeof line, file)) {
        if (strncmp (line, key, strlen (key)) != 0)
            continue;
        const char *value = key[0] ? strchr (line, ':') : line;
        if (value)
            snprintf (out, size, "%s", value + strspn (value, ": \t"));
        out[strcspn (out, "\n")] = 0;
    }
    if (file)
        fclose (file);
}

void wl_machine_cpu (char *out, size_t size)
{
    *out = 0;
#ifdef __APPLE__
    size_t length = size;
    if (sysctlbyname ("machdep.cpu.brand_string", out, &length, NULL, 0) != 0)
        *out = 0;
    out[size - 1] = 0;
#else
    read_line_of ("/proc/cpuinfo", "model name", out, size);
    if (!*out)
        read_line_of ("/proc/cpuinfo", "Hardware", out, size);
    if (!*out) { /* Linux on Arm names parts by number */
        char part[32], implementer[32];
        read_line_of ("/proc/cpuinfo", "CPU implementer", implementer, sizeof implementer);
        read_line_of ("/proc/cpuinfo", "CPU part", part, sizeof part);
        if (*part)
            snprintf (out, size, "Arm %s %s", implementer, part);
    }
#endif
    if (!*out)
        snprintf (out, size, "unknown");
}

void wl_machine_id (char out[40])
{
#ifdef __APPLE__
    size_t length = 40;
    if (sysctlbyname ("kern.bootsessionuuid", out, &length, NULL, 0) != 0)
        *out = 0;
    out[39] = 0;
#else
    read_line_of ("/proc/sys/kernel/random/boot_id", "", out, 40);
#endif
}

/* -- the folder ----------------------------------------------------------------------------------------------------------------------------------- */

/* Makes the folders that `path` lies in. What cannot be made shows when the file is written. */
static void make_folders (char *path)
{
    for (char *slash = strchr (path + 1, '/'); slash; slash = strchr (slash + 1, '/')) {
        *slash = 0;
        mkdir (path, 0777);
        *slash = '/';
    }
}

char *wl_measured_path (const char *name)
{
    char path[PATH_LENGTH];
    wl_error none = {0};
    char *folder = wl_cache_folder (NULL, &none);
    int length = folder ? snprintf (path, sizeof path, "%s/measured/%s", folder, name) : -1;
    free (folder);
    if (length <= 0 || (size_t) length >= sizeof path)
        return NULL;
    make_folders (path);
    return wl_copy_text (path, (size_t) length, NULL);
}

bool wl_measured_write (const char *path, json_t *json)
{
    char temporary[PATH_LENGTH + 32];
    snprintf (temporary, sizeof temporary, "%s.%ld", path, (long) getpid ());
    bool ok = json && json_dump_file (json, temporary, JSON_INDENT (1) | JSON_REAL_PRECISION (9)) == 0 &&
              rename (temporary, path) == 0;
    if (!ok)
        unlink (temporary);
    return ok;
}

/* -- a speed as JSON ------------------------------------------------------------------------------------------------------------------------------ */

json_t *wl_speed_to_json (const wl_speed *s)
{
    json_t *types = json_object ();
    for (size_t type = 0; type < WL_SPEED_TYPES; type++) {
        json_t *curve = json_array ();
        for (size_t i = 0; i < WL_SPEED_ROWS; i++)
            json_array_append_new (curve, json_real (s->seconds_per_weight[type][i] * 1e12));
        json_object_set_new (types, wl_type_name (wl_speed_types[type]), curve);
    }
    json_t *json =
        json_pack ("{s:i, s:s, s:s, s:i, s:i, s:I, s:f, s:f, s:[f,f], s:f, s:f, s:o}", "version", WL_SPEED_VERSION,
                   "cpu", s->cpu, "isa", s->isa, "threads", (int) s->n_threads, "cores", (int) s->n_cores,
                   "measured_at", (json_int_t) s->measured_at, "bandwidth", wl_speed_bandwidth (s), "macs_per_s",
                   wl_speed_macs (s), "attention_ps", s->attention_s[0] * 1e12, s->attention_s[1] * 1e12, "element_ps",
                   s->element_s * 1e12, "dispatch_ps", s->dispatch_s * 1e12, "picoseconds_per_weight", types);
    if (!json)
        json_decref (types);
    return json;
}

static void copy_string (const json_t *json, const char *key, char *out, size_t size)
{
    const char *text = json_string_value (json_object_get (json, key));
    snprintf (out, size, "%s", text ? text : "");
    for (unsigned char *c = (unsigned char *) out; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            *c = '?';
}

static uint32_t small_number (const json_t *json, const char *key)
{
    json_int_t n = json_integer_value (json_object_get (json, key));
    return n > 0 && n <= 65536 ? (uint32_t) n : 0;
}

bool wl_speed_from_json (const json_t *json, wl_speed *out)
{
    const json_t *types = json_object_get (json, "picoseconds_per_weight"),
                 *attention = json_object_get (json, "attention_ps");
    *out = (wl_speed){.n_threads = small_number (json, "threads"), .n_cores = small_number (json, "cores")};
    json_int_t at = json_integer_value (json_object_get (json, "measured_at"));
    out->measured_at = at > 0 ? (uint64_t) at : 0;
    copy_string (json, "cpu", out->cpu, sizeof out->cpu);
    copy_string (json, "isa", out->isa, sizeof out->isa);
    for (size_t type = 0; type < WL_SPEED_TYPES; type++) {
        const json_t *curve = json_object_get (types, wl_type_name (wl_speed_types[type]));
        for (size_t i = 0; i < WL_SPEED_ROWS; i++)
            out->seconds_per_weight[type][i] = json_number_value (json_array_get (curve, i)) * 1e-12;
    }
    for (size_t i = 0; i < 2; i++)
        out->attention_s[i] = json_number_value (json_array_get (attention, i)) * 1e-12;
    out->element_s = json_number_value (json_object_get (json, "element_ps")) * 1e-12;
    out->dispatch_s = json_number_value (json_object_get (json, "dispatch_ps")) * 1e-12;
    return json_integer_value (json_object_get (json, "version")) == WL_SPEED_VERSION && wl_speed_is_sound (out);
}

/* -- from the cache, or measured -------------------------------------------------------------------------------------------------------------------- */

typedef enum kept { NOTHING, DISTURBED, SETTLED } kept;

static kept read_kept (const char *path, const wl_kernels *kernels, uint32_t n_threads, wl_speed *out)
{
    char cpu[WL_SPEED_CPU_BYTES];
    struct stat status;
    if (stat (path, &status) != 0 || status.st_size > FILE_LIMIT)
        return NOTHING;
    json_t *json = json_load_file (path, 0, NULL);
    uint64_t now = (uint64_t) time (NULL);
    wl_machine_cpu (cpu, sizeof cpu);
    bool ok = json && wl_speed_from_json (json, out) && out->n_threads == n_threads &&
              strcmp (out->isa, kernels->isa) == 0 && strcmp (out->cpu, cpu) == 0 && out->measured_at <= now &&
              now - out->measured_at < FRESH_DAYS * 86400u;
    const char *measured = json_string_value (json_object_get (json, "kernels"));
    ok = ok && measured && strcmp (measured, WOOLLY_KERNELS) == 0;
    bool disturbed = json_is_true (json_object_get (json, "disturbed"));
    json_decref (json);
    return !ok ? NOTHING : disturbed ? DISTURBED : SETTLED;
}

static double clock_of (clockid_t clock)
{
    struct timespec t;
    return clock_gettime (clock, &t) == 0 ? (double) t.tv_sec + (double) t.tv_nsec * 1e-9 : 0;
}

bool wl_speed_obtain (const wl_kernels *kernels, uint32_t n_threads, bool fresh, wl_speed *out, wl_speed_source *source,
                      wl_error *err)
{
    char cpu[WL_SPEED_CPU_BYTES], name[160];
    uint64_t asked = (uint64_t) time (NULL);
    wl_machine_cpu (cpu, sizeof cpu);
    for (char *c = cpu; *c; c++)
        *c = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ? *c : '-';
    snprintf (name, sizeof name, "%s-%.15s-%u" BUILD ".json", cpu, kernels->isa, n_threads);
    char *path = wl_measured_path (name), *lock_path = wl_measured_path ("lock");
    int lock = -1;
    wl_speed before = {0};
    bool ok = path && !fresh && read_kept (path, kernels, n_threads, out) == SETTLED;
    *source = WL_SPEED_CACHED;
    if (ok)
        goto done;
    /* Processes that measure at once would measure one another: the others wait, and find what the first has found. */
    lock = lock_path ? open (lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
    while (lock >= 0 && flock (lock, LOCK_EX) != 0 && errno == EINTR)
        ;
    kept earlier = path ? read_kept (path, kernels, n_threads, &before) : NOTHING;
    earlier = fresh && before.measured_at < asked ? NOTHING : earlier;
    ok = earlier == SETTLED;
    if (ok) {
        *out = before;
        goto done;
    }
    *source = WL_SPEED_MEASURED;
    double wall = clock_of (CLOCK_MONOTONIC), used = clock_of (CLOCK_PROCESS_CPUTIME_ID);
    ok = wl_speed_measure (kernels, n_threads, out, err);
    wall = clock_of (CLOCK_MONOTONIC) - wall;
    used = clock_of (CLOCK_PROCESS_CPUTIME_ID) - used;
    /* On a busy machine it is measured again next time. What disturbs only makes slower, so the best figures of all those times come ever nearer to the truth. */
    if (ok && earlier == DISTURBED)
        wl_speed_at_least (out, &before);
    if (ok && path) {
        json_t *json = wl_speed_to_json (out);
        json_object_set_new (json, "kernels", json_string (WOOLLY_KERNELS));
        if (!(used > undisturbed * wall * n_threads))
            json_object_set_new (json, "disturbed", json_true ());
        wl_measured_write (path, json); /* without it, it is measured again */
        json_decref (json);
    }
done:
    if (lock >= 0)
        close (lock);
    free (lock_path);
    free (path);
    return ok;
}
