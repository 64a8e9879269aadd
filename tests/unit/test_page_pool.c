/* KV pages: what is found is what was computed, nothing is lost or given twice, and what was let go first goes first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/page_pool.h"
#include "engine/kernels/kernels.h"
#include "engine/memory.h"

enum { N_PAGES = 24, LONGEST = 8, MOST_HOLDERS = 6 };

static wl_page_pool *new_pool (uint32_t n_pages)
{
    wl_error err = {0};
    wl_page_pool *pool = wl_page_pool_new (n_pages, &err);
    assert_non_null (pool);
    return pool;
}

static uint32_t random_below (uint32_t n)
{
    static uint32_t state = 12345;
    state = state * 1664525 + 1013904223;
    return (state >> 8) % n;
}

/* A page's tokens, which differ from those of another kind from token `parting` on. */
static void fill (int32_t *tokens, int32_t kind, size_t parting)
{
    for (size_t i = 0; i < WL_KV_PAGE; i++)
        tokens[i] = i < parting ? 7 : kind;
}

static void a_page_is_found_behind_its_own_parent_only (void **state)
{
    (void) state;
    int32_t a[WL_KV_PAGE], b[WL_KV_PAGE];
    size_t n_same;
    wl_page_pool *pool = new_pool (8);
    fill (a, 1, 10);
    fill (b, 2, 10);
    uint32_t first = wl_page_pool_take (pool), second = wl_page_pool_take (pool);
    assert_int_equal (wl_page_pool_find (pool, WL_NO_PAGE, a), WL_NO_PAGE);
    assert_int_equal (wl_page_pool_serial (pool, first), 0);
    wl_page_pool_insert (pool, first, WL_NO_PAGE, a, WL_KV_PAGE, true);
    wl_page_pool_insert (pool, second, first, a, WL_KV_PAGE, false);
    assert_int_equal (wl_page_pool_find (pool, WL_NO_PAGE, a), first);
    assert_int_equal (wl_page_pool_find (pool, first, a), second);
    assert_int_equal (wl_page_pool_find (pool, second, a), WL_NO_PAGE);
    assert_int_equal (wl_page_pool_find (pool, WL_NO_PAGE, b), WL_NO_PAGE);
    assert_true (wl_page_pool_is_promised (pool, second) && !wl_page_pool_is_promised (pool, first));

    assert_int_equal (wl_page_pool_longest (pool, WL_NO_PAGE, b, WL_KV_PAGE, &n_same), first);
    assert_int_equal (n_same, 10);
    assert_int_equal (wl_page_pool_longest (pool, first, a, WL_KV_PAGE, &n_same), WL_NO_PAGE); /* not yet computed */
    wl_page_pool_set_computed (pool, second);
    assert_int_equal (wl_page_pool_longest (pool, first, a, 30, &n_same), second);
    assert_int_equal (n_same, 30);

    uint64_t serial = wl_page_pool_serial (pool, second);
    wl_page_pool_release (pool, second);
    wl_page_pool_release (pool, first);
    assert_int_equal (wl_page_pool_find (pool, first, a), second); /* kept */
    assert_int_equal (wl_page_pool_available (pool), 8);
    for (int i = 0; i < 8; i++)
        assert_int_not_equal (wl_page_pool_take (pool), WL_NO_PAGE);
    assert_int_equal (wl_page_pool_take (pool), WL_NO_PAGE);
    assert_int_equal (wl_page_pool_find (pool, WL_NO_PAGE, a), WL_NO_PAGE); /* its memory was wanted */
    assert_int_equal (wl_page_pool_counts (pool).evicted, 2);
    wl_page_pool_insert (pool, second, WL_NO_PAGE, a, WL_KV_PAGE, true);
    assert_true (wl_page_pool_serial (pool, second) > serial);
    wl_page_pool_free (&pool);
    assert_null (pool);
}

static void a_promise_that_is_not_kept_is_forgotten (void **state)
{
    (void) state;
    int32_t a[WL_KV_PAGE];
    wl_page_pool *pool = new_pool (2);
    fill (a, 1, 0);
    for (int withdrawn = 0; withdrawn < 2; withdrawn++) {
        uint32_t page = wl_page_pool_take (pool);
        wl_page_pool_insert (pool, page, WL_NO_PAGE, a, WL_KV_PAGE, false);
        assert_int_equal (wl_page_pool_find (pool, WL_NO_PAGE, a), page);
        if (withdrawn)
            wl_page_pool_withdraw (pool, page);
        else
            wl_page_pool_release (pool, page);
        assert_int_equal (wl_page_pool_find (pool, WL_NO_PAGE, a), WL_NO_PAGE);
        assert_int_equal (wl_page_pool_counts (pool).free, 2 - withdrawn);
    }
    wl_page_pool_free (&pool);
}

