/* Which variable each name means, found once after parsing.
 *
 * Jinja compiles to Python and decides there, by these rules, which templates feel: a for loop, macro, call, set,
 * with, filter or autoescape block is a scope, an if is not. A scope holds the names that are assigned anywhere in
 * it, and those that it reads and no outer scope holds. Each time it is entered (a loop: every turn) its names
 * start afresh: those that an outer scope holds too with a copy of that value; those first read, or assigned only
 * under an if, with the render's variable; those assigned before they are read undefined. So assignments never
 * reach outwards, and a name that a scope assigns further down is not the render's variable for the scopes inside
 * it. */
#include "template_private.h"

static bool charge (parser *p, uint32_t line)
{
    p->line = line;
    return --p->steps_left >= 0 || jinja_parse_fail (p, line, "the template has too many variables and scopes");
}

static bool same_name (value a, value b)
{
    return a.length == b.length && memcmp (a.as.text, b.as.text, a.length) == 0;
}

/* -- Symbols ----------------------------------------------------------------------------------- */

static frame *open_frame (parser *p, frame *outer)
{
    frame *f = jinja_arena_new (p->arena, 1, sizeof *f, p->err);
    if (f)
        f->outer = outer;
    return f;
}

/* The number of `name` in `f`; f->count if it is not there. */
static uint32_t find_symbol (parser *p, const frame *f, value name)
{
    p->steps_left -= f->count;
    for (uint32_t i = 0; i < f->count; i++)
        if (same_name (f->symbols[i].name, name))
            return i;
    return f->count;
}

/* Looks in `f` and outwards; hops and slot are where it was found. */
static bool find_name (parser *p, const frame *f, value name, uint16_t *hops, uint16_t *slot)
{
    for (uint16_t n = 0; f; f = f->outer, n++) {
        uint32_t i = find_symbol (p, f, name);
        if (i == f->count)
            continue;
        *hops = n;
        *slot = (uint16_t) i;
        return true;
    }
    return false;
}

static bool add_symbol (parser *p, frame *f, value name, symbol_load load)
{
    if (f->count == MAX_SYMBOLS)
        return jinja_parse_fail (p, p->line, "more than %d variables in one scope", MAX_SYMBOLS);
    if (f->count == f->room) {
        uint32_t room = f->room ? f->room * 2 : 8;
        symbol *symbols = jinja_arena_new (p->arena, room, sizeof *symbols, p->err);
        uint32_t *stored = jinja_arena_new (p->arena, room, sizeof *stored, p->err);
        if (!symbols || !stored)
            return false;
        if (f->count)
            memcpy (symbols, f->symbols, f->count * sizeof *symbols);
        if (f->n_stored)
            memcpy (stored, f->stored, f->n_stored * sizeof *stored);
        f->symbols = symbols;
        f->stored = stored; /* at most every symbol is stored */
        f->room = room;
    }
    f->symbols[f->count++] = (symbol){.name = name, .load = load};
    return true;
}

/* What symbol `i` starts with when it is assigned only sometimes: the outer value, or the render's variable. */
static void load_from_outside (parser *p, frame *f, uint32_t i, symbol_load otherwise)
{
    symbol *s = &f->symbols[i];
    s->load = otherwise;
    if (f->outer && find_name (p, f->outer, s->name, &s->hops, &s->slot)) {
        s->load = LOAD_OUTER;
        s->hops++; /* as seen from f */
    }
}

static bool load_name (parser *p, frame *f, value name)
{
    uint16_t hops, slot;
    return find_name (p, f, name, &hops, &slot) || add_symbol (p, f, name, LOAD_VARIABLE);
}

static bool store_name (parser *p, frame *f, value name)
{
    uint32_t i = find_symbol (p, f, name);
    if (i == f->count) {
        if (!add_symbol (p, f, name, LOAD_UNDEFINED))
            return false;
        load_from_outside (p, f, i, LOAD_UNDEFINED);
    }
    if (!f->symbols[i].is_stored) {
        f->symbols[i].is_stored = true;
        f->stored[f->n_stored++] = i;
    }
    return true;
}

static bool declare_parameter (parser *p, frame *f, value name)
{
    uint32_t i = find_symbol (p, f, name);
    if (i == f->count && !add_symbol (p, f, name, LOAD_NOTHING))
        return false;
    f->symbols[i].load = LOAD_NOTHING;
    if (!f->symbols[i].is_stored) {
        f->symbols[i].is_stored = true;
        f->stored[f->n_stored++] = i;
    }
    return true;
}

