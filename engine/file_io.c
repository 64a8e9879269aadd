/* Whole ranges of files; see file_io.h. */
#include "file_io.h"

#include <errno.h>
#include <unistd.h>

bool wl_write_at (int file, const void *bytes, size_t length, uint64_t offset)
{
    const uint8_t *at = bytes;
    while (length) {
        ssize_t n = pwrite (file, at, length, (off_t) offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = ENOSPC;
        if (n <= 0)
            return false;
        at += n;
        offset += (uint64_t) n;
        length -= (size_t) n;
    }
    return true;
}

bool wl_read_at (int file, void *bytes, size_t length, uint64_t offset)
{
    uint8_t *at = bytes;
    while (length) {
        ssize_t n = pread (file, at, length, (off_t) offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        offset += (uint64_t) n;
        length -= (size_t) n;
    }
    return true;
}
