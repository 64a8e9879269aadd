/* Nodes to output.
 *
 * Each kind of node has a function of its own, out of line, so that the recursion through jinja_evaluate and
 * jinja_run carries only small stack frames. Failure needs no cleaning up: the first one ends the render, whose
 * memory is dropped whole. */
#include "template_private.h"

#define OUT_OF_LINE static __attribute__ ((noinline))

/* -- Scopes ------------------------------------------------------------------------------------ */

scope *jinja_open_scope (render *r, scope *outer, const frame *f)
{
    scope *s = jinja_new (r, 1, sizeof *s + f->count * sizeof s->slots[0]);
    if (s) {
        s->outer = outer;
        s->frame = f;
    }
    return s;
}

static scope *scope_at (scope *s, uint16_t hops)
{
    for (; hops && s->outer; hops--)
        s = s->outer;
    return s;
}

bool jinja_load_scope (render *r, scope *s)
{
    for (uint32_t i = 0; i < s->frame->count; i++) {
        const symbol *known = &s->frame->symbols[i];
        value *found = NULL;
        switch (known->load) {
        case LOAD_NOTHING:
            break;
        case LOAD_UNDEFINED:
            s->slots[i] = value_of_kind (VALUE_MISSING);
            break;
        case LOAD_OUTER:
            s->slots[i] = scope_at (s, known->hops)->slots[known->slot];
            break;
        case LOAD_VARIABLE:
            if (!jinja_find (r, r->exported, known->name, &found) ||
                (!found && !jinja_find (r, r->variables, known->name, &found)))
                return false;
            s->slots[i] = found ? *found : value_of_kind (VALUE_MISSING);
            break;
        }
    }
    return jinja_charge (r, (size_t) s->frame->count * 16);
}

/* What Jinja does when a scope ends: a macro that outlives its loop finds the loop's names unset. */
void jinja_leave_scope (scope *s)
{
    for (uint32_t i = 0; i < s->frame->count; i++)
        s->slots[i] = value_of_kind (VALUE_MISSING);
}

static bool assign_namespace (render *r, scope *s, const node *target, value v)
{
    value space = scope_at (s, target->hops)->slots[target->slot];
    r->line = target->line;
    if (space.kind != VALUE_NAMESPACE)
        return jinja_fail (r, "cannot assign attribute on non-namespace object");
    return jinja_put (r, space.as.dict, target->constant, v);
}

static bool assign_tuple (render *r, scope *s, const node *target, value v)
{
    value list;
    uint32_t wanted = target->items.count;
    if (!jinja_can_iterate (v))
        return jinja_fail (r, "cannot unpack non-iterable %s object", jinja_type_name (v));
    if (!jinja_list_of (r, v, &list))
        return false;
    if (list.length > wanted)
        return jinja_fail (r, "too many values to unpack (expected %u)", wanted);
    if (list.length < wanted)
        return jinja_fail (r, "not enough values to unpack (expected %u, got %u)", wanted, list.length);
    for (uint32_t i = 0; i < wanted; i++)
        if (!jinja_assign (r, s, target->items.items[i], list.as.items[i]))
            return false;
    return true;
}

bool jinja_assign (render *r, scope *s, const node *target, value v)
{
    if (target->kind == NODE_NAME) {
        scope_at (s, target->hops)->slots[target->slot] = v;
        return !(target->flags & NAME_EXPORTED) || r->tmpl->n_blocks == 0 ||
               jinja_put (r, r->exported, target->constant, v);
    }
    return target->kind == NODE_NAMESPACE ? assign_namespace (r, s, target, v) : assign_tuple (r, s, target, v);
}

/* -- Expressions ------------------------------------------------------------------------------- */

OUT_OF_LINE bool evaluate_items (render *r, scope *s, const node_list *list, value_kind kind, value *out)
{
    value *items = jinja_new (r, list->count, sizeof *items);
    if (!items)
        return false;
    for (uint32_t i = 0; i < list->count; i++)
        if (!jinja_evaluate (r, s, list->items[i], &items[i]))
            return false;
    *out = value_sequence (kind, items, list->count);
    return true;
}

