/* Statements of templates to nodes, with Jinja2's grammar and transformers' {% generation %}. */
#include "template_private.h"

#include <stdarg.h>
#include <stdio.h>

static bool parse_bodies (parser *p, node_list *body, const char *const *ends);
static bool parse_statements (parser *p, node_list *body, const char *const *ends);

/* -- Tokens ------------------------------------------------------------------------------------ */

void jinja_parse_report (parser *p, uint32_t line, const char *format, ...)
{
    char text[sizeof p->err->text];
    va_list args;
    va_start (args, format);
    vsnprintf (text, sizeof text, format, args);
    va_end (args);
    wl_fail (p->err, WL_ERROR_INPUT, "template line %u: %s", line, text);
}

bool jinja_parser_enter (parser *p)
{
    if (p->depth >= MAX_NESTING)
        return jinja_parse_fail (p, p->current.line, "more than %d brackets, operators or blocks are inside each other",
                                 MAX_NESTING);
    p->depth++;
    return true;
}

bool jinja_advance (parser *p)
{
    if (!p->has_ahead)
        return jinja_lexer_next (&p->lexer, &p->current);
    p->current = p->ahead;
    p->has_ahead = false;
    return true;
}

bool jinja_look (parser *p, token **ahead)
{
    if (!p->has_ahead && !jinja_lexer_next (&p->lexer, &p->ahead))
        return false;
    p->has_ahead = true;
    *ahead = &p->ahead;
    return true;
}

bool jinja_at_name (const parser *p, const char *name)
{
    return p->current.kind == TOKEN_NAME && text_is (p->current.value, name);
}

bool jinja_skip (parser *p, token_kind kind, bool *skipped)
{
    *skipped = p->current.kind == kind;
    return *skipped ? jinja_advance (p) : true;
}

bool jinja_skip_name (parser *p, const char *name, bool *skipped)
{
    *skipped = jinja_at_name (p, name);
    return *skipped ? jinja_advance (p) : true;
}

static const char *kind_name (token_kind kind)
{
    static const char *const names[] = {
        "end of template",
        "text",
        "begin of print statement",
        "end of print statement",
        "begin of statement block",
        "end of statement block",
        "name",
        "string",
        "number",
        "'+'",
        "'-'",
        "'*'",
        "'/'",
        "'//'",
        "'%'",
        "'**'",
        "'~'",
        "'['",
        "']'",
        "'('",
        "')'",
        "'{'",
        "'}'",
        "'=='",
        "'!='",
        "'>'",
        "'>='",
        "'<'",
        "'<='",
        "'='",
        "'.'",
        "':'",
        "'|'",
        "','",
        "';'",
    };
    return names[kind];
}

const char *jinja_token_name (const token *t, char out[64])
{
    if (t->kind == TOKEN_NAME)
        snprintf (out, 64, "'%.*s'", t->value.length > 40 ? 40 : (int) t->value.length, t->value.as.text);
    else
        snprintf (out, 64, "%s", kind_name (t->kind));
    return out;
}

bool jinja_expect (parser *p, token_kind kind)
{
    char shown[64];
    if (p->current.kind == kind)
        return jinja_advance (p);
    if (p->current.kind == TOKEN_END)
        return jinja_parse_fail (p, p->current.line, "unexpected end of template, expected %s", kind_name (kind));
    return jinja_parse_fail (p, p->current.line, "expected %s, got %s", kind_name (kind),
                             jinja_token_name (&p->current, shown));
}

static bool expect_name (parser *p, const char *name)
{
    char shown[64];
    if (jinja_at_name (p, name))
        return jinja_advance (p);
    return jinja_parse_fail (p, p->current.line, "expected '%s', got %s", name, jinja_token_name (&p->current, shown));
}

/* -- Nodes ------------------------------------------------------------------------------------- */

node *jinja_new_node (parser *p, node_kind kind, uint32_t line)
{
    node *n = jinja_arena_new (p->arena, 1, sizeof *n, p->err);
    if (n) {
        n->kind = (uint8_t) kind;
        n->line = line;
    }
    return n;
}

bool jinja_add_node (parser *p, node_list *list, node *item)
{
    if (list->count == list->room) {
        uint32_t room = list->room ? list->room * 2 : 4;
        node **items = jinja_arena_new (p->arena, room, sizeof (void *), p->err);
        if (!items)
            return false;
        if (list->count)
            memcpy (items, list->items, list->count * sizeof (void *));
        list->items = items;
        list->room = room;
    }
    list->items[list->count++] = item;
    return true;
}