/* -- First pass over a scope: what names it has ------------------------------------------------ */

typedef enum target_use { AS_VARIABLE, AS_LOOP_TARGET, AS_PARAMETER } target_use;

static bool collect_target (parser *p, frame *f, const node *n, target_use use)
{
    if (n->kind == NODE_NAMESPACE)
        return load_name (p, f, n->right->constant);
    if (n->kind == NODE_NAME) {
        if (p->n_loops && use != AS_PARAMETER && text_is (n->constant, "loop"))
            return jinja_parse_fail (p, n->line, "Can't assign to special loop variable in for-loop target");
        return use == AS_VARIABLE ? store_name (p, f, n->constant) : declare_parameter (p, f, n->constant);
    }
    for (uint32_t i = 0; i < n->items.count; i++)
        if (!collect_target (p, f, n->items.items[i], use))
            return false;
    return true;
}

static bool collect (parser *p, frame *f, const node *n);

static bool collect_list (parser *p, frame *f, const node_list *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (list->items[i] && !collect (p, f, list->items[i]))
            return false;
    return true;
}

static bool collect_call (parser *p, frame *f, const call_nodes *call)
{
    if (!collect_list (p, f, &call->positional))
        return false;
    for (uint32_t i = 0; i < call->n_named; i++)
        if (!collect (p, f, call->named[i].item))
            return false;
    return (!call->more_positional || collect (p, f, call->more_positional)) &&
           (!call->more_named || collect (p, f, call->more_named));
}

/* Names assigned in a branch may not be: they start from outside, unless they were assigned before it. */
static bool collect_if (parser *p, frame *f, const node *n)
{
    uint32_t mark = f->n_stored;
    if (!collect_list (p, f, &n->items))
        return false;
    for (uint32_t i = mark; i < f->n_stored; i++)
        load_from_outside (p, f, f->stored[i], LOAD_VARIABLE);
    return true;
}

static bool collect_parts (parser *p, frame *f, const node *n)
{
    switch ((node_kind) n->kind) {
    case NODE_NAME:
        return load_name (p, f, n->constant);
    case NODE_FOR:
        return collect (p, f, n->right);
    case NODE_IF:
        return collect_if (p, f, n);
    case NODE_BODY:
        return collect_list (p, f, &n->body);
    case NODE_SET:
        return collect (p, f, n->right) && collect_target (p, f, n->left, AS_VARIABLE);
    case NODE_SET_BLOCK:
        return collect_target (p, f, n->left, AS_VARIABLE);
    case NODE_MACRO:
        return store_name (p, f, n->left->constant);
    case NODE_CALL_BLOCK:
        return collect (p, f, n->left);
    case NODE_FILTER_BLOCK:
        return collect (p, f, n->right);
    case NODE_WITH:
        for (uint32_t i = 1; i < n->items.count; i += 2)
            if (!collect (p, f, n->items.items[i]))
                return false;
        return true;
    case NODE_AUTOESCAPE:
    case NODE_GENERATION:
    case NODE_BLOCK:
        return true;
    default: /* expressions and outputs: all their parts */
        return (!n->left || collect (p, f, n->left)) && (!n->right || collect (p, f, n->right)) &&
               (!n->third || collect (p, f, n->third)) && collect_list (p, f, &n->items) &&
               (!n->call || collect_call (p, f, n->call));
    }
}

static bool collect (parser *p, frame *f, const node *n)
{
    if (!charge (p, n->line) || !jinja_parser_enter (p))
        return false;
    bool ok = collect_parts (p, f, n);
    p->depth--;
    return ok;
}

/* -- Whether a name is read before anything in the same text assigns it (for loop, caller, kwargs, varargs, self)  */

typedef enum mention { MENTION_NONE, MENTION_READ, MENTION_STORED, MENTION_FAILED } mention;

static mention mentions (parser *p, const node *n, value name, bool as_target);

static mention mentions_in (parser *p, const node_list *list, value name, bool as_target)
{
    for (uint32_t i = 0; i < list->count; i++) {
        mention found = list->items[i] ? mentions (p, list->items[i], name, as_target) : MENTION_NONE;
        if (found != MENTION_NONE)
            return found;
    }
    return MENTION_NONE;
}