OUT_OF_LINE bool evaluate_dict (render *r, scope *s, const node *n, value *out)
{
    value key, item;
    dict *d = jinja_new_dict (r, n->items.count / 2);
    if (!d)
        return false;
    for (uint32_t i = 0; i < n->items.count; i += 2)
        if (!jinja_evaluate (r, s, n->items.items[i], &key) || !jinja_evaluate (r, s, n->items.items[i + 1], &item) ||
            !jinja_put (r, d, key, item))
            return false;
    *out = (value){.kind = VALUE_DICT, .as.dict = d};
    return true;
}

OUT_OF_LINE bool evaluate_concat (render *r, scope *s, const node *n, value *out)
{
    value part;
    bool escapes = false;
    *out = value_literal ("");
    for (uint32_t i = 0; i < n->items.count; i++) {
        if (!jinja_evaluate (r, s, n->items.items[i], &part) || !jinja_to_text (r, part, &part))
            return false;
        if (r->autoescape && (part.flags & TEXT_MARKUP) && !escapes) {
            escapes = true;
            if (!jinja_escape (r, *out, out))
                return false;
        }
        if (escapes && !jinja_escape (r, part, &part))
            return false;
        if (!escapes)
            part.flags &= (uint8_t) ~TEXT_MARKUP;
        if (!jinja_concat_text (r, *out, part, out))
            return false;
    }
    return true;
}

OUT_OF_LINE bool evaluate_compare (render *r, scope *s, const node *n, value *out)
{
    value left, right;
    bool holds = true;
    if (!jinja_evaluate (r, s, n->left, &left))
        return false;
    for (uint32_t i = 0; i < n->items.count && holds; i++) {
        const node *operand = n->items.items[i];
        if (!jinja_evaluate (r, s, operand->left, &right) || !jinja_compare (r, operand->op, left, right, &holds))
            return false;
        left = right;
    }
    *out = value_bool (holds);
    return true;
}

OUT_OF_LINE bool evaluate_binary (render *r, scope *s, const node *n, value *out)
{
    value left, right;
    if (!jinja_evaluate (r, s, n->left, &left) || !jinja_evaluate (r, s, n->right, &right))
        return false;
    r->line = n->line;
    return jinja_binary (r, n->op, left, right, out);
}

OUT_OF_LINE bool evaluate_sign (render *r, scope *s, const node *n, value *out)
{
    value v;
    if (!jinja_evaluate (r, s, n->left, &v))
        return false;
    if (n->kind == NODE_NEGATE)
        return jinja_negate (r, v, out);
    if (v.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, v);
    if (!is_number (v))
        return jinja_fail (r, "bad operand type for unary +: '%s'", jinja_type_name (v));
    *out = is_int (v) ? value_int (int_of (v)) : v;
    return true;
}

OUT_OF_LINE bool evaluate_item (render *r, scope *s, const node *n, value *out)
{
    value object, key;
    if (!jinja_evaluate (r, s, n->left, &object) || !jinja_evaluate (r, s, n->right, &key))
        return false;
    r->line = n->line;
    return jinja_item (r, object, key, out);
}

OUT_OF_LINE bool evaluate_attribute (render *r, scope *s, const node *n, value *out)
{
    value object;
    if (!jinja_evaluate (r, s, n->left, &object))
        return false;
    r->line = n->line;
    return jinja_attribute (r, object, n->constant, out);
}

OUT_OF_LINE bool evaluate_slice (render *r, scope *s, const node *n, value *out)
{
    value object, ends[3];
    if (!jinja_evaluate (r, s, n->left, &object))
        return false;
    for (uint32_t i = 0; i < 3; i++) {
        ends[i] = value_none ();
        if (n->items.items[i] && !jinja_evaluate (r, s, n->items.items[i], &ends[i]))
            return false;
    }
    return jinja_slice (r, object, ends[0], ends[1], ends[2], out);
}

/* *args are appended; *named is what **kwargs holds, NULL if there is none. */
static bool add_more_arguments (render *r, scope *s, const call_nodes *nodes, value_list *positional,
                                const dict **named)
{
    value v, list;
    *named = NULL;
    if (nodes->more_positional) {
        if (!jinja_evaluate (r, s, nodes->more_positional, &v) || !jinja_list_of (r, v, &list))
            return false;
        for (uint32_t i = 0; i < list.length; i++)
            if (!jinja_append (r, positional, list.as.items[i]))
                return false;
    }
    if (nodes->more_named) {
        if (!jinja_evaluate (r, s, nodes->more_named, &v))
            return false;
        if (v.kind == VALUE_UNDEFINED)
            return jinja_fail_undefined (r, v);
        if (v.kind != VALUE_DICT)
            return jinja_fail (r, "argument after ** must be a mapping, not %s", jinja_type_name (v));
        *named = v.as.dict;
    }
    return true;
}

