/* Allocation, checked in one place; see memory.h. */
#include "memory.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __APPLE__
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

static atomic_uint fail_countdown; /* tests only: set before, read by whoever allocates */

void wl_memory_fail_after (unsigned nth)
{
    atomic_store (&fail_countdown, nth);
}

static bool test_says_fail (void)
{
    unsigned left = atomic_load (&fail_countdown);
    if (left == 0)
        return false;
    atomic_store (&fail_countdown, left - 1);
    return left == 1;
}

/* The product, or an error that says how much was wanted. */
static bool checked_size (size_t count, size_t size, size_t *bytes, wl_error *err)
{
    if (__builtin_mul_overflow (count, size, bytes))
        return wl_fail (err, WL_ERROR_INTERNAL, "out of memory: %zu objects of %zu bytes wanted", count, size);
    if (*bytes == 0)
        *bytes = 1;
    return true;
}

static void *or_fail (void *memory, size_t bytes, wl_error *err)
{
    if (!memory)
        wl_fail (err, WL_ERROR_INTERNAL, "out of memory: %zu bytes wanted", bytes);
    return memory;
}

void *wl_new (size_t count, size_t size, wl_error *err)
{
    size_t bytes;
    if (!checked_size (count, size, &bytes, err))
        return NULL;
    return or_fail (test_says_fail () ? NULL : calloc (1, bytes), bytes, err);
}

void *wl_resize (void *old, size_t count, size_t size, wl_error *err)
{
    size_t bytes;
    if (!checked_size (count, size, &bytes, err))
        return NULL;
    return or_fail (test_says_fail () ? NULL : realloc (old, bytes), bytes, err);
}

char *wl_copy_text (const char *text, size_t length, wl_error *err)
{
    char *copy = wl_new (length + 1, 1, err);
    if (copy && length)
        memcpy (copy, text, length);
    return copy;
}

char *wl_join_path (const char *folder, const char *name, wl_error *err)
{
    size_t length = strlen (folder) + strlen (name) + 2;
    char *path = wl_new (length, 1, err);
    if (path)
        snprintf (path, length, "%s/%s", folder, name);
    return path;
}

void *wl_new_aligned (size_t count, size_t size, wl_error *err)
{
    size_t bytes;
    void *memory = NULL;
    if (!checked_size (count, size, &bytes, err))
        return NULL;
    if (test_says_fail () || posix_memalign (&memory, 64, bytes) != 0)
        return or_fail (NULL, bytes, err);
    memset (memory, 0, bytes);
    return memory;
}

void wl_free_aligned (void *memory)
{
    free (memory);
}

void *wl_map_pages (size_t bytes, wl_error *err)
{
    if (bytes == 0)
        bytes = 1;
    void *memory =
        test_says_fail () ? MAP_FAILED : mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return or_fail (NULL, bytes, err);
#ifdef MADV_HUGEPAGE
    if (bytes >= (size_t) 8 << 20)
        madvise (memory, bytes, MADV_HUGEPAGE); /* a hint: refusal is no error */
#endif
    return memory;
}

void wl_unmap_pages (void *memory, size_t bytes)
{
    if (memory)
        munmap (memory, bytes ? bytes : 1);
}

#ifdef __APPLE__

uint64_t wl_memory_available (void)
{
    vm_statistics64_data_t vm;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    if (host_statistics64 (mach_host_self (), HOST_VM_INFO64, (host_info64_t) &vm, &count) != KERN_SUCCESS)
        return 0;
    uint64_t pages = (uint64_t) vm.free_count + vm.inactive_count + vm.purgeable_count + vm.speculative_count;
    return pages * (uint64_t) sysconf (_SC_PAGESIZE);
}

uint64_t wl_memory_resident (void)
{
    struct mach_task_basic_info info;
    mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
    if (task_info (mach_task_self (), MACH_TASK_BASIC_INFO, (task_info_t) &info, &count) != KERN_SUCCESS)
        return 0;
    return info.resident_size;
}

uint64_t wl_memory_resident_mapped (void)
{
    task_vm_info_data_t info;
    mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
    if (task_info (mach_task_self (), TASK_VM_INFO, (task_info_t) &info, &count) != KERN_SUCCESS)
        return 0;
    return info.external;
}

#else

/* The number behind `key` in a /proc file whose lines read "Key:   123 kB", in bytes; 0 if absent. */
static uint64_t proc_kilobytes (const char *path, const char *key)
{
    FILE *file = fopen (path, "r");
    if (!file)
        return 0;
    char line[256];
    unsigned long long kilobytes = 0;
    size_t length = strlen (key);
    while (fgets (line, sizeof line, file))
        if (strncmp (line, key, length) == 0) {
            kilobytes = strtoull (line + length, NULL, 10);
            break;
        }
    fclose (file);
    return (uint64_t) kilobytes * 1024;
}

/* The limit of this process's control group (a container's memory limit), less what it uses; UINT64_MAX without one. */
static uint64_t cgroup_available (void)
{
    const char *paths[2] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"};
    uint64_t values[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen (paths[i], "r");
        char line[64] = "";
        if (!file)
            return UINT64_MAX;
        bool read = fgets (line, sizeof line, file) != NULL;
        fclose (file);
        if (!read || line[0] < '0' || line[0] > '9')
            return UINT64_MAX; /* "max" */
        values[i] = strtoull (line, NULL, 10);
    }
    return values[0] > values[1] ? values[0] - values[1] : 0;
}

uint64_t wl_memory_available (void)
{
    uint64_t machine = proc_kilobytes ("/proc/meminfo", "MemAvailable:");
    uint64_t group = cgroup_available ();
    return machine < group ? machine : group;
}

uint64_t wl_memory_resident (void)
{
    return proc_kilobytes ("/proc/self/status", "VmRSS:");
}

uint64_t wl_memory_resident_mapped (void)
{
    return proc_kilobytes ("/proc/self/status", "RssFile:");
}

#endif
