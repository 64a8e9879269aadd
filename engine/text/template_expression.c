/* Expressions of templates to nodes, with Jinja2's grammar.
 *
 * From loosest to tightest: a if b else c; or; and; not; comparisons, in, not in (chained as in Python); + -; ~; *
 * / // %; **; signs; then postfixes (.name [index] (call)), filters and tests. Signs bind tighter than ** and
 * filters tighter than signs' operands are joined: -1|abs is (-1)|abs, as in Jinja. Binary levels share one loop
 * (precedence climbing), so that a bracket costs few stack frames. */
#include "template_private.h"

#include <stdio.h>

typedef enum level {
    LEVEL_OR,
    LEVEL_AND,
    LEVEL_NOT,
    LEVEL_COMPARE,
    LEVEL_ADD,
    LEVEL_CONCAT,
    LEVEL_MUL,
    LEVEL_POW,
    LEVEL_UNARY
} level;

static node *parse_unary (parser *p, bool with_filters);
static node *parse_primary (parser *p, bool with_namespace);

/* -- Calls' arguments -------------------------------------------------------------------------- */

static bool add_named (parser *p, call_nodes *call, value name, node *item)
{
    for (uint32_t i = 0; i < call->n_named; i++)
        if (call->named[i].name.length == name.length &&
            memcmp (call->named[i].name.as.text, name.as.text, name.length) == 0)
            return jinja_parse_fail (p, p->current.line, "the argument %.*s is given twice", (int) name.length,
                                     name.as.text);
    if (call->n_named == MAX_ARGUMENTS)
        return jinja_parse_fail (p, p->current.line, "more than %d named arguments", MAX_ARGUMENTS);
    if (call->n_named == call->named_room) {
        uint32_t room = call->named_room ? call->named_room * 2 : 4;
        named_node *grown = jinja_arena_new (p->arena, room, sizeof *grown, p->err);
        if (!grown)
            return false;
        if (call->n_named)
            memcpy (grown, call->named, call->n_named * sizeof *grown);
        call->named = grown;
        call->named_room = room;
    }
    call->named[call->n_named++] = (named_node){name, item};
    return true;
}

static bool parse_argument (parser *p, call_nodes *call)
{
    uint32_t line = p->current.line;
    bool starred = p->current.kind == TOKEN_MUL, double_starred = p->current.kind == TOKEN_POW;
    bool misplaced = call->more_named || (starred && call->more_positional);
    if (starred || double_starred) {
        node **into = starred ? &call->more_positional : &call->more_named;
        if (!misplaced && jinja_advance (p))
            *into = jinja_parse_expression (p, true);
        return *into && !misplaced ? true : jinja_parse_fail (p, line, "invalid syntax for function call expression");
    }
    token *ahead;
    if (p->current.kind == TOKEN_NAME) {
        if (!jinja_look (p, &ahead))
            return false;
        if (ahead->kind == TOKEN_ASSIGN) {
            value name = p->current.value;
            if (misplaced)
                return jinja_parse_fail (p, line, "invalid syntax for function call expression");
            if (!jinja_advance (p) || !jinja_expect (p, TOKEN_ASSIGN))
                return false;
            node *item = jinja_parse_expression (p, true);
            return item && add_named (p, call, name, item);
        }
    }
    if (misplaced || call->more_positional || call->n_named)
        return jinja_parse_fail (p, line, "invalid syntax for function call expression");
    node *item = jinja_parse_expression (p, true);
    return item && jinja_add_node (p, &call->positional, item);
}

static call_nodes *parse_arguments (parser *p)
{
    call_nodes *call = jinja_arena_new (p->arena, 1, sizeof *call, p->err);
    if (!call || !jinja_expect (p, TOKEN_LPAREN))
        return NULL;
    for (bool first = true; p->current.kind != TOKEN_RPAREN; first = false) {
        if (!first && !jinja_expect (p, TOKEN_COMMA))
            return NULL;
        if (!first && p->current.kind == TOKEN_RPAREN)
            break;
        if (!parse_argument (p, call))
            return NULL;
    }
    return jinja_expect (p, TOKEN_RPAREN) ? call : NULL;
}