/* -- Statements -------------------------------------------------------------------------------- */

static bool skip_end (parser *p, bool parsed)
{
    return parsed && jinja_advance (p);
}

static bool parse_for (parser *p, node *n)
{
    static const char *const body_ends[] = {"endfor", "else", NULL}, *const else_ends[] = {"endfor", NULL};
    static const tuple_rules iterable = {.end = "recursive"};
    bool found;
    if (!(n->left = jinja_parse_target (p, "in", false)) || !expect_name (p, "in") ||
        !(n->right = jinja_parse_tuple (p, &iterable)) || !jinja_skip_name (p, "if", &found))
        return false;
    if (found && !(n->third = jinja_parse_expression (p, true)))
        return false;
    if (!jinja_skip_name (p, "recursive", &found))
        return false;
    n->flags = found ? FOR_RECURSIVE : 0;
    if (!parse_statements (p, &n->body, body_ends) || !jinja_skip_name (p, "else", &found))
        return false;
    return skip_end (p, found ? parse_statements (p, &n->other, else_ends) : true);
}

static bool parse_if (parser *p, node *n)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const else_ends[] = {"endif", NULL};
    static const tuple_rules condition_rules = {0};
    bool found = true;
    while (found) {
        node *condition = jinja_parse_tuple (p, &condition_rules);
        node *body = condition ? jinja_new_node (p, NODE_BODY, condition->line) : NULL;
        if (!body || !jinja_add_node (p, &n->items, condition) || !jinja_add_node (p, &n->items, body) ||
            !parse_statements (p, &body->body, ends) || !jinja_skip_name (p, "elif", &found))
            return false;
    }
    if (!jinja_skip_name (p, "else", &found))
        return false;
    if (found) {
        node *body = jinja_new_node (p, NODE_BODY, p->current.line);
        if (!body || !jinja_add_node (p, &n->items, body) || !parse_statements (p, &body->body, else_ends))
            return false;
    }
    return jinja_advance (p);
}

static bool parse_set (parser *p, node *n)
{
    static const char *const ends[] = {"endset", NULL};
    static const tuple_rules rules = {.with_conditional = true};
    bool assigns;
    if (!(n->left = jinja_parse_target (p, NULL, true)) || !jinja_skip (p, TOKEN_ASSIGN, &assigns))
        return false;
    if (assigns)
        return (n->right = jinja_parse_tuple (p, &rules)) != NULL;
    n->kind = NODE_SET_BLOCK;
    if (p->current.kind == TOKEN_PIPE && !(n->right = jinja_parse_filters (p, NULL, false)))
        return false;
    return skip_end (p, parse_statements (p, &n->body, ends));
}

/* (a, b=1) of a macro or a call block. */
static bool parse_parameters (parser *p, node *n)
{
    bool has_default = false, assigns;
    if (!jinja_expect (p, TOKEN_LPAREN))
        return false;
    while (p->current.kind != TOKEN_RPAREN) {
        if (n->items.count && !jinja_expect (p, TOKEN_COMMA))
            return false;
        node *parameter = jinja_new_node (p, NODE_PARAMETER, p->current.line);
        if (!parameter)
            return false;
        parameter->constant = p->current.value;
        if (!jinja_expect (p, TOKEN_NAME) || !jinja_skip (p, TOKEN_ASSIGN, &assigns))
            return false;
        for (uint32_t i = 0; i < n->items.count; i++) {
            value other = n->items.items[i]->constant;
            if (other.length == parameter->constant.length &&
                memcmp (other.as.text, parameter->constant.as.text, other.length) == 0)
                return jinja_parse_fail (p, parameter->line, "a parameter is named twice");
        }
        if (assigns && !(parameter->left = jinja_parse_expression (p, true)))
            return false;
        if (!assigns && has_default)
            return jinja_parse_fail (p, parameter->line, "non-default argument follows default argument");
        has_default = has_default || assigns;
        if (n->items.count == MAX_ARGUMENTS)
            return jinja_parse_fail (p, parameter->line, "more than %d parameters", MAX_ARGUMENTS);
        if (!jinja_add_node (p, &n->items, parameter))
            return false;
    }
    return jinja_expect (p, TOKEN_RPAREN);
}