static mention mentions_call (parser *p, const call_nodes *call, value name)
{
    mention found = mentions_in (p, &call->positional, name, false);
    for (uint32_t i = 0; found == MENTION_NONE && i < call->n_named; i++)
        found = mentions (p, call->named[i].item, name, false);
    if (found == MENTION_NONE && call->more_positional)
        found = mentions (p, call->more_positional, name, false);
    if (found == MENTION_NONE && call->more_named)
        found = mentions (p, call->more_named, name, false);
    return found;
}

/* A macro's or call block's parameters, then defaults. */
static mention mentions_parameters (parser *p, const node *n, value name)
{
    for (uint32_t i = 0; i < n->items.count; i++)
        if (same_name (n->items.items[i]->constant, name))
            return MENTION_STORED;
    mention found = MENTION_NONE;
    for (uint32_t i = 0; found == MENTION_NONE && i < n->items.count; i++)
        if (n->items.items[i]->left)
            found = mentions (p, n->items.items[i]->left, name, false);
    return found;
}

static mention mentions_parts (parser *p, const node *n, value name, bool as_target)
{
    mention found = MENTION_NONE;
    switch ((node_kind) n->kind) {
    case NODE_NAME:
        return !same_name (n->constant, name) ? MENTION_NONE : as_target ? MENTION_STORED : MENTION_READ;
    case NODE_NAMESPACE:
    case NODE_BLOCK:
        return MENTION_NONE;
    case NODE_FOR:
    case NODE_SET:
    case NODE_SET_BLOCK:
        found = mentions (p, n->left, name, true);
        break;
    case NODE_WITH:
        for (uint32_t i = 0; found == MENTION_NONE && i < n->items.count; i++)
            found = mentions (p, n->items.items[i], name, i % 2 == 0);
        return found == MENTION_NONE ? mentions_in (p, &n->body, name, false) : found;
    case NODE_MACRO:
        found = mentions_parameters (p, n, name);
        return found == MENTION_NONE ? mentions_in (p, &n->body, name, false) : found;
    case NODE_CALL_BLOCK:
        found = mentions (p, n->left, name, false);
        if (found == MENTION_NONE)
            found = mentions_parameters (p, n, name);
        return found == MENTION_NONE ? mentions_in (p, &n->body, name, false) : found;
    default:
        if (n->left)
            found = mentions (p, n->left, name, as_target);
        if (found == MENTION_NONE)
            found = mentions_in (p, &n->items, name, as_target);
        break;
    }
    if (found == MENTION_NONE && n->right)
        found = mentions (p, n->right, name, false);
    if (found == MENTION_NONE && n->call)
        found = mentions_call (p, n->call, name);
    if (found == MENTION_NONE)
        found = mentions_in (p, &n->body, name, false);
    if (found == MENTION_NONE)
        found = mentions_in (p, &n->other, name, false);
    if (found == MENTION_NONE && n->third)
        found = mentions (p, n->third, name, false);
    return found;
}

static mention mentions (parser *p, const node *n, value name, bool as_target)
{
    if (!charge (p, n->line) || !jinja_parser_enter (p))
        return MENTION_FAILED;
    mention found = mentions_parts (p, n, name, as_target);
    p->depth--;
    return found;
}

/* Makes `name` a parameter of `f` if the body reads it; *slot is then its place. */
static bool declare_if_read (parser *p, frame *f, const node_list *body, const char *name, uint16_t *slot,
                             bool *declared)
{
    value text = value_literal (name);
    mention found = mentions_in (p, body, text, false);
    *declared = found == MENTION_READ;
    if (!*declared)
        return found != MENTION_FAILED;
    if (!declare_parameter (p, f, text))
        return false;
    *slot = (uint16_t) find_symbol (p, f, text);
    return true;
}

/* -- Second pass: names to (hops, slot), scopes inside ----------------------------------------- */

static bool resolve (parser *p, frame *f, node *n, bool soft);

static bool resolve_list (parser *p, frame *f, const node_list *list, bool soft)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (list->items[i] && !resolve (p, f, list->items[i], soft))
            return false;
    return true;
}

static bool resolve_name (parser *p, const frame *f, node *n, value name)
{
    return find_name (p, f, name, &n->hops, &n->slot) ||
           jinja_parse_fail (p, n->line, "%.*s is used where no scope knows it", (int) name.length, name.as.text);
}

static bool resolve_target (parser *p, const frame *f, node *n)
{
    if (n->kind == NODE_NAMESPACE)
        return resolve_name (p, f, n, n->right->constant) && resolve_name (p, f, n->right, n->right->constant);
    if (n->kind == NODE_NAME) {
        n->flags = f->is_top ? NAME_EXPORTED : 0;
        return resolve_name (p, f, n, n->constant);
    }
    for (uint32_t i = 0; i < n->items.count; i++)
        if (!resolve_target (p, f, n->items.items[i]))
            return false;
    return true;
}