static bool fail_twice (render *r, value name)
{
    return jinja_fail (r, "got multiple values for keyword argument '%.*s'", (int) name.length, name.as.text);
}

static bool add_named (render *r, named_argument *named, uint32_t *count, value name, value item)
{
    if (!is_text (name))
        return jinja_fail (r, "keywords must be strings");
    for (uint32_t i = 0; i < *count; i++)
        if (named[i].name.length == name.length && memcmp (named[i].name.as.text, name.as.text, name.length) == 0)
            return fail_twice (r, name);
    named[(*count)++] = (named_argument){name, item};
    return jinja_charge (r, (size_t) *count * 8);
}

OUT_OF_LINE bool evaluate_many_arguments (render *r, scope *s, const call_nodes *nodes, value caller, arguments *out)
{
    value_list positional = {0};
    const dict *more = NULL;
    value v;
    uint32_t n = nodes->n_named, count = 0;
    for (uint32_t i = 0; i < nodes->positional.count; i++)
        if (!jinja_evaluate (r, s, nodes->positional.items[i], &v) || !jinja_append (r, &positional, v))
            return false;
    value *written = jinja_new (r, n, sizeof *written);
    if (!written)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!jinja_evaluate (r, s, nodes->named[i].item, &written[i]))
            return false;
    if (!add_more_arguments (r, s, nodes, &positional, &more))
        return false;
    named_argument *named = jinja_new (r, (size_t) n + (more ? more->count : 0) + 1, sizeof *named);
    if (!named)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!add_named (r, named, &count, nodes->named[i].name, written[i]))
            return false;
    for (uint32_t i = 0; more && i < more->count; i++)
        if (!add_named (r, named, &count, more->entries[i].key, more->entries[i].item))
            return false;
    if (is_given (caller) && !add_named (r, named, &count, value_literal ("caller"), caller))
        return false;
    *out = (arguments){positional.items, named, positional.count, count};
    return true;
}

bool jinja_evaluate_arguments (render *r, scope *s, const call_nodes *nodes, value caller, arguments *out)
{
    if (nodes->n_named || nodes->more_positional || nodes->more_named || is_given (caller))
        return evaluate_many_arguments (r, s, nodes, caller, out);
    value list = value_sequence (VALUE_LIST, NULL, 0);
    if (nodes->positional.count && !evaluate_items (r, s, &nodes->positional, VALUE_LIST, &list))
        return false;
    *out = (arguments){list.as.items, NULL, list.length, 0};
    return true;
}

static const value no_caller = {.kind = VALUE_MISSING};

OUT_OF_LINE bool evaluate_call (render *r, scope *s, const node *n, value caller, value *out)
{
    value function;
    arguments call;
    if (!jinja_evaluate (r, s, n->left, &function) || !jinja_evaluate_arguments (r, s, n->call, caller, &call))
        return false;
    r->line = n->line;
    return jinja_call (r, function, &call, out);
}

OUT_OF_LINE bool evaluate_filter (render *r, scope *s, const node *n, value *out)
{
    value self = r->captured;
    arguments call;
    bool filter = n->kind == NODE_FILTER;
    if ((n->left && !jinja_evaluate (r, s, n->left, &self)) ||
        !jinja_evaluate_arguments (r, s, n->call, no_caller, &call))
        return false;
    r->line = n->line;
    if (n->function)
        return jinja_call_native (r, filter ? "filter" : "test", n->function, self, &call, out);
    if (filter && jinja_is_refused_filter (n->constant.as.text, n->constant.length))
        return jinja_fail (r, "the filter %.*s is not available here", (int) n->constant.length, n->constant.as.text);
    return jinja_fail (r, "No %s named '%.*s' found.", filter ? "filter" : "test", (int) n->constant.length,
                       n->constant.as.text);
}

OUT_OF_LINE bool evaluate_conditional (render *r, scope *s, const node *n, value *out)
{
    value condition;
    if (!jinja_evaluate (r, s, n->right, &condition))
        return false;
    if (jinja_truth (condition))
        return jinja_evaluate (r, s, n->left, out);
    if (n->third)
        return jinja_evaluate (r, s, n->third, out);
    static const char hint[] = "the inline if-expression evaluated to false and no else section was defined.";
    *out = value_undefined (UNDEFINED_HINT, hint, sizeof hint - 1);
    return true;
}