static bool parse_macro (parser *p, node *n)
{
    static const char *const ends[] = {"endmacro", NULL};
    if (!(n->left = jinja_new_node (p, NODE_NAME, p->current.line)))
        return false;
    n->left->constant = p->current.value;
    return jinja_expect (p, TOKEN_NAME) && parse_parameters (p, n) &&
           skip_end (p, parse_statements (p, &n->body, ends));
}

static bool parse_call_block (parser *p, node *n)
{
    static const char *const ends[] = {"endcall", NULL};
    if (p->current.kind == TOKEN_LPAREN && !parse_parameters (p, n))
        return false;
    if (!(n->left = jinja_parse_expression (p, true)))
        return false;
    if (n->left->kind != NODE_CALL)
        return jinja_parse_fail (p, n->line, "expected call");
    return skip_end (p, parse_statements (p, &n->body, ends));
}

static bool parse_filter_block (parser *p, node *n)
{
    static const char *const ends[] = {"endfilter", NULL};
    return (n->right = jinja_parse_filters (p, NULL, true)) != NULL &&
           skip_end (p, parse_statements (p, &n->body, ends));
}

static bool parse_with (parser *p, node *n)
{
    static const char *const ends[] = {"endwith", NULL};
    while (p->current.kind != TOKEN_BLOCK_END) {
        if (n->items.count && !jinja_expect (p, TOKEN_COMMA))
            return false;
        node *target = jinja_parse_target (p, NULL, false);
        if (!target || !jinja_expect (p, TOKEN_ASSIGN))
            return false;
        node *item = jinja_parse_expression (p, true);
        if (!item || !jinja_add_node (p, &n->items, target) || !jinja_add_node (p, &n->items, item))
            return false;
    }
    return skip_end (p, parse_statements (p, &n->body, ends));
}

static bool parse_block (parser *p, node *n)
{
    static const char *const ends[] = {"endblock", NULL};
    bool scoped, required, named;
    n->constant = p->current.value;
    if (!jinja_expect (p, TOKEN_NAME) || !jinja_skip_name (p, "scoped", &scoped) ||
        !jinja_skip_name (p, "required", &required) || !skip_end (p, parse_statements (p, &n->body, ends)))
        return false;
    n->flags = (uint8_t) ((scoped ? BLOCK_SCOPED : 0) | (required ? BLOCK_REQUIRED : 0));
    named = p->current.kind == TOKEN_NAME && p->current.value.length == n->constant.length &&
            memcmp (p->current.value.as.text, n->constant.as.text, n->constant.length) == 0;
    struct wl_template *t = p->tmpl;
    for (uint32_t i = 0; i < t->n_blocks; i++)
        if (t->blocks[i]->constant.length == n->constant.length &&
            memcmp (t->blocks[i]->constant.as.text, n->constant.as.text, n->constant.length) == 0)
            return jinja_parse_fail (p, n->line, "a block is defined twice");
    node **blocks = jinja_arena_new (p->arena, t->n_blocks + 1, sizeof (void *), p->err);
    if (!blocks)
        return false;
    if (t->n_blocks)
        memcpy (blocks, t->blocks, t->n_blocks * sizeof (void *));
    blocks[t->n_blocks++] = n;
    t->blocks = blocks;
    return named ? jinja_advance (p) : true;
}

static bool parse_autoescape (parser *p, node *n)
{
    static const char *const ends[] = {"endautoescape", NULL};
    return (n->left = jinja_parse_expression (p, true)) != NULL && skip_end (p, parse_statements (p, &n->body, ends));
}

static bool parse_generation (parser *p, node *n)
{
    static const char *const ends[] = {"endgeneration", NULL};
    return skip_end (p, parse_statements (p, &n->body, ends));
}

static bool parse_print (parser *p, node *n)
{
    while (p->current.kind != TOKEN_BLOCK_END) {
        if (n->body.count && !jinja_expect (p, TOKEN_COMMA))
            return false;
        node *output = jinja_new_node (p, NODE_OUTPUT, p->current.line);
        if (!output || !(output->left = jinja_parse_expression (p, true)) || !jinja_add_node (p, &n->body, output))
            return false;
    }
    return true;
}

/* include, import, from, extends: there is nothing to load from, so they fail when they are reached. */
static bool parse_refused (parser *p, node *n)
{
    while (p->current.kind != TOKEN_BLOCK_END && p->current.kind != TOKEN_END)
        if (!jinja_advance (p))
            return false;
    (void) n;
    return true;
}

