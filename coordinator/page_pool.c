/* The KV pages of the cluster; see page_pool.h. */
#include "page_pool.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernels/kernels.h"
#include "engine/memory.h"

enum { NONE = WL_NO_PAGE, MOST_SIBLINGS = 64 }; /* that are compared for the longest common beginning, newest first */

typedef enum page_state {
    PAGE_BLANK,    /* not in the tree */
    PAGE_PROMISED, /* in the tree, to be computed by who holds it */
    PAGE_COMPUTED,
} page_state;

typedef struct pool_page {
    uint64_t serial, parent_serial;       /* serial 0: not in the tree; parent_serial 0: behind the root */
    uint32_t parent;                      /* NONE: the root, or a page that has left the tree */
    uint32_t first_child;                 /* the newest */
    uint32_t next, previous;              /* siblings */
    uint32_t same_bucket;                 /* of the hash table */
    uint32_t let_go_after, let_go_before; /* neighbours among those kept */
    uint32_t n_holders, n_tokens;
    page_state state;
    int32_t tokens[WL_KV_PAGE];
} pool_page;

struct wl_page_pool {
    pool_page *pages; /* [n_pages] */
    uint32_t n_pages;
    uint32_t *free_pages; /* stack; of those used last, since their memory is resident */
    uint32_t n_free;
    uint32_t oldest, newest, n_kept; /* computed, held by nobody, in the order in which they were let go */
    uint32_t *buckets;               /* [mask + 1] of whole pages in the tree */
    size_t mask;
    uint32_t first_child; /* of the root */
    uint64_t last_serial, n_evicted;
    uint8_t key[crypto_shorthash_KEYBYTES];
};

wl_page_pool *wl_page_pool_new (uint32_t n_pages, wl_error *err)
{
    wl_page_pool *pool = wl_new (1, sizeof *pool, err);
    size_t n_buckets = 64;
    if (!pool)
        return NULL;
    while (n_buckets < n_pages)
        n_buckets *= 2;
    pool->n_pages = n_pages;
    pool->mask = n_buckets - 1;
    pool->oldest = pool->newest = pool->first_child = NONE;
    pool->pages = wl_new (n_pages, sizeof *pool->pages, err);
    pool->free_pages = pool->pages ? wl_new (n_pages, sizeof *pool->free_pages, err) : NULL;
    pool->buckets = pool->free_pages ? wl_new (n_buckets, sizeof *pool->buckets, err) : NULL;
    if (!pool->buckets) {
        wl_page_pool_free (&pool);
        return NULL;
    }
    memset (pool->buckets, 0xff, n_buckets * sizeof *pool->buckets);
    for (uint32_t i = n_pages; i-- > 0;) {
        pool->pages[i].first_child = NONE;
        pool->free_pages[pool->n_free++] = i;
    }
    randombytes_buf (pool->key, sizeof pool->key);
    return pool;
}

void wl_page_pool_free (wl_page_pool **pool)
{
    if (!*pool)
        return;
    free ((*pool)->pages);
    free ((*pool)->free_pages);
    free ((*pool)->buckets);
    free (*pool);
    *pool = NULL;
}

/* -- the tree ------------------------------------------------------------------------------------------------------------------------------- */

static uint64_t serial_of (const wl_page_pool *pool, uint32_t page)
{
    return page == NONE ? 0 : pool->pages[page].serial;
}

static bool is_in_tree (const wl_page_pool *pool, uint32_t page)
{
    return page == NONE || pool->pages[page].serial != 0;
}

static uint32_t *bucket_of (const wl_page_pool *pool, uint64_t parent_serial, const int32_t *tokens)
{
    struct {
        uint64_t parent_serial;
        int32_t tokens[WL_KV_PAGE];
    } contents = {.parent_serial = parent_serial};
    uint64_t hash;
    memcpy (contents.tokens, tokens, sizeof contents.tokens);
    crypto_shorthash ((uint8_t *) &hash, (const uint8_t *) &contents, sizeof contents, pool->key);
    return &pool->buckets[hash & pool->mask];
}

uint32_t wl_page_pool_find (const wl_page_pool *pool, uint32_t parent, const int32_t *tokens)
{
    if (!is_in_tree (pool, parent))
        return NONE;
    uint64_t parent_serial = serial_of (pool, parent);
    uint32_t at = *bucket_of (pool, parent_serial, tokens);
    while (at != NONE && (pool->pages[at].parent_serial != parent_serial ||
                          memcmp (pool->pages[at].tokens, tokens, sizeof pool->pages[at].tokens) != 0))
        at = pool->pages[at].same_bucket;
    return at;
}

uint32_t wl_page_pool_longest (const wl_page_pool *pool, uint32_t parent, const int32_t *tokens, size_t n,
                               size_t *n_same)
{
    uint32_t best = NONE, at = parent == NONE ? pool->first_child : pool->pages[parent].first_child;
    *n_same = 0; /* a page that is not in the tree has no children */
    for (int i = 0; i < MOST_SIBLINGS && at != NONE; i++, at = pool->pages[at].next) {
        const pool_page *p = &pool->pages[at];
        size_t same = 0, most = n < p->n_tokens ? n : p->n_tokens;
        while (same < most && p->tokens[same] == tokens[same])
            same++;
        if (p->state == PAGE_COMPUTED && same > *n_same) {
            *n_same = same;
            best = at;
        }
    }
    return best;
}