static node *parse_call (parser *p, node *left)
{
    node *n = jinja_new_node (p, NODE_CALL, p->current.line);
    if (!n || !(n->call = parse_arguments (p)))
        return NULL;
    n->left = left;
    return n;
}

/* -- Postfixes, filters, tests ----------------------------------------------------------------- */

/* start:stop:step into `slice`, or a plain index into *index. */
static bool parse_subscript (parser *p, node *slice, node **index)
{
    node *parts[3] = {NULL, NULL, NULL};
    bool is_slice = false;
    for (int i = 0; i < 3; i++) {
        bool colon;
        token_kind kind = p->current.kind;
        if (kind != TOKEN_COLON && kind != TOKEN_RBRACKET && kind != TOKEN_COMMA &&
            !(parts[i] = jinja_parse_expression (p, true)))
            return false;
        if (i == 2)
            break;
        if (!jinja_skip (p, TOKEN_COLON, &colon))
            return false;
        if (!colon)
            break;
        is_slice = true;
    }
    *index = parts[0];
    if (!is_slice)
        return parts[0] || jinja_parse_fail (p, p->current.line, "an index is missing between [ and ]");
    *index = NULL;
    for (int i = 0; i < 3; i++)
        if (!jinja_add_node (p, &slice->items, parts[i]))
            return false;
    return true;
}

static node *parse_brackets (parser *p, node *left)
{
    uint32_t line = p->current.line;
    node *slice = jinja_new_node (p, NODE_SLICE, line), *item = jinja_new_node (p, NODE_ITEM, line);
    node *index = NULL;
    if (!slice || !item || !jinja_advance (p))
        return NULL;
    slice->left = item->left = left;
    if (p->current.kind == TOKEN_RBRACKET) { /* x[] is x[()] */
        index = jinja_new_node (p, NODE_TUPLE, line);
    } else if (!parse_subscript (p, slice, &index)) {
        return NULL;
    } else if (p->current.kind == TOKEN_COMMA) {
        node *tuple = jinja_new_node (p, NODE_TUPLE, line);
        if (!index || !tuple || !jinja_add_node (p, &tuple->items, index)) {
            jinja_parse_report (p, line, "a slice cannot be part of a tuple");
            return NULL;
        }
        while (p->current.kind == TOKEN_COMMA) {
            if (!jinja_advance (p) || !(index = jinja_parse_expression (p, true)) ||
                !jinja_add_node (p, &tuple->items, index))
                return NULL;
        }
        index = tuple;
    }
    item->right = index;
    return jinja_expect (p, TOKEN_RBRACKET) ? (index ? item : slice) : NULL;
}

static node *parse_dot (parser *p, node *left)
{
    uint32_t line = p->current.line;
    if (!jinja_advance (p))
        return NULL;
    node *n = NULL;
    if (p->current.kind == TOKEN_NAME) {
        n = jinja_new_node (p, NODE_ATTRIBUTE, line);
        if (!n)
            return NULL;
        n->constant = p->current.value;
    } else if (p->current.kind == TOKEN_NUMBER && p->current.value.kind == VALUE_INT) {
        n = jinja_new_node (p, NODE_ITEM, line);
        if (!n || !(n->right = jinja_new_node (p, NODE_CONSTANT, line)))
            return NULL;
        n->right->constant = p->current.value;
    } else {
        jinja_parse_report (p, line, "expected name or number behind a dot");
        return NULL;
    }
    n->left = left;
    return jinja_advance (p) ? n : NULL;
}

static node *parse_postfixes (parser *p, node *n)
{
    while (n) {
        if (p->current.kind == TOKEN_DOT)
            n = parse_dot (p, n);
        else if (p->current.kind == TOKEN_LBRACKET)
            n = parse_brackets (p, n);
        else if (p->current.kind == TOKEN_LPAREN)
            n = parse_call (p, n);
        else
            break;
    }
    return n;
}