static void the_page_let_go_first_goes_first (void **state)
{
    (void) state;
    int32_t tokens[4][WL_KV_PAGE];
    uint32_t pages[4];
    wl_page_pool *pool = new_pool (4);
    for (int i = 0; i < 4; i++) {
        fill (tokens[i], i, 0);
        pages[i] = wl_page_pool_take (pool);
        wl_page_pool_insert (pool, pages[i], WL_NO_PAGE, tokens[i], WL_KV_PAGE, true);
    }
    for (int i = 0; i < 4; i++)
        wl_page_pool_release (pool, pages[i]);
    wl_page_pool_hold (pool, pages[1]); /* used again: now the last to go */
    wl_page_pool_release (pool, pages[1]);
    static const int order[] = {0, 2, 3, 1};
    for (int i = 0; i < 4; i++)
        assert_int_equal (wl_page_pool_take (pool), pages[order[i]]);
    wl_page_pool_free (&pool);
}

/* -- anything in any order -------------------------------------------------------------------------------------------------------------------- */

typedef struct holder { /* a sequence of pages of one of two kinds each, its path */
    uint32_t pages[LONGEST], n_pages;
    uint8_t kinds[LONGEST];
} holder;

typedef struct shadow { /* what a page really holds: the kinds of its path; 0 ends it */
    uint8_t path[LONGEST + 1];
} shadow;

/* Takes what is found and computes the rest; whatever is found must be what it is taken for. */
static void begin_holder (wl_page_pool *pool, holder *h, shadow *shadows)
{
    int32_t tokens[WL_KV_PAGE];
    shadow expected = {0};
    uint32_t length = 1 + random_below (LONGEST);
    h->n_pages = 0;
    for (uint32_t i = 0; i < length; i++) {
        uint32_t parent = i ? h->pages[i - 1] : WL_NO_PAGE;
        h->kinds[i] = expected.path[i] = (uint8_t) (1 + random_below (2));
        fill (tokens, h->kinds[i], 0);
        uint32_t page = wl_page_pool_find (pool, parent, tokens);
        if (page != WL_NO_PAGE) {
            assert_memory_equal (&shadows[page], &expected, sizeof expected);
            wl_page_pool_hold (pool, page);
        } else {
            page = wl_page_pool_take (pool);
            if (page == WL_NO_PAGE)
                return;
            shadows[page] = expected;
            wl_page_pool_insert (pool, page, parent, tokens, WL_KV_PAGE, true);
        }
        h->pages[h->n_pages++] = page;
    }
}

static void whatever_is_held_stays_as_it_is_and_whatever_is_found_is_right (void **state)
{
    (void) state;
    static holder holders[MOST_HOLDERS];
    static shadow shadows[N_PAGES];
    uint64_t found = 0;
    wl_page_pool *pool = new_pool (N_PAGES);
    for (int round = 0; round < 20000; round++) {
        holder *h = &holders[random_below (MOST_HOLDERS)];
        bool is_held[N_PAGES] = {0};
        uint32_t n_held = 0;
        while (h->n_pages > 0)
            wl_page_pool_release (pool, h->pages[--h->n_pages]);
        begin_holder (pool, h, shadows);
        for (size_t i = 0; i < MOST_HOLDERS; i++)
            for (uint32_t k = 0; k < holders[i].n_pages; k++) {
                uint32_t page = holders[i].pages[k];
                assert_memory_equal (shadows[page].path, holders[i].kinds, k + 1);
                assert_int_equal (shadows[page].path[k + 1], 0);
                n_held += !is_held[page];
                found += is_held[page];
                is_held[page] = true;
            }
        wl_page_counts counts = wl_page_pool_counts (pool);
        assert_int_equal (counts.held, n_held);
        assert_int_equal (counts.free + counts.kept, N_PAGES - n_held);
    }
    assert_true (found > 20000 && wl_page_pool_counts (pool).evicted > 1000);
    wl_page_pool_free (&pool);
}

static void every_allocation_may_fail (void **state)
{
    (void) state;
    wl_page_pool *pool = NULL;
    unsigned n = 0;
    while (!pool) {
        wl_error err = {0};
        wl_memory_fail_after (++n);
        pool = wl_page_pool_new (100, &err);
        wl_memory_fail_after (0);
        assert_true (pool || err.code == WL_ERROR_INTERNAL);
    }
    assert_true (n > 3);
    wl_page_pool_free (&pool);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (a_page_is_found_behind_its_own_parent_only),
        cmocka_unit_test (a_promise_that_is_not_kept_is_forgotten),
        cmocka_unit_test (the_page_let_go_first_goes_first),
        cmocka_unit_test (whatever_is_held_stays_as_it_is_and_whatever_is_found_is_right),
        cmocka_unit_test (every_allocation_may_fail),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
