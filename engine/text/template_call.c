/* Calls: binding arguments to what is built in, and to macros. */
#include "template_private.h"

bool jinja_is_callable (value v)
{
    switch ((value_kind) v.kind) {
    case VALUE_UNDEFINED: /* it has __call__, which fails */
    case VALUE_LOOP:
    case VALUE_MACRO:
    case VALUE_FUNCTION:
    case VALUE_METHOD:
    case VALUE_JOINER:
    case VALUE_BLOCK:
        return true;
    default:
        return false;
    }
}

/* -- Built-in callables ------------------------------------------------------------------------ */

/* The number of the parameter called `name`; -1 if there is none, or parameters go by position only. */
static int parameter_number (const char *parameters, value name)
{
    if (*parameters == '/')
        return -1;
    for (int i = 0; *parameters; i++) {
        size_t length = strcspn (parameters, ",");
        if (length == name.length && memcmp (parameters, name.as.text, length) == 0)
            return i;
        parameters += length + (parameters[length] == ',');
    }
    return -1;
}

static unsigned count_parameters (const char *parameters)
{
    unsigned n = *parameters && strcmp (parameters, "/") != 0;
    for (; *parameters; parameters++)
        n += *parameters == ',';
    return n;
}

static bool bind (render *r, const char *what, const callable *f, const arguments *call, value args[MAX_PARAMETERS])
{
    unsigned n = count_parameters (f->parameters);
    for (unsigned i = 0; i < MAX_PARAMETERS; i++)
        args[i] = value_of_kind (VALUE_MISSING);
    if (call->n_positional > n)
        return jinja_fail (r, "%s %s takes at most %u arguments, not %u", what, f->name, n, call->n_positional);
    for (uint32_t i = 0; i < call->n_positional; i++)
        args[i] = call->positional[i];
    for (uint32_t i = 0; i < call->n_named; i++) {
        value name = call->named[i].name;
        int number = parameter_number (f->parameters, name);
        if (number < 0)
            return jinja_fail (r, "%s %s has no argument called %.*s", what, f->name, (int) name.length, name.as.text);
        if (is_given (args[number]))
            return jinja_fail (r, "%s %s gets two values for %.*s", what, f->name, (int) name.length, name.as.text);
        args[number] = call->named[i].item;
    }
    for (unsigned i = 0; i < f->required; i++)
        if (!is_given (args[i]))
            return jinja_fail (r, "%s %s lacks an argument (it wants %u)", what, f->name, f->required);
    return true;
}

/* Apart from jinja_call_native so that its array is not on the stack of calls that need none. */
static __attribute__ ((noinline)) bool bind_and_run (render *r, const char *what, const callable *f, value self,
                                                     const arguments *call, value *out)
{
    value args[MAX_PARAMETERS];
    return bind (r, what, f, call, args) && f->run (r, self, args, call, out);
}

bool jinja_call_native (render *r, const char *what, const callable *f, value self, const arguments *call, value *out)
{
    if (!jinja_charge (r, 0))
        return false;
    return f->parameters ? bind_and_run (r, what, f, self, call, out) : f->run (r, self, NULL, call, out);
}

/* What methods of Markup give is Markup. */
static bool mark_result (render *r, value *v)
{
    if (is_text (*v)) {
        v->flags |= TEXT_MARKUP;
        return true;
    }
    if (!is_sequence (*v))
        return true;
    value *items = jinja_new (r, v->length, sizeof *items);
    if (!items)
        return false;
    for (uint32_t i = 0; i < v->length; i++) {
        items[i] = v->as.items[i];
        items[i].flags |= is_text (items[i]) ? TEXT_MARKUP : 0;
    }
    v->as.items = items;
    return true;
}

static bool call_method (render *r, const bound_method *m, const arguments *call, value *out)
{
    if (!jinja_call_native (r, "method", m->method, m->self, call, out))
        return false;
    return !is_text (m->self) || !(m->self.flags & TEXT_MARKUP) || mark_result (r, out);
}

/* -- Loops, called to recurse; joiners --------------------------------------------------------- */

static bool call_loop (render *r, loop_state *loop, const arguments *call, value *out)
{
    if (call->n_positional != 1 || call->n_named)
        return jinja_fail (r, "loop(...) wants what to loop over, and nothing else");
    if (!(loop->node->flags & FOR_RECURSIVE))
        return jinja_fail (r, "The loop must have the 'recursive' marker to be called recursively.");
    size_t mark = jinja_capture (r);
    if (jinja_run_loop (r, loop->outer, loop->node, call->positional[0], loop->depth0 + 1) == FLOW_FAILED ||
        !jinja_capture_end (r, mark, out))
        return false;
    out->flags |= r->autoescape ? TEXT_MARKUP : 0;
    return true;
}

static bool call_joiner (render *r, cycler *joiner, const arguments *call, value *out)
{
    if (call->n_positional || call->n_named)
        return jinja_fail (r, "a joiner is called without arguments");
    *out = joiner->position++ ? joiner->items[0] : value_literal ("");
    if (joiner->position > 1)
        joiner->position = 1;
    return true;
}

static bool call_block (render *r, const node *block, value *out)
{
    size_t mark = jinja_capture (r);
    if (!jinja_run_block (r, block, NULL) || !jinja_capture_end (r, mark, out))
        return false;
    out->flags |= r->autoescape ? TEXT_MARKUP : 0;
    return true;
}