/* A filter's or test's name: a.b.c is one name. */
static bool parse_dotted_name (parser *p, value *name)
{
    *name = p->current.value;
    if (!jinja_expect (p, TOKEN_NAME))
        return false;
    while (p->current.kind == TOKEN_DOT) {
        if (!jinja_advance (p))
            return false;
        value part = p->current.value;
        if (!jinja_expect (p, TOKEN_NAME))
            return false;
        size_t length = name->length + 1 + part.length;
        char *joined = jinja_arena_bytes (p->arena, length, p->err);
        if (!joined)
            return false;
        memcpy (joined, name->as.text, name->length);
        joined[name->length] = '.';
        memcpy (joined + name->length + 1, part.as.text, part.length);
        *name = value_text (joined, length, name->flags & part.flags);
    }
    return true;
}

node *jinja_parse_filters (parser *p, node *left, bool starts_here)
{
    while (p->current.kind == TOKEN_PIPE || starts_here) {
        if (!starts_here && !jinja_advance (p))
            return NULL;
        starts_here = false;
        node *n = jinja_new_node (p, NODE_FILTER, p->current.line);
        if (!n || !parse_dotted_name (p, &n->constant))
            return NULL;
        n->left = left;
        n->function = jinja_find_filter (n->constant.as.text, n->constant.length);
        if (p->current.kind == TOKEN_LPAREN)
            n->call = parse_arguments (p);
        else
            n->call = jinja_arena_new (p->arena, 1, sizeof *n->call, p->err);
        if (!n->call)
            return NULL;
        left = n;
    }
    return left;
}

/* Whether a test's single argument may start here without brackets: x is divisibleby 3. */
static bool starts_argument (const parser *p)
{
    switch (p->current.kind) {
    case TOKEN_NAME:
        return !jinja_at_name (p, "else") && !jinja_at_name (p, "or") && !jinja_at_name (p, "and");
    case TOKEN_TEXT:
    case TOKEN_NUMBER:
    case TOKEN_LPAREN:
    case TOKEN_LBRACKET:
    case TOKEN_LBRACE:
        return true;
    default:
        return false;
    }
}

static node *parse_test (parser *p, node *left)
{
    uint32_t line = p->current.line;
    bool negated;
    node *n = jinja_new_node (p, NODE_TEST, line);
    if (!n || !jinja_advance (p) || !jinja_skip_name (p, "not", &negated) || !parse_dotted_name (p, &n->constant))
        return NULL;
    n->left = left;
    n->function = jinja_find_test (n->constant.as.text, n->constant.length);
    if (p->current.kind == TOKEN_LPAREN) {
        if (!(n->call = parse_arguments (p)))
            return NULL;
    } else {
        if (!(n->call = jinja_arena_new (p->arena, 1, sizeof *n->call, p->err)))
            return NULL;
        if (jinja_at_name (p, "is")) {
            jinja_parse_report (p, line, "You cannot chain multiple tests with is");
            return NULL;
        }
        if (starts_argument (p)) {
            node *argument = parse_postfixes (p, parse_primary (p, false));
            if (!argument || !jinja_add_node (p, &n->call->positional, argument))
                return NULL;
        }
    }
    if (!negated)
        return n;
    node *not = jinja_new_node (p, NODE_NOT, line);
    if (not )
        not ->left = n;
    return not ;
}

static node *parse_filters_and_tests (parser *p, node *n)
{
    while (n) {
        if (p->current.kind == TOKEN_PIPE)
            n = jinja_parse_filters (p, n, false);
        else if (jinja_at_name (p, "is"))
            n = parse_test (p, n);
        else if (p->current.kind == TOKEN_LPAREN)
            n = parse_call (p, n);
        else
            break;
    }
    return n;
}

/* -- Literals, names, brackets ----------------------------------------------------------------- */