void wl_page_pool_insert (wl_page_pool *pool, uint32_t page, uint32_t parent, const int32_t *tokens, size_t n_tokens,
                          bool computed)
{
    pool_page *p = &pool->pages[page];
    if (!is_in_tree (pool, parent) || p->state != PAGE_BLANK || n_tokens == 0 || n_tokens > WL_KV_PAGE)
        return;
    uint32_t *first = parent == NONE ? &pool->first_child : &pool->pages[parent].first_child;
    p->serial = ++pool->last_serial;
    p->parent_serial = serial_of (pool, parent);
    p->parent = parent;
    p->first_child = NONE;
    p->previous = NONE;
    p->next = *first;
    if (p->next != NONE)
        pool->pages[p->next].previous = page;
    *first = page;
    p->state = computed ? PAGE_COMPUTED : PAGE_PROMISED;
    p->n_tokens = (uint32_t) n_tokens;
    memcpy (p->tokens, tokens, n_tokens * sizeof *tokens);
    if (n_tokens == WL_KV_PAGE) {
        uint32_t *bucket = bucket_of (pool, p->parent_serial, tokens);
        p->same_bucket = *bucket;
        *bucket = page;
    }
}

void wl_page_pool_set_computed (wl_page_pool *pool, uint32_t page)
{
    if (pool->pages[page].state == PAGE_PROMISED)
        pool->pages[page].state = PAGE_COMPUTED;
}

bool wl_page_pool_is_promised (const wl_page_pool *pool, uint32_t page)
{
    return pool->pages[page].state == PAGE_PROMISED;
}

uint64_t wl_page_pool_serial (const wl_page_pool *pool, uint32_t page)
{
    return pool->pages[page].serial;
}

/* Takes a page out of the tree. Pages behind it, if there were any, could not be found any more, since its serial is gone. */
static void blank (wl_page_pool *pool, uint32_t page)
{
    pool_page *p = &pool->pages[page];
    if (p->state == PAGE_BLANK)
        return;
    if (p->n_tokens == WL_KV_PAGE) {
        uint32_t *place = bucket_of (pool, p->parent_serial, p->tokens);
        while (*place != page)
            place = &pool->pages[*place].same_bucket;
        *place = p->same_bucket;
    }
    if (p->next != NONE)
        pool->pages[p->next].previous = p->previous;
    if (p->previous != NONE)
        pool->pages[p->previous].next = p->next;
    else if (p->parent != NONE)
        pool->pages[p->parent].first_child = p->next;
    else if (pool->first_child == page)
        pool->first_child = p->next;
    for (uint32_t child = p->first_child, next; child != NONE; child = next) {
        next = pool->pages[child].next;
        pool->pages[child].parent = pool->pages[child].next = pool->pages[child].previous = NONE;
    }
    p->first_child = NONE;
    p->serial = 0;
    p->state = PAGE_BLANK;
}

void wl_page_pool_withdraw (wl_page_pool *pool, uint32_t page)
{
    if (pool->pages[page].state == PAGE_PROMISED)
        blank (pool, page);
}

/* -- holding -------------------------------------------------------------------------------------------------------------------------------- */

static void stop_keeping (wl_page_pool *pool, uint32_t page)
{
    pool_page *p = &pool->pages[page];
    *(p->let_go_before == NONE ? &pool->oldest : &pool->pages[p->let_go_before].let_go_after) = p->let_go_after;
    *(p->let_go_after == NONE ? &pool->newest : &pool->pages[p->let_go_after].let_go_before) = p->let_go_before;
    pool->n_kept--;
}

uint32_t wl_page_pool_available (const wl_page_pool *pool)
{
    return pool->n_free + pool->n_kept;
}

uint32_t wl_page_pool_take (wl_page_pool *pool)
{
    uint32_t page = NONE;
    if (pool->n_free > 0) {
        page = pool->free_pages[--pool->n_free];
    } else if (pool->n_kept > 0) {
        page = pool->oldest;
        stop_keeping (pool, page);
        blank (pool, page);
        pool->n_evicted++;
    }
    if (page != NONE)
        pool->pages[page].n_holders = 1;
    return page;
}

void wl_page_pool_hold (wl_page_pool *pool, uint32_t page)
{
    if (pool->pages[page].n_holders++ == 0)
        stop_keeping (pool, page);
}

void wl_page_pool_release (wl_page_pool *pool, uint32_t page)
{
    pool_page *p = &pool->pages[page];
    if (--p->n_holders > 0)
        return;
    if (p->state != PAGE_COMPUTED) {
        blank (pool, page);
        pool->free_pages[pool->n_free++] = page;
        return;
    }
    p->let_go_before = pool->newest;
    p->let_go_after = NONE;
    *(pool->newest == NONE ? &pool->oldest : &pool->pages[pool->newest].let_go_after) = page;
    pool->newest = page;
    pool->n_kept++;
}

wl_page_counts wl_page_pool_counts (const wl_page_pool *pool)
{
    return (wl_page_counts){.free = pool->n_free,
                            .kept = pool->n_kept,
                            .held = pool->n_pages - pool->n_free - pool->n_kept,
                            .evicted = pool->n_evicted};
}