bool jinja_call (render *r, value function, const arguments *call, value *out)
{
    switch ((value_kind) function.kind) {
    case VALUE_UNDEFINED:
        return jinja_fail_undefined (r, function);
    case VALUE_METHOD:
        return call_method (r, function.as.method, call, out);
    case VALUE_FUNCTION:
        return jinja_call_native (r, "function", function.as.function, value_none (), call, out);
    case VALUE_MACRO:
        return jinja_call_macro (r, function.as.macro, call, out);
    case VALUE_LOOP:
        return call_loop (r, function.as.loop, call, out);
    case VALUE_JOINER:
        return call_joiner (r, function.as.cycler, call, out);
    case VALUE_BLOCK:
        return call_block (r, function.as.block, out);
    default:
        return jinja_fail (r, "'%s' object is not callable", jinja_type_name (function));
    }
}

/* -- Macros ------------------------------------------------------------------------------------ */

/* The argument of that name, which *used then marks as taken; NULL if it is not given. */
static const value *take_named (const arguments *call, bool *used, value name)
{
    for (uint32_t i = 0; i < call->n_named; i++) {
        value given = call->named[i].name;
        if (!used[i] && given.length == name.length && memcmp (given.as.text, name.as.text, name.length) == 0) {
            used[i] = true;
            return &call->named[i].item;
        }
    }
    return NULL;
}

/* kwargs: the named arguments that no parameter took. */
static bool gather_rest (render *r, const arguments *call, const bool *used, value *out)
{
    dict *d = jinja_new_dict (r, 0);
    if (!d)
        return false;
    for (uint32_t i = 0; i < call->n_named; i++)
        if (!used[i] && !jinja_put (r, d, call->named[i].name, call->named[i].item))
            return false;
    *out = (value){.kind = VALUE_DICT, .as.dict = d};
    return true;
}

static bool fail_named (render *r, const macro *m, const arguments *call, const bool *used)
{
    for (uint32_t i = 0; i < call->n_named; i++) {
        value name = call->named[i].name, own = m->name.kind == VALUE_NONE ? value_literal ("caller") : m->name;
        if (!used[i] && text_is (name, "caller"))
            return jinja_fail (r,
                               "macro '%.*s' was invoked with two values for the special caller argument. This is most "
                               "likely a bug.",
                               (int) own.length, own.as.text);
        if (!used[i])
            return jinja_fail (r, "macro '%.*s' takes no keyword argument '%.*s'", (int) own.length, own.as.text,
                               (int) name.length, name.as.text);
    }
    return true;
}

static bool bind_macro (render *r, const macro *m, const arguments *call, scope *s)
{
    const node *n = m->node;
    bool *used = jinja_new (r, call->n_named, sizeof *used);
    if (!used || !jinja_charge (r, (size_t) n->items.count * call->n_named * 8))
        return false;
    for (uint32_t i = 0; i < n->items.count; i++) {
        const node *parameter = n->items.items[i];
        if (i < call->n_positional) {
            s->slots[parameter->slot] = call->positional[i];
            continue;
        }
        const value *given = take_named (call, used, parameter->constant);
        if (given)
            s->slots[parameter->slot] = *given;
    }
    if (n->flags & MACRO_CALLER) {
        const value *caller = take_named (call, used, value_literal ("caller"));
        s->slots[n->special[0]] =
            caller && caller->kind != VALUE_NONE ? *caller : value_undefined (UNDEFINED_HINT, "No caller defined", 17);
    }
    if (n->flags & MACRO_KWARGS) {
        if (!gather_rest (r, call, used, &s->slots[n->special[1]]))
            return false;
    } else if (!fail_named (r, m, call, used)) {
        return false;
    }
    uint32_t extra = call->n_positional > n->items.count ? call->n_positional - n->items.count : 0;
    if (n->flags & MACRO_VARARGS)
        s->slots[n->special[2]] = value_sequence (VALUE_TUPLE, extra ? call->positional + n->items.count : NULL, extra);
    else if (extra)
        return jinja_fail (r, "macro '%.*s' takes not more than %u argument(s)", (int) m->name.length,
                           m->name.kind == VALUE_NONE ? "" : m->name.as.text, n->items.count);
    return true;
}

bool jinja_call_macro (render *r, const macro *m, const arguments *call, value *out)
{
    const node *n = m->node;
    value fallback;
    scope *s = jinja_open_scope (r, m->outer, n->frame);
    if (!s || !jinja_enter (r) || !jinja_load_scope (r, s) || !bind_macro (r, m, call, s))
        return false;
    for (uint32_t i = 0; i < n->items.count; i++) {
        const node *parameter = n->items.items[i];
        value *slot = &s->slots[parameter->slot];
        if (is_given (*slot))
            continue;
        if (!parameter->left)
            *slot = value_undefined (UNDEFINED_PARAMETER, parameter->constant.as.text, parameter->constant.length);
        else if (!jinja_evaluate (r, s, parameter->left, &fallback))
            return false;
        else
            *slot = fallback; /* not before: it may read its own name */
    }
    size_t mark = jinja_capture (r);
    value captured = r->captured;
    if (jinja_run (r, s, &n->body) == FLOW_FAILED || !jinja_capture_end (r, mark, out))
        return false;
    r->captured = captured;
    out->flags |= r->autoescape ? TEXT_MARKUP : 0;
    jinja_leave (r);
    return true;
}