static node *parse_name (parser *p, bool with_namespace)
{
    value name = p->current.value;
    uint32_t line = p->current.line;
    node *n = jinja_new_node (p, NODE_CONSTANT, line);
    if (!n || !jinja_advance (p))
        return NULL;
    if (text_is (name, "true") || text_is (name, "True"))
        n->constant = value_bool (true);
    else if (text_is (name, "false") || text_is (name, "False"))
        n->constant = value_bool (false);
    else if (text_is (name, "none") || text_is (name, "None"))
        n->constant = value_none ();
    else {
        n->kind = NODE_NAME;
        n->constant = name;
    }
    if (n->kind == NODE_NAME && with_namespace && p->current.kind == TOKEN_DOT) {
        node *target = jinja_new_node (p, NODE_NAMESPACE, line);
        if (!target || !jinja_advance (p))
            return NULL;
        target->right = n;
        target->constant = p->current.value;
        return jinja_expect (p, TOKEN_NAME) ? target : NULL;
    }
    return n;
}

/* Adjacent strings are one. */
static node *parse_texts (parser *p)
{
    node *n = jinja_new_node (p, NODE_CONSTANT, p->current.line);
    if (!n)
        return NULL;
    n->constant = p->current.value;
    if (!jinja_advance (p))
        return NULL;
    while (p->current.kind == TOKEN_TEXT) {
        value a = n->constant, b = p->current.value;
        char *joined = jinja_arena_bytes (p->arena, (size_t) a.length + b.length, p->err);
        if (!joined)
            return NULL;
        memcpy (joined, a.as.text, a.length);
        memcpy (joined + a.length, b.as.text, b.length);
        n->constant = value_text (joined, (size_t) a.length + b.length, a.flags & b.flags);
        if (!jinja_advance (p))
            return NULL;
    }
    return n;
}

static node *parse_list (parser *p)
{
    node *n = jinja_new_node (p, NODE_LIST, p->current.line);
    if (!n || !jinja_advance (p))
        return NULL;
    while (p->current.kind != TOKEN_RBRACKET) {
        if (n->items.count && !jinja_expect (p, TOKEN_COMMA))
            return NULL;
        if (p->current.kind == TOKEN_RBRACKET)
            break;
        node *item = jinja_parse_expression (p, true);
        if (!item || !jinja_add_node (p, &n->items, item))
            return NULL;
    }
    return jinja_expect (p, TOKEN_RBRACKET) ? n : NULL;
}

static node *parse_dict (parser *p)
{
    node *n = jinja_new_node (p, NODE_DICT, p->current.line);
    if (!n || !jinja_advance (p))
        return NULL;
    while (p->current.kind != TOKEN_RBRACE) {
        if (n->items.count && !jinja_expect (p, TOKEN_COMMA))
            return NULL;
        if (p->current.kind == TOKEN_RBRACE)
            break;
        node *key = jinja_parse_expression (p, true);
        if (!key || !jinja_expect (p, TOKEN_COLON))
            return NULL;
        node *item = jinja_parse_expression (p, true);
        if (!item || !jinja_add_node (p, &n->items, key) || !jinja_add_node (p, &n->items, item))
            return NULL;
    }
    return jinja_expect (p, TOKEN_RBRACE) ? n : NULL;
}

static node *parse_primary (parser *p, bool with_namespace)
{
    static const tuple_rules in_parentheses = {.with_conditional = true, .parentheses = true};
    node *n;
    char shown[64];
    switch (p->current.kind) {
    case TOKEN_NAME:
        return parse_name (p, with_namespace);
    case TOKEN_TEXT:
        return parse_texts (p);
    case TOKEN_NUMBER:
        n = jinja_new_node (p, NODE_CONSTANT, p->current.line);
        if (n)
            n->constant = p->current.value;
        return n && jinja_advance (p) ? n : NULL;
    case TOKEN_LPAREN:
        if (!jinja_advance (p) || !(n = jinja_parse_tuple (p, &in_parentheses)))
            return NULL;
        return jinja_expect (p, TOKEN_RPAREN) ? n : NULL;
    case TOKEN_LBRACKET:
        return parse_list (p);
    case TOKEN_LBRACE:
        return parse_dict (p);
    default:
        jinja_parse_report (p, p->current.line, "unexpected %s", jinja_token_name (&p->current, shown));
        return NULL;
    }
}

static bool at_tuple_end (const parser *p, const tuple_rules *rules)
{
    token_kind kind = p->current.kind;
    return kind == TOKEN_VARIABLE_END || kind == TOKEN_BLOCK_END || kind == TOKEN_RPAREN ||
           (rules->end && jinja_at_name (p, rules->end));
}