OUT_OF_LINE bool evaluate_logic (render *r, scope *s, const node *n, value *out)
{
    if (!jinja_evaluate (r, s, n->left, out))
        return false;
    if (n->kind == NODE_NOT) {
        *out = value_bool (!jinja_truth (*out));
        return true;
    }
    return jinja_truth (*out) == (n->kind == NODE_OR) || jinja_evaluate (r, s, n->right, out);
}

static bool evaluate_name (scope *s, const node *n, value *out)
{
    *out = scope_at (s, n->hops)->slots[n->slot];
    if (out->kind == VALUE_MISSING)
        *out = value_undefined (UNDEFINED_NAME, n->constant.as.text, n->constant.length);
    return true;
}

static bool evaluate_node (render *r, scope *s, const node *n, value *out)
{
    switch ((node_kind) n->kind) {
    case NODE_CONSTANT:
        *out = n->constant;
        return true;
    case NODE_NAME:
        return evaluate_name (s, n, out);
    case NODE_TUPLE:
    case NODE_LIST:
        return evaluate_items (r, s, &n->items, n->kind == NODE_TUPLE ? VALUE_TUPLE : VALUE_LIST, out);
    case NODE_DICT:
        return evaluate_dict (r, s, n, out);
    case NODE_CONDITIONAL:
        return evaluate_conditional (r, s, n, out);
    case NODE_OR:
    case NODE_AND:
    case NODE_NOT:
        return evaluate_logic (r, s, n, out);
    case NODE_NEGATE:
    case NODE_POSITIVE:
        return evaluate_sign (r, s, n, out);
    case NODE_BINARY:
        return evaluate_binary (r, s, n, out);
    case NODE_CONCAT:
        return evaluate_concat (r, s, n, out);
    case NODE_COMPARE:
        return evaluate_compare (r, s, n, out);
    case NODE_ATTRIBUTE:
        return evaluate_attribute (r, s, n, out);
    case NODE_ITEM:
        return evaluate_item (r, s, n, out);
    case NODE_SLICE:
        return evaluate_slice (r, s, n, out);
    case NODE_CALL:
        return evaluate_call (r, s, n, no_caller, out);
    case NODE_FILTER:
    case NODE_TEST:
        return evaluate_filter (r, s, n, out);
    default:
        return jinja_fail (r, "a statement stands where a value is needed");
    }
}

bool jinja_evaluate (render *r, scope *s, const node *n, value *out)
{
    if (!jinja_enter (r) || !jinja_charge (r, 0) || !evaluate_node (r, s, n, out))
        return false;
    jinja_leave (r);
    return true;
}

/* -- Statements -------------------------------------------------------------------------------- */

static flow flow_of (bool ok)
{
    return ok ? FLOW_NEXT : FLOW_FAILED;
}

OUT_OF_LINE flow run_output (render *r, scope *s, const node *n)
{
    value v;
    return flow_of (jinja_evaluate (r, s, n->left, &v) &&
                    (r->autoescape ? jinja_emit_escaped (r, v) : jinja_emit_value (r, v)));
}

OUT_OF_LINE flow run_for (render *r, scope *s, const node *n)
{
    value iterable;
    return jinja_evaluate (r, s, n->right, &iterable) ? jinja_run_loop (r, s, n, iterable, 0) : FLOW_FAILED;
}

OUT_OF_LINE flow run_if (render *r, scope *s, const node *n)
{
    value condition;
    const node_list *parts = &n->items;
    for (uint32_t i = 0; i + 1 < parts->count; i += 2) {
        if (!jinja_evaluate (r, s, parts->items[i], &condition))
            return FLOW_FAILED;
        if (jinja_truth (condition))
            return jinja_run (r, s, &parts->items[i + 1]->body);
    }
    return parts->count % 2 ? jinja_run (r, s, &parts->items[parts->count - 1]->body) : FLOW_NEXT;
}

/* Each namespace that a target names has to be one before the value is evaluated. */
static bool check_namespaces (render *r, scope *s, const node *target)
{
    if (target->kind == NODE_NAMESPACE && scope_at (s, target->hops)->slots[target->slot].kind != VALUE_NAMESPACE)
        return jinja_fail (r, "cannot assign attribute on non-namespace object");
    for (uint32_t i = 0; i < target->items.count; i++)
        if (!check_namespaces (r, s, target->items.items[i]))
            return false;
    return true;
}

