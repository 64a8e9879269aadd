/* Reading and writing a whole range of a file, whatever the system does in pieces. Thread: any. */
#ifndef WL_ENGINE_FILE_IO_H
#define WL_ENGINE_FILE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False with errno; ENOSPC where the system wrote nothing without a reason. What was written before stays. */
bool wl_write_at (int file, const void *bytes, size_t length, uint64_t offset);
/* False also when the file ends before. */
bool wl_read_at (int file, void *bytes, size_t length, uint64_t offset);

#endif