node *jinja_parse_tuple (parser *p, const tuple_rules *rules)
{
    char shown[64];
    node *tuple = NULL, *first = NULL;
    uint32_t line = p->current.line;
    for (;;) {
        if (at_tuple_end (p, rules))
            break;
        node *item = rules->targets_only ? parse_primary (p, rules->with_namespace)
                                         : jinja_parse_expression (p, rules->with_conditional);
        if (!item || (tuple && !jinja_add_node (p, &tuple->items, item)))
            return NULL;
        if (!first)
            first = item;
        if (p->current.kind != TOKEN_COMMA)
            break;
        if (!tuple && (!(tuple = jinja_new_node (p, NODE_TUPLE, line)) || !jinja_add_node (p, &tuple->items, item)))
            return NULL;
        if (!jinja_advance (p))
            return NULL;
    }
    if (tuple || first)
        return tuple ? tuple : first;
    if (rules->parentheses)
        return jinja_new_node (p, NODE_TUPLE, line);
    jinja_parse_report (p, line, "Expected an expression, got %s", jinja_token_name (&p->current, shown));
    return NULL;
}

static bool can_assign (const node *n)
{
    if (n->kind == NODE_NAME || n->kind == NODE_NAMESPACE)
        return true;
    for (uint32_t i = 0; i < n->items.count; i++)
        if (!can_assign (n->items.items[i]))
            return false;
    return n->kind == NODE_TUPLE;
}

node *jinja_parse_target (parser *p, const char *end, bool with_namespace)
{
    tuple_rules rules = {.targets_only = true, .with_namespace = with_namespace, .end = end};
    uint32_t line = p->current.line;
    node *target = jinja_parse_tuple (p, &rules);
    if (target && !can_assign (target)) {
        jinja_parse_report (p, line, "can't assign to this expression");
        return NULL;
    }
    return target;
}

/* -- Operators --------------------------------------------------------------------------------- */

static node *parse_sign (parser *p, node_kind kind)
{
    node *n = jinja_new_node (p, kind, p->current.line);
    if (!n || !jinja_advance (p))
        return NULL;
    n->left = parse_unary (p, false);
    return n->left ? n : NULL;
}

static node *parse_unary (parser *p, bool with_filters)
{
    if (!jinja_parser_enter (p))
        return NULL;
    node *n = p->current.kind == TOKEN_SUB   ? parse_sign (p, NODE_NEGATE)
              : p->current.kind == TOKEN_ADD ? parse_sign (p, NODE_POSITIVE)
                                             : parse_primary (p, false);
    n = parse_postfixes (p, n);
    if (with_filters)
        n = parse_filters_and_tests (p, n);
    p->depth--;
    return n;
}

/* The binary operator here: its level, LEVEL_UNARY if there is none; *op is what the node needs. */
static bool binary_here (parser *p, level *found, uint8_t *op)
{
    static const struct {
        token_kind token;
        level level;
        uint8_t op;
    } table[] = {
        {TOKEN_EQ, LEVEL_COMPARE, CMP_EQ}, {TOKEN_NE, LEVEL_COMPARE, CMP_NE}, {TOKEN_LT, LEVEL_COMPARE, CMP_LT},
        {TOKEN_LE, LEVEL_COMPARE, CMP_LE}, {TOKEN_GT, LEVEL_COMPARE, CMP_GT}, {TOKEN_GE, LEVEL_COMPARE, CMP_GE},
        {TOKEN_ADD, LEVEL_ADD, OP_ADD},    {TOKEN_SUB, LEVEL_ADD, OP_SUB},    {TOKEN_TILDE, LEVEL_CONCAT, 0},
        {TOKEN_MUL, LEVEL_MUL, OP_MUL},    {TOKEN_DIV, LEVEL_MUL, OP_DIV},    {TOKEN_FLOORDIV, LEVEL_MUL, OP_FLOORDIV},
        {TOKEN_MOD, LEVEL_MUL, OP_MOD},    {TOKEN_POW, LEVEL_POW, OP_POW},
    };
    *found = LEVEL_UNARY;
    *op = 0;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].token == p->current.kind) {
            *found = table[i].level;
            *op = table[i].op;
        }
    if (p->current.kind != TOKEN_NAME)
        return true;
    token *ahead;
    if (jinja_at_name (p, "or")) {
        *found = LEVEL_OR;
    } else if (jinja_at_name (p, "and")) {
        *found = LEVEL_AND;
    } else if (jinja_at_name (p, "in")) {
        *found = LEVEL_COMPARE;
        *op = CMP_IN;
    } else if (jinja_at_name (p, "not")) {
        if (!jinja_look (p, &ahead))
            return false;
        if (ahead->kind == TOKEN_NAME && text_is (ahead->value, "in")) {
            *found = LEVEL_COMPARE;
            *op = CMP_NOT_IN;
        }
    }
    return true;
}