static bool parse_nothing (parser *p, node *n)
{
    (void) p;
    (void) n;
    return true;
}

static const struct {
    const char *tag;
    node_kind kind;
    bool (*parse) (parser *p, node *n);
} statements[] = {
    {"for", NODE_FOR, parse_for},
    {"if", NODE_IF, parse_if},
    {"set", NODE_SET, parse_set},
    {"macro", NODE_MACRO, parse_macro},
    {"call", NODE_CALL_BLOCK, parse_call_block},
    {"filter", NODE_FILTER_BLOCK, parse_filter_block},
    {"with", NODE_WITH, parse_with},
    {"block", NODE_BLOCK, parse_block},
    {"autoescape", NODE_AUTOESCAPE, parse_autoescape},
    {"generation", NODE_GENERATION, parse_generation},
    {"print", NODE_BODY, parse_print},
    {"break", NODE_BREAK, parse_nothing},
    {"continue", NODE_CONTINUE, parse_nothing},
    {"include", NODE_REFUSED, parse_refused},
    {"import", NODE_REFUSED, parse_refused},
    {"from", NODE_REFUSED, parse_refused},
    {"extends", NODE_REFUSED, parse_refused},
};

static bool is_end (const parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (jinja_at_name (p, *ends))
            return true;
    return false;
}

static bool parse_statement (parser *p, node_list *body, const char *const *ends)
{
    char shown[64];
    uint32_t line = p->current.line;
    if (p->current.kind != TOKEN_NAME)
        return jinja_parse_fail (p, line, "tag name expected, got %s", jinja_token_name (&p->current, shown));
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++) {
        if (!jinja_at_name (p, statements[i].tag))
            continue;
        node *n = jinja_new_node (p, statements[i].kind, line);
        if (!n || !jinja_parser_enter (p))
            return false;
        if (n->kind == NODE_REFUSED)
            n->constant = p->current.value;
        if (!jinja_advance (p) || !statements[i].parse (p, n) || !jinja_add_node (p, body, n))
            return false;
        p->depth--;
        return jinja_expect (p, TOKEN_BLOCK_END);
    }
    return jinja_parse_fail (p, line, "unknown or misplaced tag %s%s%s", jinja_token_name (&p->current, shown),
                             ends ? "; what has to come first is " : "", ends ? ends[0] : "");
}

/* Up to one of `ends`, whose name is then the current token; NULL: to the end of the template. */
static bool parse_bodies (parser *p, node_list *body, const char *const *ends)
{
    static const tuple_rules output_rules = {.with_conditional = true};
    for (;;) {
        uint32_t line = p->current.line;
        node *n;
        switch (p->current.kind) {
        case TOKEN_DATA:
            if (!(n = jinja_new_node (p, NODE_TEXT, line)) || !jinja_add_node (p, body, n))
                return false;
            n->constant = p->current.value;
            if (!jinja_advance (p))
                return false;
            break;
        case TOKEN_VARIABLE_BEGIN:
            if (!(n = jinja_new_node (p, NODE_OUTPUT, line)) || !jinja_add_node (p, body, n) || !jinja_advance (p) ||
                !(n->left = jinja_parse_tuple (p, &output_rules)) || !jinja_expect (p, TOKEN_VARIABLE_END))
                return false;
            break;
        case TOKEN_BLOCK_BEGIN:
            if (!jinja_advance (p))
                return false;
            if (is_end (p, ends))
                return true;
            if (!parse_statement (p, body, ends))
                return false;
            break;
        default:
            if (ends)
                return jinja_parse_fail (p, line, "Unexpected end of template: looking for '%s'", ends[0]);
            return true;
        }
    }
}

static bool parse_statements (parser *p, node_list *body, const char *const *ends)
{
    bool colon;
    return jinja_skip (p, TOKEN_COLON, &colon) && jinja_expect (p, TOKEN_BLOCK_END) && parse_bodies (p, body, ends);
}

bool jinja_parse_template (struct wl_template *t, const char *source, size_t length, wl_error *err)
{
    parser p = {.arena = &t->arena, .err = err, .tmpl = t, .steps_left = MAX_PARSE_STEPS};
    return jinja_lexer_start (&p.lexer, source, length, &t->arena, err) && jinja_advance (&p) &&
           parse_bodies (&p, &t->body, NULL) && jinja_resolve_names (&p);
}