OUT_OF_LINE flow run_set (render *r, scope *s, const node *n)
{
    value v;
    return flow_of (check_namespaces (r, s, n->left) && jinja_evaluate (r, s, n->right, &v) &&
                    jinja_assign (r, s, n->left, v));
}

/* Runs a body in a scope of its own and gives what it put out, through the filter n->right if there is one. What
 * break and continue cut off is dropped. */
OUT_OF_LINE flow capture_body (render *r, scope *outer, const node *n, value *out)
{
    scope *s = jinja_open_scope (r, outer, n->frame);
    if (!s || !jinja_load_scope (r, s))
        return FLOW_FAILED;
    size_t mark = jinja_capture (r);
    flow f = jinja_run (r, s, &n->body);
    if (f != FLOW_NEXT) {
        jinja_capture_drop (r, mark);
        return f;
    }
    if (!jinja_capture_end (r, mark, out))
        return FLOW_FAILED;
    out->flags |= r->autoescape ? TEXT_MARKUP : 0;
    if (n->right) {
        value kept = r->captured;
        r->captured = *out;
        if (!jinja_evaluate (r, s, n->right, out))
            return FLOW_FAILED;
        r->captured = kept;
    }
    return FLOW_NEXT;
}

OUT_OF_LINE flow run_set_block (render *r, scope *s, const node *n)
{
    value v;
    flow f = capture_body (r, s, n, &v);
    if (f != FLOW_NEXT)
        return f;
    if (r->autoescape && (!jinja_to_text (r, v, &v)))
        return FLOW_FAILED;
    if (r->autoescape)
        v.flags |= TEXT_MARKUP;
    return flow_of (jinja_assign (r, s, n->left, v));
}

/* What filter and call blocks give is joined to the output as it is: it has to be a text. */
static bool emit_text (render *r, value v)
{
    return is_text (v) ? jinja_emit (r, v.as.text, v.length)
                       : jinja_fail (r, "expected str instance, %s found", jinja_type_name (v));
}

OUT_OF_LINE flow run_filter_block (render *r, scope *s, const node *n)
{
    value v;
    flow f = capture_body (r, s, n, &v);
    return f == FLOW_NEXT ? flow_of (emit_text (r, v)) : f;
}

static bool make_macro (render *r, scope *s, const node *n, value name, value *out)
{
    macro *m = jinja_new (r, 1, sizeof *m);
    if (!m)
        return false;
    *m = (macro){n, s, name};
    *out = (value){.kind = VALUE_MACRO, .as.macro = m};
    return true;
}

OUT_OF_LINE flow run_macro (render *r, scope *s, const node *n)
{
    value m;
    return flow_of (make_macro (r, s, n, n->left->constant, &m) && jinja_assign (r, s, n->left, m));
}

OUT_OF_LINE flow run_call_block (render *r, scope *s, const node *n)
{
    value caller, v;
    return flow_of (make_macro (r, s, n, value_none (), &caller) && evaluate_call (r, s, n->left, caller, &v) &&
                    emit_text (r, v));
}

OUT_OF_LINE flow run_with (render *r, scope *outer, const node *n)
{
    value v;
    scope *s = jinja_open_scope (r, outer, n->frame);
    if (!s || !jinja_load_scope (r, s))
        return FLOW_FAILED;
    for (uint32_t i = 0; i < n->items.count; i += 2)
        if (!jinja_evaluate (r, outer, n->items.items[i + 1], &v) || !jinja_assign (r, s, n->items.items[i], v))
            return FLOW_FAILED;
    flow f = jinja_run (r, s, &n->body);
    jinja_leave_scope (s);
    return f;
}

OUT_OF_LINE flow run_autoescape (render *r, scope *outer, const node *n)
{
    value on;
    bool before = r->autoescape;
    scope *s = jinja_open_scope (r, outer, n->frame);
    if (!s || !jinja_load_scope (r, s) || !jinja_evaluate (r, s, n->left, &on))
        return FLOW_FAILED;
    r->autoescape = jinja_truth (on);
    flow f = jinja_run (r, s, &n->body);
    r->autoescape = before;
    return f;
}