/* `left OP right` of one level. Comparisons and ~ gather their operands in one node. */
static node *join_operands (parser *p, node *left, level of, uint8_t op, node *right, uint32_t line)
{
    node *n, *operand;
    switch (of) {
    case LEVEL_COMPARE:
        n = left->kind == NODE_COMPARE && left->op == 1 ? left : jinja_new_node (p, NODE_COMPARE, line);
        operand = jinja_new_node (p, NODE_OPERAND, line);
        if (!n || !operand)
            return NULL;
        if (n != left)
            n->left = left;
        n->op = 1; /* still open: more comparisons join its chain */
        operand->left = right;
        operand->op = op;
        return jinja_add_node (p, &n->items, operand) ? n : NULL;
    case LEVEL_CONCAT:
        n = left->kind == NODE_CONCAT && left->op == 1 ? left : jinja_new_node (p, NODE_CONCAT, line);
        if (!n || (n != left && !jinja_add_node (p, &n->items, left)))
            return NULL;
        n->op = 1;
        return jinja_add_node (p, &n->items, right) ? n : NULL;
    default:
        n = jinja_new_node (p, of == LEVEL_OR ? NODE_OR : of == LEVEL_AND ? NODE_AND : NODE_BINARY, line);
        if (!n)
            return NULL;
        n->left = left;
        n->right = right;
        n->op = op;
        return n;
    }
}

static node *parse_binary (parser *p, level lowest)
{
    if (!jinja_parser_enter (p))
        return NULL;
    uint32_t line = p->current.line;
    node *left = NULL;
    if (lowest <= LEVEL_NOT && jinja_at_name (p, "not")) {
        left = jinja_new_node (p, NODE_NOT, line);
        if (!left || !jinja_advance (p) || !(left->left = parse_binary (p, LEVEL_NOT)))
            return NULL;
    } else {
        left = parse_unary (p, true);
    }
    while (left) {
        level of;
        uint8_t op;
        if (!binary_here (p, &of, &op))
            return NULL;
        if (of == LEVEL_UNARY || of < lowest)
            break;
        if (!jinja_advance (p) || (op == CMP_NOT_IN && of == LEVEL_COMPARE && !jinja_advance (p)))
            return NULL;
        node *right = parse_binary (p, of + 1);
        left = right ? join_operands (p, left, of, op, right, line) : NULL;
    }
    if (left && (left->kind == NODE_COMPARE || left->kind == NODE_CONCAT))
        left->op = 0;
    p->depth--;
    return left;
}

node *jinja_parse_expression (parser *p, bool with_conditional)
{
    uint32_t line = p->current.line;
    node *n = parse_binary (p, LEVEL_OR);
    while (n && with_conditional) {
        bool found;
        if (!jinja_skip_name (p, "if", &found))
            return NULL;
        if (!found)
            break;
        node *conditional = jinja_new_node (p, NODE_CONDITIONAL, line);
        if (!conditional || !(conditional->right = parse_binary (p, LEVEL_OR)) || !jinja_skip_name (p, "else", &found))
            return NULL;
        conditional->left = n;
        if (found && !(conditional->third = jinja_parse_expression (p, true)))
            return NULL;
        n = conditional;
    }
    return n;
}
