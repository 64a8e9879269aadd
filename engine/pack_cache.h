/* Packed weights kept in the cache folder, so that the next start maps them in place of packing them again.
 *
 *   FOLDER/packed/KEY-LAYOUT/tiles   sparse: the tiles of each tensor at an offset that follows from the model's header alone
 *   FOLDER/packed/KEY-LAYOUT/index   a header, and for each tensor whether its tiles are there
 *
 * One file serves every split: whichever worker packs a tensor fills its place, whichever needs it maps it. All workers of a host map the same pages, so there is one copy in
 * memory however many they are, and the system may drop and read it again as it may any file. KEY names the model (its fingerprint); LAYOUT is computed from what
 * the packing functions make of sample rows, so that tiles of another build's layout are never taken for this one's.
 *
 * What is trusted: a tensor counts as there once its record says so, and the record is written after the tiles. A record names the boot in which it was written until its
 * tiles are known to be on the disk (a thread sees to that after loading), so that after a power failure only such tiles count. A worker that is killed while it
 * packs leaves tiles without a record. Records carry a checksum, of themselves and of the first and last 4 KiB of the tiles. The bytes between
 * are not read before they are used: a full checksum would cost seconds where mapping costs milliseconds.
 *
 * Thread: the stage's. */
#ifndef WL_ENGINE_PACK_CACHE_H
#define WL_ENGINE_PACK_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "gguf.h"
#include "thread_pool.h"

typedef struct wl_pack_cache wl_pack_cache;

/* Opens or makes the place of a model. `folder` as for wl_cache_open, `limit` as for wl_cache_make_room; `gguf` is borrowed. NULL with the reason where the folder cannot be
 * written: packing then goes on without. */
wl_pack_cache *wl_pack_cache_open (const wl_gguf *gguf, const char *key, const char *folder, uint64_t limit,
                                   wl_error *err);
/* Also waits for the thread, a fraction of a second. Pointers from wl_pack_cache_tiles end here. */
void wl_pack_cache_close (wl_pack_cache **cache);

/* The tiles of all matrices of a tensor of the file, one behind the other, wl_matrix_bytes each: found, or packed now. NULL where they cannot be kept:
 * wl_pack_cache_trouble then says why, if it is not just that the tensor is no matrix of the file. After the first trouble nothing more is packed here. */
const uint8_t *wl_pack_cache_tiles (wl_pack_cache *cache, const wl_tensor *tensor, wl_thread_pool *pool);

/* "" while all is well. */
const char *wl_pack_cache_trouble (const wl_pack_cache *cache);
/* Of the tiles given out: those that were there already. */
uint64_t wl_pack_cache_found_bytes (const wl_pack_cache *cache);

/* To be called once after loading: a thread brings in from the disk what was found, and sees to it that what was packed is on the disk (where it has been on
 * its way since it was packed). */
void wl_pack_cache_settle (wl_pack_cache *cache);

#endif