static bool resolve_for (parser *p, frame *outer, node *n, bool soft)
{
    bool has_loop;
    uint16_t slot;
    unsigned breakable = p->n_breakable;
    if (!resolve (p, outer, n->right, soft))
        return false;
    p->n_loops++;
    frame *f = n->frame = open_frame (p, outer);
    if (!f || !declare_if_read (p, f, &n->body, "loop", &slot, &has_loop))
        return false;
    if ((n->flags & FOR_RECURSIVE) && !has_loop) {
        if (!declare_parameter (p, f, value_literal ("loop")))
            return false;
        has_loop = true;
    }
    n->flags |= has_loop ? FOR_HAS_LOOP : 0;
    p->n_breakable++;
    if (!collect_target (p, f, n->left, AS_LOOP_TARGET) || !collect_list (p, f, &n->body) ||
        !resolve_target (p, f, n->left) || !resolve_list (p, f, &n->body, false))
        return false;
    p->n_breakable = n->flags & FOR_RECURSIVE ? 0 : breakable;
    if (n->other.count && (!(n->other_frame = open_frame (p, outer)) || !collect_list (p, n->other_frame, &n->other) ||
                           !resolve_list (p, n->other_frame, &n->other, false)))
        return false;
    if (n->third) {
        /* The condition has a scope of its own with the target in it, in the same places as in the body's but for
         * `loop`. */
        frame *t = n->test_frame = open_frame (p, outer);
        if (!t || (has_loop && !add_symbol (p, t, value_literal (" loop"), LOAD_UNDEFINED)) ||
            !collect_target (p, t, n->left, AS_LOOP_TARGET) || !collect (p, t, n->third) ||
            !resolve (p, t, n->third, false))
            return false;
    }
    p->n_breakable = breakable;
    p->n_loops--;
    return true;
}

/* A macro's, call block's or generation block's scope: parameters, then what the body reads of caller, kwargs,
 * varargs. */
static bool resolve_macro (parser *p, frame *outer, node *n)
{
    static const char *const names[3] = {"caller", "kwargs", "varargs"};
    frame *f = n->frame = open_frame (p, outer);
    unsigned breakable = p->n_breakable;
    if (!f)
        return false;
    p->n_breakable = 0;
    for (uint32_t i = 0; i < n->items.count; i++) {
        node *parameter = n->items.items[i];
        if (!declare_parameter (p, f, parameter->constant))
            return false;
        parameter->slot = (uint16_t) i;
    }
    n->flags = 0;
    for (int i = 0; i < 3; i++) {
        bool read;
        value name = value_literal (names[i]);
        uint32_t place = find_symbol (p, f, name);
        if (place < f->count) { /* a parameter of that name */
            mention found = mentions_in (p, &n->body, name, false);
            if (found == MENTION_FAILED)
                return false;
            if (i == 0 && found == MENTION_READ && !n->items.items[place]->left)
                return jinja_parse_fail (p, n->line,
                                         "When defining macros or call blocks the special \"caller\" argument must "
                                         "be omitted or be given a default.");
            continue;
        }
        if (!declare_if_read (p, f, &n->body, names[i], &n->special[i], &read))
            return false;
        if (read)
            n->flags = (uint8_t) (n->flags | 1 << i);
    }
    for (uint32_t i = 0; i < n->items.count; i++)
        if (n->items.items[i]->left && !collect (p, f, n->items.items[i]->left))
            return false;
    if (!collect_list (p, f, &n->body))
        return false;
    for (uint32_t i = 0; i < n->items.count; i++)
        if (n->items.items[i]->left && !resolve (p, f, n->items.items[i]->left, false))
            return false;
    if (!resolve_list (p, f, &n->body, false))
        return false;
    p->n_breakable = breakable;
    return true;
}

/* A scope around a body, with expressions of it in `inside`. */
static bool resolve_block (parser *p, frame *outer, node *n, node *inside)
{
    frame *f = n->frame = open_frame (p, outer);
    return f && (!inside || collect (p, f, inside)) && collect_list (p, f, &n->body) &&
           (!inside || resolve (p, f, inside, false)) && resolve_list (p, f, &n->body, false);
}

