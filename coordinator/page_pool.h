/* The KV pages of the cluster: who holds which, and what is in those that can be used again.
 *
 * A page whose positions are all computed says what it holds: its tokens, and the page before it. So pages form a tree, in which a sequence is a path from the root, and a
 * new sequence takes the pages of the longest path that it begins with. What K and V a page holds depends on the tokens of its path alone (DESIGN.md, section 4), so
 * it makes no difference to any result whether a page is taken or computed anew. Tokens are compared one by one, and a path by the serial numbers of its pages,
 * which are never used again: the hash only finds candidates, so no collision can give a sequence a page of another. It is keyed at random, so that nobody can choose
 * prompts that collide.
 *
 * Pages are counted, not owned: each holder holds a whole path. Nobody writes to a page in the tree: a sequence that parts from another one inside a page takes a copy.
 * A page that nobody holds any more stays in the tree until its memory is wanted; the one that was let go first goes first. A sequence lets go of its last
 * page first, so no page goes before those behind it.
 *
 * A page may be promised before it is computed: then others that would compute the same can wait for it instead.
 *
 * Memory: a fixed 320 bytes a page, whatever comes. Thread: the scheduler's. */
#ifndef WL_COORDINATOR_PAGE_POOL_H
#define WL_COORDINATOR_PAGE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/error.h"

#define WL_NO_PAGE UINT32_MAX /* as a parent: the root */

typedef struct wl_page_pool wl_page_pool;

wl_page_pool *wl_page_pool_new (uint32_t n_pages, wl_error *err);
void wl_page_pool_free (wl_page_pool **pool);

/* Pages that can be taken: nobody holds them. */
uint32_t wl_page_pool_available (const wl_page_pool *pool);

/* A page for new contents, held once; WL_NO_PAGE when there is none. */
uint32_t wl_page_pool_take (wl_page_pool *pool);
/* Holds a page of the tree once more. */
void wl_page_pool_hold (wl_page_pool *pool, uint32_t page);
/* Lets go. When nobody holds it any more, a computed page stays to be found; one that was only promised, or says nothing, is free. */
void wl_page_pool_release (wl_page_pool *pool, uint32_t page);

/* -- the tree ------------------------------------------------------------------------------------------------------------------------------- */

/* The page behind `parent` with these WL_KV_PAGE tokens, computed or promised; WL_NO_PAGE: none. */
uint32_t wl_page_pool_find (const wl_page_pool *pool, uint32_t parent, const int32_t *tokens);
/* The computed page behind `parent` that begins with the most of these `n` tokens; *n_same says how many. WL_NO_PAGE: there is none that begins with one. */
uint32_t wl_page_pool_longest (const wl_page_pool *pool, uint32_t parent, const int32_t *tokens, size_t n,
                               size_t *n_same);
/* A held page that holds, or will hold, these 1 to WL_KV_PAGE tokens behind `parent`, which the caller holds too. Fewer than WL_KV_PAGE are only found by
 * wl_page_pool_longest. Does nothing where `parent` is not in the tree. */
void wl_page_pool_insert (wl_page_pool *pool, uint32_t page, uint32_t parent, const int32_t *tokens, size_t n_tokens,
                          bool computed);
void wl_page_pool_set_computed (wl_page_pool *pool, uint32_t page);
/* A promise that will not be kept. */
void wl_page_pool_withdraw (wl_page_pool *pool, uint32_t page);
/* Whether a page is in the tree and not computed yet. */
bool wl_page_pool_is_promised (const wl_page_pool *pool, uint32_t page);
/* Of a page in the tree: a number that no other contents ever have. 0: it is not in the tree. */
uint64_t wl_page_pool_serial (const wl_page_pool *pool, uint32_t page);

typedef struct wl_page_counts {
    uint32_t free, kept, held; /* together all pages; kept: computed, and held by nobody */
    uint64_t evicted;          /* kept pages whose memory was wanted, ever */
} wl_page_counts;
wl_page_counts wl_page_pool_counts (const wl_page_pool *pool);

#endif
