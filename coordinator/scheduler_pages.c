/* Which KV pages a request has; see scheduler.h and page_pool.h.
 *
 * What is computed, as far as this file knows, are the positions whose results are back: a step that is under way may yet be skipped. So a page is promised when its request begins, and can
 * be taken by others once the result of its last position is back. */
#include "engine/kernels/kernels.h"
#include "scheduler_private.h"

bool scheduler_take_pages (wl_scheduler *s, wl_request *r, uint32_t n)
{
    if (r->n_pages < n && n - r->n_pages > wl_page_pool_available (s->pages))
        return false;
    while (r->n_pages < n)
        r->pages[r->n_pages++] = wl_page_pool_take (s->pages);
    return true;
}

static uint32_t parent_of (const wl_request *r, uint32_t index)
{
    return index == 0 ? WL_NO_PAGE : r->pages[index - 1];
}

static const int32_t *tokens_of (const wl_request *r, uint32_t index)
{
    return r->tokens + (size_t) index * WL_KV_PAGE;
}

/* Positions from the start that are computed for known tokens. */
static size_t count_computed (const wl_request *r)
{
    size_t n = r->n_returned < r->n_sent ? r->n_returned : r->n_sent;
    return n < r->n_known ? n : r->n_known;
}

void scheduler_share_pages (wl_scheduler *s, wl_request *r)
{
    for (size_t n = count_computed (r) / WL_KV_PAGE; !s->options.no_prefix_cache && r->n_shared < n; r->n_shared++) {
        uint32_t *page = &r->pages[r->n_shared], parent = parent_of (r, r->n_shared);
        if (wl_page_pool_is_promised (s->pages, *page)) {
            wl_page_pool_set_computed (s->pages, *page);
            continue;
        }
        uint32_t same = wl_page_pool_find (s->pages, parent, tokens_of (r, r->n_shared));
        if (same == WL_NO_PAGE) {
            wl_page_pool_insert (s->pages, *page, parent, tokens_of (r, r->n_shared), WL_KV_PAGE, true);
        } else if (wl_page_pool_is_promised (s->pages, same)) {
            return; /* pages behind it have no place in the tree before it has */
        } else {    /* another request came to the same tokens: one page is enough */
            wl_page_pool_hold (s->pages, same);
            wl_page_pool_release (s->pages, *page);
            *page = same;
        }
    }
}

/* The page that the request has only begun to fill can be copied by others later. */
static void share_last_page (wl_scheduler *s, wl_request *r)
{
    size_t n = count_computed (r), n_same = 0;
    uint32_t index = r->n_shared, parent = parent_of (r, index);
    if (s->options.no_prefix_cache || n / WL_KV_PAGE != index || n % WL_KV_PAGE == 0)
        return;
    wl_page_pool_withdraw (s->pages, r->pages[index]);
    wl_page_pool_longest (s->pages, parent, tokens_of (r, index), n % WL_KV_PAGE, &n_same);
    if (n_same < n % WL_KV_PAGE)
        wl_page_pool_insert (s->pages, r->pages[index], parent, tokens_of (r, index), n % WL_KV_PAGE, true);
}

static void let_go (wl_scheduler *s, wl_request *r)
{
    while (r->n_pages > 0)
        wl_page_pool_release (s->pages, r->pages[--r->n_pages]);
    if (r->copied_page != WL_NO_PAGE)
        wl_page_pool_release (s->pages, r->copied_page);
    r->copied_page = WL_NO_PAGE;
    r->n_shared = 0;
}

void scheduler_give_back_pages (wl_scheduler *s, wl_request *r)
{
    if (r->admitted) {
        scheduler_share_pages (s, r);
        share_last_page (s, r);
    }
    let_go (s, r);
    r->admitted = false;
}

void scheduler_copied (wl_scheduler *s, wl_request *r)
{
    if (r->copied_page == WL_NO_PAGE)
        return;
    wl_page_pool_release (s->pages, r->copied_page);
    r->copied_page = WL_NO_PAGE;
    s->n_copied_pages++;
}

/* -- beginning ------------------------------------------------------------------------------------------------------------------------------ */

