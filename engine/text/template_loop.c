/* for: turns, the `loop` variable, conditions and else.
 *
 * Items are asked for one at a time; only loop.last, loop.nextitem and loop.length look ahead, as in Jinja, where a
 * condition may depend on what the body has done so far. */
#include "template_private.h"

/* The next item that passes the loop's condition, which is evaluated in a scope of its own. */
static bool next_passing (render *r, iterator *it, value *out, bool *more)
{
    value passes;
    for (;;) {
        if (!jinja_next (r, it->inner, out, more))
            return false;
        if (!*more)
            return true;
        if (!jinja_assign (r, it->test_scope, it->loop->left, *out) ||
            !jinja_evaluate (r, it->test_scope, it->loop->third, &passes))
            return false;
        if (jinja_truth (passes))
            return true;
    }
}

static bool filter_loop (render *r, scope *outer, const node *n, iterator **it)
{
    iterator *passing = jinja_new_iterator (r, next_passing, value_none ());
    scope *s = passing ? jinja_open_scope (r, outer, n->test_frame) : NULL;
    if (!s || !jinja_load_scope (r, s))
        return false;
    passing->inner = *it;
    passing->loop = n;
    passing->test_scope = s;
    *it = passing;
    return true;
}

bool jinja_loop_peek (render *r, loop_state *loop, value *out)
{
    bool more = true;
    if (!is_given (loop->after) && !loop->is_done) {
        if (!jinja_next (r, loop->it, &loop->after, &more))
            return false;
        if (!more) {
            loop->after = value_of_kind (VALUE_MISSING);
            loop->is_done = true;
        }
    }
    *out = loop->after;
    return true;
}

bool jinja_loop_length (render *r, loop_state *loop, int64_t *out)
{
    bool has;
    value rest;
    if (loop->length < 0 && !jinja_length (r, loop->iterable, &has, &loop->length))
        return false;
    if (loop->length < 0) { /* no len (): whatever is still to come is taken into a list */
        value_list list = {0};
        bool more = !loop->is_done;
        while (more) {
            if (!jinja_next (r, loop->it, &rest, &more) || (more && !jinja_append (r, &list, rest)))
                return false;
        }
        if (!jinja_iterate (r, value_of_list (&list), &loop->it))
            return false;
        loop->length = list.count + loop->index0 + 1 + is_given (loop->after);
    }
    *out = loop->length;
    return true;
}

static bool next_turn (render *r, loop_state *loop, bool *more)
{
    value item = loop->after;
    *more = true;
    if (is_given (item))
        loop->after = value_of_kind (VALUE_MISSING);
    else if (loop->is_done)
        *more = false;
    else if (!jinja_next (r, loop->it, &item, more))
        return false;
    if (!*more)
        return true;
    loop->index0++;
    loop->before = loop->current;
    loop->current = item;
    return true;
}

/* `else` runs when no turn reached the end of the body: after `continue` in each, too. */
static flow run_else (render *r, scope *outer, const node *n)
{
    if (!n->other_frame)
        return FLOW_NEXT;
    scope *s = jinja_open_scope (r, outer, n->other_frame);
    return s && jinja_load_scope (r, s) ? jinja_run (r, s, &n->other) : FLOW_FAILED;
}

static flow run_turns (render *r, const node *n, scope *s, loop_state *loop, bool *finished_one)
{
    for (;;) {
        bool more;
        r->line = n->line;
        if (!next_turn (r, loop, &more))
            return FLOW_FAILED;
        if (!more)
            return FLOW_NEXT;
        if (!jinja_assign (r, s, n->left, loop->current) || !jinja_load_scope (r, s))
            return FLOW_FAILED;
        if (n->flags & FOR_HAS_LOOP)
            s->slots[0] = (value){.kind = VALUE_LOOP, .as.loop = loop};
        flow f = jinja_run (r, s, &n->body);
        if (f == FLOW_FAILED || f == FLOW_BREAK)
            return f;
        *finished_one = *finished_one || f == FLOW_NEXT;
    }
}

flow jinja_run_loop (render *r, scope *outer, const node *n, value iterable, int64_t depth0)
{
    loop_state *loop = jinja_new (r, 1, sizeof *loop);
    scope *s = jinja_open_scope (r, outer, n->frame);
    bool finished_one = false;
    if (!loop || !s || !jinja_enter (r) || !jinja_iterate (r, iterable, &loop->it) ||
        (n->third && !filter_loop (r, outer, n, &loop->it)))
        return FLOW_FAILED;
    loop->iterable = n->third ? value_none () : iterable;
    loop->index0 = loop->length = -1;
    loop->depth0 = depth0;
    loop->node = n;
    loop->outer = outer;
    if (run_turns (r, n, s, loop, &finished_one) == FLOW_FAILED)
        return FLOW_FAILED;
    jinja_leave_scope (s);
    jinja_leave (r);
    return finished_one ? FLOW_NEXT : run_else (r, outer, n);
}