/* As transformers has it: a call block whose caller is called at once. */
OUT_OF_LINE flow run_generation (render *r, scope *s, const node *n)
{
    const arguments none = {0};
    const macro m = {n, s, value_none ()};
    value v;
    return flow_of (jinja_call_macro (r, &m, &none, &v) && jinja_emit_value (r, v));
}

/* The variables that a scoped block sees: the render's, the template's own, and all that the scopes around it have
 * set. */
static bool gather_scoped (render *r, scope *s, dict *into)
{
    if (s->outer && !gather_scoped (r, s->outer, into))
        return false;
    for (uint32_t i = 0; i < s->frame->count; i++)
        if (s->frame->symbols[i].is_stored && is_given (s->slots[i]) &&
            !jinja_put (r, into, s->frame->symbols[i].name, s->slots[i]))
            return false;
    return true;
}

bool jinja_run_block (render *r, const node *block, scope *from)
{
    dict *exported = r->exported, *seen = exported;
    scope *s = jinja_open_scope (r, NULL, block->frame);
    if (!s || !jinja_enter (r))
        return false;
    if (block->flags & BLOCK_REQUIRED) {
        r->line = block->line;
        return jinja_fail (r, "Required block '%.*s' not found", (int) block->constant.length, block->constant.as.text);
    }
    if (from && (block->flags & BLOCK_SCOPED)) {
        const arguments copied = {.positional = &(value){.kind = VALUE_DICT, .as.dict = exported}, .n_positional = 1};
        seen = jinja_new_dict (r, 0);
        if (!seen || !jinja_fill_dict (r, seen, "block", &copied) || !gather_scoped (r, from, seen))
            return false;
    }
    r->exported = seen;
    if (!jinja_load_scope (r, s))
        return false;
    if (block->op)
        s->slots[block->slot] = value_of_kind (VALUE_SELF);
    if (jinja_run (r, s, &block->body) == FLOW_FAILED)
        return false;
    r->exported = exported;
    jinja_leave (r);
    return true;
}

static flow run_statement (render *r, scope *s, const node *n)
{
    switch ((node_kind) n->kind) {
    case NODE_TEXT:
        return flow_of (jinja_emit (r, n->constant.as.text, n->constant.length));
    case NODE_OUTPUT:
        return run_output (r, s, n);
    case NODE_FOR:
        return run_for (r, s, n);
    case NODE_IF:
        return run_if (r, s, n);
    case NODE_BODY:
        return jinja_run (r, s, &n->body);
    case NODE_SET:
        return run_set (r, s, n);
    case NODE_SET_BLOCK:
        return run_set_block (r, s, n);
    case NODE_MACRO:
        return run_macro (r, s, n);
    case NODE_CALL_BLOCK:
        return run_call_block (r, s, n);
    case NODE_FILTER_BLOCK:
        return run_filter_block (r, s, n);
    case NODE_WITH:
        return run_with (r, s, n);
    case NODE_AUTOESCAPE:
        return run_autoescape (r, s, n);
    case NODE_GENERATION:
        return run_generation (r, s, n);
    case NODE_BLOCK:
        return flow_of (jinja_run_block (r, n, s));
    case NODE_BREAK:
        return FLOW_BREAK;
    case NODE_CONTINUE:
        return FLOW_CONTINUE;
    case NODE_REFUSED:
        return flow_of (jinja_fail (r, "%.*s: a chat template has no other templates to load", (int) n->constant.length,
                                    n->constant.as.text));
    default:
        return flow_of (jinja_fail (r, "a value stands where a statement is needed"));
    }
}

flow jinja_run (render *r, scope *s, const node_list *body)
{
    flow f = FLOW_NEXT;
    if (!jinja_enter (r))
        return FLOW_FAILED;
    for (uint32_t i = 0; i < body->count && f == FLOW_NEXT; i++) {
        r->line = body->items[i]->line;
        f = jinja_charge (r, 0) ? run_statement (r, s, body->items[i]) : FLOW_FAILED;
    }
    jinja_leave (r);
    return f;
}

bool jinja_run_template (render *r)
{
    scope *s = jinja_open_scope (r, NULL, r->tmpl->frame);
    if (!s || !jinja_load_scope (r, s))
        return false;
    if (r->tmpl->mentions_self)
        s->slots[0] = value_of_kind (VALUE_SELF);
    return jinja_run (r, s, &r->tmpl->body) != FLOW_FAILED;
}