static bool is_awaiting (const wl_scheduler *s, const wl_request *r)
{
    return r->awaited_serial && wl_page_pool_serial (s->pages, r->awaited_page) == r->awaited_serial &&
           wl_page_pool_is_promised (s->pages, r->awaited_page);
}

/* Has `r` hold the pages that its first `most` positions begin with. False: the next one is promised. */
static bool take_beginning (wl_scheduler *s, wl_request *r, size_t most)
{
    while ((size_t) (r->n_pages + 1) * WL_KV_PAGE <= most) {
        uint32_t page = wl_page_pool_find (s->pages, parent_of (r, r->n_pages), tokens_of (r, r->n_pages));
        if (page == WL_NO_PAGE)
            break;
        if (wl_page_pool_is_promised (s->pages, page)) {
            r->awaited_page = page;
            r->awaited_serial = wl_page_pool_serial (s->pages, page);
            return false;
        }
        wl_page_pool_hold (s->pages, page);
        r->pages[r->n_pages++] = page;
    }
    r->n_shared = r->n_pages;
    return true;
}

/* Takes what is left to take, with a copy of the page that goes on as `r` does, or without. False when there are too few pages. */
static bool take_rest (wl_scheduler *s, wl_request *r, uint32_t n_pages, uint32_t n_spare)
{
    uint32_t available = wl_page_pool_available (s->pages), wanted = n_pages - r->n_pages;
    return wanted <= available && n_spare <= available - wanted && scheduler_take_pages (s, r, n_pages);
}

/* Tells others what `r` is about to compute. */
static void promise_pages (wl_scheduler *s, const wl_request *r)
{
    for (uint32_t i = r->n_shared; (size_t) (i + 1) * WL_KV_PAGE <= r->n_known; i++) {
        if (wl_page_pool_find (s->pages, parent_of (r, i), tokens_of (r, i)) != WL_NO_PAGE)
            return;
        wl_page_pool_insert (s->pages, r->pages[i], parent_of (r, i), tokens_of (r, i), WL_KV_PAGE, false);
    }
}

begin_result scheduler_begin (wl_scheduler *s, wl_request *r, uint32_t n_spare)
{
    /* What cannot be preempted must not need more later. */
    uint32_t n_pages =
        wl_scheduler_pages (r->options.raw_logits ? r->options.n_prompt + r->options.max_tokens : r->n_known);
    size_t most = r->n_known - 1, n_same = 0; /* the last one is computed, for what follows it */
    if (r->options.raw_logits && r->options.first_raw < most)
        most = r->options.first_raw;
    if (s->options.no_prefix_cache)
        most = 0;
    if (is_awaiting (s, r))
        return BEGIN_WAITS;
    r->awaited_serial = 0;
    if (!take_beginning (s, r, most)) {
        let_go (s, r);
        return BEGIN_WAITS;
    }
    size_t whole = (size_t) r->n_pages * WL_KV_PAGE;
    if (most > whole)
        r->copied_page = wl_page_pool_longest (s->pages, parent_of (r, r->n_pages), r->tokens + whole,
                                               most - whole < WL_KV_PAGE ? most - whole : WL_KV_PAGE, &n_same);
    if (r->copied_page != WL_NO_PAGE)
        wl_page_pool_hold (s->pages, r->copied_page);
    if (!take_rest (s, r, n_pages, n_spare)) {
        if (r->copied_page != WL_NO_PAGE) /* it may be the very page that is missing */
            wl_page_pool_release (s->pages, r->copied_page);
        r->copied_page = WL_NO_PAGE;
        n_same = 0;
        if (!take_rest (s, r, n_pages, n_spare)) {
            let_go (s, r);
            return BEGIN_NO_ROOM;
        }
    }
    r->n_returned = whole;
    r->n_sent = whole + n_same;
    r->admitted = true;
    s->n_cached_tokens += r->n_sent;
    if (!r->began) {
        s->n_prompt_tokens += r->options.n_prompt;
        if (r->options.on_begin)
            r->options.on_begin (r->options.context, r->n_sent);
    }
    r->began = true;
    if (!s->options.no_prefix_cache)
        promise_pages (s, r);
    return BEGIN_DONE;
}