static bool resolve_with (parser *p, frame *outer, node *n, bool soft)
{
    frame *f = n->frame = open_frame (p, outer);
    if (!f)
        return false;
    for (uint32_t i = 0; i < n->items.count; i += 2)
        if (!resolve (p, outer, n->items.items[i + 1], soft) || !collect_target (p, f, n->items.items[i], AS_PARAMETER))
            return false;
    if (!collect_list (p, f, &n->body))
        return false;
    for (uint32_t i = 0; i < n->items.count; i += 2)
        if (!resolve_target (p, f, n->items.items[i]))
            return false;
    return resolve_list (p, f, &n->body, false);
}

/* {% block %}: a scope that sees only the render's variables and what the template's top level has set. */
static bool resolve_template_block (parser *p, node *n)
{
    bool mentions_self;
    unsigned breakable = p->n_breakable;
    frame *f = n->frame = open_frame (p, NULL);
    p->n_breakable = 0;
    if (!f || !declare_if_read (p, f, &n->body, "self", &n->slot, &mentions_self))
        return false;
    n->op = mentions_self;
    if (!collect_list (p, f, &n->body) || !resolve_list (p, f, &n->body, false))
        return false;
    p->n_breakable = breakable;
    return true;
}

static bool resolve_call (parser *p, frame *f, const call_nodes *call, bool soft)
{
    if (!resolve_list (p, f, &call->positional, soft))
        return false;
    for (uint32_t i = 0; i < call->n_named; i++)
        if (!resolve (p, f, call->named[i].item, soft))
            return false;
    return (!call->more_positional || resolve (p, f, call->more_positional, soft)) &&
           (!call->more_named || resolve (p, f, call->more_named, soft));
}

static bool resolve_parts (parser *p, frame *f, node *n, bool soft)
{
    switch ((node_kind) n->kind) {
    case NODE_NAME:
        return resolve_name (p, f, n, n->constant);
    case NODE_FOR:
        return resolve_for (p, f, n, soft);
    case NODE_IF:
    case NODE_CONDITIONAL:
        soft = true;
        break;
    case NODE_SET:
        return resolve (p, f, n->right, soft) && resolve_target (p, f, n->left);
    case NODE_SET_BLOCK:
        return resolve_block (p, f, n, n->right) && resolve_target (p, f, n->left);
    case NODE_MACRO:
        return resolve_target (p, f, n->left) && resolve_macro (p, f, n);
    case NODE_CALL_BLOCK:
        return resolve (p, f, n->left, soft) && resolve_macro (p, f, n);
    case NODE_GENERATION:
        return resolve_macro (p, f, n);
    case NODE_FILTER_BLOCK:
        return resolve_block (p, f, n, n->right);
    case NODE_AUTOESCAPE:
        return resolve_block (p, f, n, n->left);
    case NODE_WITH:
        return resolve_with (p, f, n, soft);
    case NODE_BLOCK:
        return resolve_template_block (p, n);
    case NODE_BREAK:
    case NODE_CONTINUE:
        return p->n_breakable || jinja_parse_fail (p, n->line, "break and continue only work inside a loop");
    case NODE_FILTER:
    case NODE_TEST:
        if (!n->function && !soft &&
            !(n->kind == NODE_FILTER && jinja_is_refused_filter (n->constant.as.text, n->constant.length)))
            return jinja_parse_fail (p, n->line, "No %s named '%.*s'.", n->kind == NODE_FILTER ? "filter" : "test",
                                     (int) n->constant.length, n->constant.as.text);
        break;
    default:
        break;
    }
    return (!n->left || resolve (p, f, n->left, soft)) && (!n->right || resolve (p, f, n->right, soft)) &&
           (!n->third || resolve (p, f, n->third, soft)) && resolve_list (p, f, &n->items, soft) &&
           resolve_list (p, f, &n->body, soft) && (!n->call || resolve_call (p, f, n->call, soft));
}

static bool resolve (parser *p, frame *f, node *n, bool soft)
{
    if (!charge (p, n->line) || !jinja_parser_enter (p))
        return false;
    bool ok = resolve_parts (p, f, n, soft);
    p->depth--;
    return ok;
}

bool jinja_resolve_names (parser *p)
{
    struct wl_template *t = p->tmpl;
    uint16_t slot;
    frame *f = t->frame = open_frame (p, NULL);
    if (!f || !declare_if_read (p, f, &t->body, "self", &slot, &t->mentions_self))
        return false;
    f->is_top = true;
    return collect_list (p, f, &t->body) && resolve_list (p, f, &t->body, false);
}
