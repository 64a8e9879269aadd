/* What the files of the template evaluator share; nothing outside template*.c includes this.
 *
 *   template_lexer.c      source to tokens: whitespace control lives here
 *   template_parser.c     statements to nodes;  template_expression.c  expressions to nodes
 *   template_scope.c      which variable each name means
 *   template_evaluate.c   nodes to output;  template_loop.c  for;  template_call.c  calls and macros
 *   template_value.c      truth, equality, order, hashing, dicts;  template_operator.c  + - * / % in [] [:]
 *   template_iterate.c    what `for`, filters and unpacking walk over
 *   template_attribute.c  x.name and x[name], as the sandbox allows them
 *   template_text.c       str's methods;  template_case.c  those on letters;  template_unicode.c  characters
 *   template_format.c     "%" and format, and numbers from text
 *   template_print.c      str, repr, tojson
 *   template_filters.c, template_sequences.c, template_tests.c, template_globals.c   Jinja's own vocabulary
 *   template_memory.c     the render's memory, output and bounds
 *
 * The definition of right is Jinja2 on CPython: where a rule here looks odd (an else branch after `continue`, a
 * name that is undefined because it is set further down), it is Python's or Jinja's and a template may lean on it.
 * Exceptions are known: integers end at 64 bits with an error, and what could not give the same prompt twice
 * (random) or is for web pages only (urlize, wordwrap, pprint, include) is refused by name.
 *
 * Memory: a parse and a render each own an arena that is dropped whole at the end, so nothing here is freed one by
 * one and values may point into each other, into the template and into the caller's JSON. Values are immutable but
 * for namespaces, so slices and pieces of texts and lists share their parent's bytes. The parsed template is never
 * written after parsing. */
#ifndef ENGINE_TEXT_TEMPLATE_PRIVATE_H
#define ENGINE_TEXT_TEMPLATE_PRIVATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "../error.h"
#include "template.h"

/* -- Bounds ------------------------------------------------------------------------------------ */

enum {
    MAX_SOURCE_BYTES = 1 << 20,          /* the largest template known has 60 KB */
    MAX_MEMORY_BYTES = 64 << 20,         /* arenas and output of one parse or render */
    MAX_OUTPUT_BYTES = 16 << 20,         /* a million tokens take 5 MB */
    MAX_STEPS = 30 * 1000 * 1000,        /* a step is a node evaluated or 64 bytes looked at: a second or two in all */
    MAX_PARSE_STEPS = 100 * 1000 * 1000, /* names compared while resolving variables */
    MAX_DEPTH = 500,                     /* evaluations inside each other: about 200 KB of stack */
    MAX_NESTING = 200,    /* of the template's own brackets and blocks; CPython's compiler ends there too */
    MAX_SYMBOLS = 4096,   /* names of one scope */
    MAX_ARGUMENTS = 1000, /* written by name in one call; parameters of a macro */
    MAX_RANGE = 100000,   /* the sandbox's own limit */
    MAX_PARAMETERS = 8,   /* of a built-in filter, test or method */
};

/* -- Values ------------------------------------------------------------------------------------ */

typedef enum value_kind {
    VALUE_MISSING, /* a variable not set, an argument not given; templates never see it */
    VALUE_UNDEFINED,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_FLOAT,
    VALUE_TEXT,
    VALUE_LIST,
    VALUE_TUPLE,
    VALUE_DICT,
    VALUE_VIEW, /* dict.keys (), values (), items () */
    VALUE_RANGE,
    VALUE_ITERATOR, /* walks once: generators of Jinja's filters, reversed () */
    VALUE_NAMESPACE,
    VALUE_LOOP,
    VALUE_MACRO,
    VALUE_FUNCTION, /* a global */
    VALUE_METHOD,   /* bound to its object */
    VALUE_CYCLER,
    VALUE_JOINER,
    VALUE_SELF, /* `self`, whose attributes are the template's blocks */
    VALUE_BLOCK,
} value_kind;

enum {                  /* flags of a text */
       TEXT_ASCII = 1,  /* known to be: a character is a byte */
       TEXT_MARKUP = 2, /* HTML that needs no more escaping (markupsafe.Markup) */
};
enum {                  /* flags of a tuple */
       TUPLE_GROUP = 1, /* groupby's: has .grouper and .list */
};
enum { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS }; /* flags of a view */

/* Why a value is undefined: its flags. The message is only made when somebody needs it (jinja_undefined_message). */
enum {
    UNDEFINED_NAME,      /* as.text: the variable */
    UNDEFINED_ATTRIBUTE, /* as.text: the attribute, of a value of kind `detail` */
    UNDEFINED_ELEMENT,   /* as.integer: the index */
    UNDEFINED_UNSAFE,    /* as.text: an attribute that the sandbox hides */
    UNDEFINED_HINT,      /* as.text: the whole message */
    UNDEFINED_PARAMETER, /* as.text: a macro's parameter without value */
};

typedef struct dict dict;
typedef struct range range;
typedef struct iterator iterator;
typedef struct loop_state loop_state;
typedef struct macro macro;
typedef struct bound_method bound_method;
typedef struct callable callable;
typedef struct cycler cycler;
typedef struct node node;

typedef struct value {
    uint8_t kind;    /* value_kind */
    uint8_t flags;   /* per kind, above */
    uint16_t detail; /* of undefined values: the kind of the object that lacked it */
    uint32_t length; /* bytes of a text, items of a list or tuple */
    union {
        bool truth;
        int64_t integer;
        double real;
        const char *text; /* UTF-8, not NUL-terminated */
        const struct value *items;
        dict *dict; /* also of a view and a namespace */
        const range *range;
        iterator *iterator;
        loop_state *loop;
        const macro *macro;
        const callable *function;
        const bound_method *method;
        cycler *cycler; /* also of a joiner */
        const node *block;
    } as;
} value;

typedef struct entry {
    value key;
    value item;
} entry;

/* Insertion-ordered; entries are only ever added or replaced. The index (open addressing, entry number + 1) is made
 * when a dict of more than a few entries is first searched. */
struct dict {
    entry *entries;
    uint32_t count, room;
    uint32_t *index;
    uint32_t index_room; /* a power of two; 0: none yet */
};

struct range {
    int64_t start, step, stop;
    uint32_t count;
};

typedef struct named_argument {
    value name;
    value item;
} named_argument;

typedef struct arguments {
    const value *positional;
    const named_argument *named;
    uint32_t n_positional, n_named;
} arguments;

typedef struct render render;

/* A filter, test, method or global. `parameters` names what follows `self` ("default_value,boolean"; a leading '/'
 * forbids giving them by name); NULL: `run` reads `call` itself and `args` is NULL. args[i] is VALUE_MISSING where
 * not given. */
struct callable {
    const char *name;
    const char *parameters;
    uint8_t required;
    bool (*run) (render *r, value self, const value *args, const arguments *call, value *out);
};

struct bound_method {
    value self;
    const callable *method;
};

struct cycler {
    const value *items; /* a joiner: its separator */
    uint32_t count, position;
};

static inline value value_of_kind (value_kind kind)
{
    return (value){.kind = (uint8_t) kind};
}

static inline value value_none (void)
{
    return value_of_kind (VALUE_NONE);
}

static inline value value_bool (bool truth)
{
    return (value){.kind = VALUE_BOOL, .as.truth = truth};
}

static inline value value_int (int64_t integer)
{
    return (value){.kind = VALUE_INT, .as.integer = integer};
}

static inline value value_float (double real)
{
    return (value){.kind = VALUE_FLOAT, .as.real = real};
}

static inline value value_text (const char *text, size_t length, uint8_t flags)
{
    return (value){.kind = VALUE_TEXT, .flags = flags, .length = (uint32_t) length, .as.text = text};
}

/* Of a string literal in this program, ASCII. */
static inline value value_literal (const char *text)
{
    return value_text (text, strlen (text), TEXT_ASCII);
}

static inline value value_sequence (value_kind kind, const value *items, size_t count)
{
    return (value){.kind = (uint8_t) kind, .length = (uint32_t) count, .as.items = items};
}

static inline value value_undefined (uint8_t why, const char *text, size_t length)
{
    return (value){.kind = VALUE_UNDEFINED, .flags = why, .length = (uint32_t) length, .as.text = text};
}

static inline bool is_text (value v)
{
    return v.kind == VALUE_TEXT;
}

/* Python's bool is an int. */
static inline bool is_int (value v)
{
    return v.kind == VALUE_INT || v.kind == VALUE_BOOL;
}

static inline bool is_number (value v)
{
    return is_int (v) || v.kind == VALUE_FLOAT;
}

static inline bool is_sequence (value v)
{
    return v.kind == VALUE_LIST || v.kind == VALUE_TUPLE;
}

static inline int64_t int_of (value v)
{
    return v.kind == VALUE_BOOL ? v.as.truth : v.as.integer;
}

static inline double real_of (value v)
{
    return v.kind == VALUE_FLOAT ? v.as.real : (double) int_of (v);
}

static inline bool is_given (value v)
{
    return v.kind != VALUE_MISSING;
}

static inline bool text_is (value v, const char *text)
{
    return v.length == strlen (text) && memcmp (v.as.text, text, v.length) == 0;
}

/* -- Memory, output, bounds (template_memory.c) ------------------------------------------------ */

typedef struct chunk chunk;

typedef struct arena {
    chunk *chunks; /* the newest first */
    char *next, *end;
    size_t *used; /* bytes taken from the system, shared by the arenas of a render */
} arena;

/* Zeroed, aligned for any object here. NULL with an error when memory or the bound is exhausted. */
void *jinja_arena_new (arena *a, size_t count, size_t size, wl_error *err);
/* Bytes without alignment, not zeroed. */
char *jinja_arena_bytes (arena *a, size_t length, wl_error *err);
/* Makes `text`, when it is the last thing taken from `a`, longer in place; false if it is not, or there is no room. */
bool jinja_arena_extend (arena *a, const char *text, size_t length, size_t more);
void jinja_arena_free (arena *a);

typedef struct scope scope;

struct render {
    const struct wl_template *tmpl;
    const struct tm *now;
    wl_error *err;
    size_t memory_used;
    arena objects, texts;
    int64_t n_steps, steps_left;
    uint32_t depth;
    uint32_t line; /* being evaluated: for messages */
    bool autoescape;
    char *output; /* finished output, then what open captures have gathered */
    size_t output_length, output_room;
    dict *variables; /* the caller's, the globals below them */
    dict *exported;  /* what the template's top level has set: what blocks see */
    value captured;  /* what a filter block's first filter is applied to */
};

/* Fails the render: "template line 12: …". Gives false; a macro, so that a reader of the other file (a compiler, an
 * analyzer) sees that. */
#define jinja_fail(r, ...) (jinja_report (r, __VA_ARGS__), false)
void jinja_report (render *r, const char *format, ...) __attribute__ ((format (printf, 2, 3)));
/* Takes `work` bytes' worth of steps; false with an error when they are used up. */
bool jinja_charge (render *r, size_t work);
/* Around whatever may recurse without end; false with an error at MAX_DEPTH. Each jinja_enter that returned true
 * needs a jinja_leave. */
bool jinja_enter (render *r);
static inline void jinja_leave (render *r)
{
    r->depth--;
}

void *jinja_new (render *r, size_t count, size_t size);
/* `length` bytes for a text that the caller fills. */
char *jinja_new_bytes (render *r, size_t length);
bool jinja_copy_text (render *r, const char *text, size_t length, uint8_t flags, value *out);

bool jinja_emit (render *r, const char *bytes, size_t length);
bool jinja_emit_repeated (render *r, char byte, size_t count);
static inline bool jinja_emit_char (render *r, char byte)
{
    return jinja_emit (r, &byte, 1);
}
bool jinja_emit_code_point (render *r, uint32_t code);
static inline bool jinja_emit_literal (render *r, const char *text)
{
    return jinja_emit (r, text, strlen (text));
}
bool jinja_emit_format (render *r, const char *format, ...) __attribute__ ((format (printf, 2, 3)));

/* Captures: what is emitted between the two becomes a text instead of output. They nest; abandoning one needs
 * jinja_capture_drop. */
static inline size_t jinja_capture (render *r)
{
    return r->output_length;
}
static inline void jinja_capture_drop (render *r, size_t mark)
{
    r->output_length = mark;
}
bool jinja_capture_end (render *r, size_t mark, value *out);

/* Gathers values in the arena. */
typedef struct value_list {
    value *items;
    uint32_t count, room;
} value_list;
bool jinja_append (render *r, value_list *list, value item);
static inline value value_of_list (const value_list *list)
{
    return value_sequence (VALUE_LIST, list->items, list->count);
}

/* -- Characters (template_unicode.c) ----------------------------------------------------------- */

/* As Python's str methods of the same names see one character. */
bool jinja_is_alpha (uint32_t code);
bool jinja_is_decimal (uint32_t code);
bool jinja_is_digit (uint32_t code);
bool jinja_is_numeric (uint32_t code);
bool jinja_is_space (uint32_t code);
bool jinja_is_line_break (uint32_t code);
bool jinja_is_lower (uint32_t code);
bool jinja_is_upper (uint32_t code);
bool jinja_is_title (uint32_t code); /* titlecase letters proper (U+01C5): neither lower nor upper */
bool jinja_is_printable (uint32_t code);
static inline bool jinja_is_alnum (uint32_t code)
{
    return jinja_is_alpha (code) || jinja_is_numeric (code);
}
typedef enum letter_case { CASE_LOWER, CASE_UPPER, CASE_TITLE, CASE_FOLD } letter_case;
/* Full mapping: writes 1 to 3 code points, returns how many. Lower does not know the final sigma (jinja_emit_case
 * does). */
unsigned jinja_map_case (uint32_t code, letter_case to, uint32_t out[3]);
uint32_t jinja_decimal_value (uint32_t code); /* of a decimal */

/* The code point at `*at`, which it moves behind it. Text inside the evaluator is valid UTF-8. */
uint32_t jinja_next_code_point (const char **at);
const char *jinja_previous_character (const char *start, const char *at); /* start of the character before `at` */
uint32_t jinja_code_point_at (const char *at);
unsigned jinja_encode (uint32_t code, char out[4]); /* bytes written */
uint8_t jinja_ascii_flag (const char *text, size_t length);
size_t jinja_code_points (value text); /* its len () */
/* Byte offset of code point `index`, at most text.length. */
size_t jinja_offset_of (value text, size_t index);

/* -- Values (template_value.c) ----------------------------------------------------------------- */

const char *jinja_type_name (value v); /* Python's: "str", "list" */
bool jinja_truth (value v);
/* Fail when values are nested too deeply. */
bool jinja_equal (render *r, value a, value b, bool *out);
/* Negative, zero, positive in *out; `sign` is for the message where the types have no order. Numbers with NaN give
 * *unordered. */
bool jinja_order (render *r, value a, value b, const char *sign, int *out, bool *unordered);
bool jinja_same (value a, value b); /* Python's `is`, as far as templates can tell */
bool jinja_sort (render *r, value *keys, value *items, uint32_t count, bool reverse); /* stable */
bool jinja_undefined_message (render *r, value undefined, value *out);
/* Fails with the undefined value's own message. */
#define jinja_fail_undefined(r, undefined) (jinja_report_undefined (r, undefined), false)
void jinja_report_undefined (render *r, value undefined);

dict *jinja_new_dict (render *r, size_t room);
/* *found points at the item, NULL if absent. Fails for what cannot be a key. */
bool jinja_find (render *r, dict *d, value key, value **found);
value *jinja_find_literal (render *r, dict *d, const char *key); /* NULL if absent */
bool jinja_put (render *r, dict *d, value key, value item);
bool jinja_hashable (value v); /* lists and dicts, and tuples with them inside, cannot be keys */
/* dict (source, **named) into `d`. */
bool jinja_fill_dict (render *r, dict *d, const char *function, const arguments *call);

/* -- Operators (template_operator.c) ----------------------------------------------------------- */

typedef enum binary_operator { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW } binary_operator;
typedef enum comparison { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOT_IN } comparison;

bool jinja_binary (render *r, binary_operator op, value a, value b, value *out);
bool jinja_negate (render *r, value v, value *out);
bool jinja_compare (render *r, comparison op, value a, value b, bool *out);
bool jinja_contains (render *r, value container, value item, bool *out);
bool jinja_concat_text (render *r, value a, value b, value *out); /* two texts, flags of the first */
/* x[start:stop:step]; VALUE_NONE where left out. */
bool jinja_slice (render *r, value v, value start, value stop, value step, value *out);
bool jinja_reversed_text (render *r, value text, value *out);
/* An index as Python's slices clamp it: None gives `fallback`. */
bool jinja_clamp_index (render *r, value index, int64_t length, int64_t fallback, int64_t low, int64_t high,
                        int64_t *out);
bool jinja_length (render *r, value v, bool *has, int64_t *out); /* len (): *has is false where there is none */
bool jinja_floor_divide (int64_t a, int64_t b, int64_t *quotient, int64_t *remainder); /* false: overflow; b is not 0 */

/* -- Iteration (template_iterate.c) ------------------------------------------------------------ */

/* One walk over something. next gives *more = false at the end; false is a failure. */
struct iterator {
    bool (*next) (render *r, iterator *it, value *out, bool *more);
    value source;
    int64_t position;
    iterator *inner;
    uint8_t mode;
    /* of filters that give generators: what to do with each item */
    value attribute; /* VALUE_MISSING: none */
    value fallback;
    const callable *call; /* a filter or test; NULL: truth, or the attribute itself */
    const arguments *call_arguments;
    /* of a `for … if`: the loop and the scope that its condition is evaluated in */
    const node *loop;
    scope *test_scope;
    const char *name; /* of the Python type, for printing */
};

iterator *jinja_new_iterator (render *r, bool (*next) (render *, iterator *, value *, bool *), value source);
bool jinja_can_iterate (value v);
bool jinja_iterate (render *r, value v, iterator **out); /* fails for what is not iterable, in Python's words */
bool jinja_next (render *r, iterator *it, value *out, bool *more);
bool jinja_list_of (render *r, value v, value *out); /* list (v); shares v's items where it can */
bool jinja_reversed (render *r, value v, bool *can, value *out);
bool jinja_item_of_range (const range *numbers, int64_t index, value *out);

/* -- Attributes and items (template_attribute.c) ----------------------------------------------- */

bool jinja_attribute (render *r, value object, value name, value *out);
bool jinja_item (render *r, value object, value key, value *out);
/* "a.b.0" step by step, as filters' attribute= arguments do. */
bool jinja_attribute_path (render *r, value object, value path, value fallback, value *out);
bool jinja_own_attribute (render *r, value object, value name, value *out, bool *found); /* without items */

/* -- Printing (template_print.c) --------------------------------------------------------------- */

void jinja_format_float (double real, char out[32]); /* Python's repr */
bool jinja_emit_value (render *r, value v);          /* str () */
bool jinja_emit_repr (render *r, value v);
bool jinja_to_text (render *r, value v, value *out); /* a text stays itself */
bool jinja_repr (render *r, value v, value *out);
bool jinja_emit_escaped (render *r, value v); /* HTML; Markup stays as it is */
bool jinja_escape (render *r, value v, value *out);
typedef struct json_style {
    bool ensure_ascii, sort_keys, has_indent;
    value indent; /* a text */
    value item_separator, key_separator;
} json_style;
bool jinja_emit_json (render *r, value v, const json_style *style, unsigned level);

/* -- Formatting (template_format.c) ------------------------------------------------------------ */

bool jinja_format_percent (render *r, value format, value operand, value *out);
bool jinja_format_braces (render *r, value format, const arguments *call, dict *mapping, value *out);
/* Parses as int (text, base) and float (text) do; false (no error) where they raise ValueError. */
bool jinja_parse_int (value text, int base, int64_t *out, bool *overflow);
bool jinja_parse_float (value text, double *out);

/* -- Calls (template_call.c) ------------------------------------------------------------------- */

bool jinja_call (render *r, value function, const arguments *call, value *out);
/* Binds `call` to the callable's parameters and runs it. `what` is for messages: "filter", "test", "method". */
bool jinja_call_native (render *r, const char *what, const callable *function, value self, const arguments *call,
                        value *out);
bool jinja_is_callable (value v);

const callable *jinja_find_in (const callable *table, size_t count, const char *name, size_t length);
const callable *jinja_find_filter (const char *name, size_t length);
const callable *jinja_find_test (const char *name, size_t length);
const callable *jinja_find_text_method (const char *name, size_t length);
const callable *jinja_find_case_method (const char *name, size_t length);
const callable *jinja_find_sequence_filter (const char *name, size_t length);
bool jinja_add_globals (render *r, dict *d);
/* The names that Jinja has and Woolly refuses, so that the message can say so. */
bool jinja_is_refused_filter (const char *name, size_t length);
bool jinja_emit_case (render *r, value text, letter_case to); /* with the final sigma */

/* -- Parse tree -------------------------------------------------------------------------------- */

typedef enum node_kind {
    /* Expressions. `left`, `right`, `third` and `items` mean: */
    NODE_CONSTANT,    /* constant */
    NODE_NAME,        /* constant: the name; where to find it: hops, slot */
    NODE_NAMESPACE,   /* a target ns.attr: constant: the attribute; hops, slot: ns; right: its name as NODE_NAME */
    NODE_TUPLE,       /* items */
    NODE_LIST,        /* items */
    NODE_DICT,        /* items: key, value, key, value … */
    NODE_CONDITIONAL, /* left if right else third; third may be NULL */
    NODE_OR,          /* left, right */
    NODE_AND,
    NODE_NOT, /* left */
    NODE_NEGATE,
    NODE_POSITIVE,
    NODE_BINARY,    /* left, right; op: a binary_operator */
    NODE_CONCAT,    /* items */
    NODE_COMPARE,   /* left, then items, each a NODE_OPERAND */
    NODE_OPERAND,   /* left; op: a comparison */
    NODE_ATTRIBUTE, /* left.constant */
    NODE_ITEM,      /* left[right] */
    NODE_SLICE,     /* left[items 0:1:2], items may be NULL */
    NODE_CALL,      /* left (call) */
    NODE_FILTER,    /* left | function (call); left NULL: what a block captured. constant: the name */
    NODE_TEST,      /* left is function (call) */
    /* Statements. */
    NODE_TEXT,         /* constant */
    NODE_OUTPUT,       /* left */
    NODE_FOR,          /* for left in right if third: body, else: other; scopes: frame, test_frame, other_frame */
    NODE_IF,           /* items: condition, NODE_BODY, condition, NODE_BODY …, and a last NODE_BODY for else */
    NODE_BODY,         /* body */
    NODE_SET,          /* left = right */
    NODE_SET_BLOCK,    /* left = body, through the filter right if there is one */
    NODE_MACRO,        /* left: name as target; items: parameters; body */
    NODE_CALL_BLOCK,   /* left: the call; items: parameters of the caller; body */
    NODE_FILTER_BLOCK, /* right: filter; body */
    NODE_WITH,         /* items: target, value, target, value …; body */
    NODE_AUTOESCAPE,   /* left; body */
    NODE_GENERATION,   /* body */
    NODE_BLOCK,        /* constant: name; body */
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_PARAMETER, /* constant: name; slot; left: default or NULL */
    NODE_REFUSED,   /* include, import, extends: constant: the tag. Fails when reached */
} node_kind;

enum { /* flags of nodes */
       FOR_RECURSIVE = 1,
       FOR_HAS_LOOP = 2, /* the body mentions `loop`, which is slot 0 of its frame */
       MACRO_CALLER = 1, /* the body mentions caller, kwargs, varargs, which then are slots: see node.special */
       MACRO_KWARGS = 2,
       MACRO_VARARGS = 4,
       BLOCK_SCOPED = 1,
       BLOCK_REQUIRED = 2,
       NAME_EXPORTED = 1, /* a target at the template's top level */
};

typedef struct node_list {
    node **items;
    uint32_t count, room;
} node_list;

typedef struct named_node {
    value name;
    node *item;
} named_node;

typedef struct call_nodes {
    node_list positional;
    named_node *named;
    uint32_t n_named, named_room;
    node *more_positional; /* *args; NULL: none */
    node *more_named;      /* **kwargs */
} call_nodes;

/* A scope as the template is written: the names that live in it, found before rendering, as Jinja's compiler does. */
typedef enum symbol_load {
    LOAD_NOTHING,  /* a parameter: set by who opens the scope */
    LOAD_VARIABLE, /* from the render's variables */
    LOAD_OUTER,    /* starts with the value of the same name in an outer scope */
    LOAD_UNDEFINED,
} symbol_load;

typedef struct symbol {
    value name;
    symbol_load load;
    bool is_stored;
    uint16_t hops, slot; /* of LOAD_OUTER */
} symbol;

typedef struct frame {
    struct frame *outer;
    symbol *symbols;
    uint32_t count, room;
    uint32_t *stored; /* numbers of symbols, in the order in which they were first stored */
    uint32_t n_stored, stored_room;
    bool is_top; /* the template itself */
} frame;

struct node {
    uint8_t kind; /* node_kind */
    uint8_t op;
    uint8_t flags;
    uint16_t hops, slot;
    uint32_t line;
    node *left, *right, *third;
    node_list items;
    node_list body, other;
    value constant;
    const callable *function;
    call_nodes *call;
    frame *frame, *test_frame, *other_frame;
    uint16_t special[3]; /* slots of caller, kwargs, varargs */
};

struct wl_template {
    arena arena;
    size_t memory_used;
    node_list body;
    frame *frame;
    node **blocks;
    uint32_t n_blocks;
    bool mentions_self; /* `self` is slot 0 of the frame */
};

/* -- Lexer (template_lexer.c) ------------------------------------------------------------------ */

typedef enum token_kind {
    TOKEN_END,
    TOKEN_DATA,
    TOKEN_VARIABLE_BEGIN,
    TOKEN_VARIABLE_END,
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_NAME,
    TOKEN_TEXT,
    TOKEN_NUMBER,
    TOKEN_ADD,
    TOKEN_SUB,
    TOKEN_MUL,
    TOKEN_DIV,
    TOKEN_FLOORDIV,
    TOKEN_MOD,
    TOKEN_POW,
    TOKEN_TILDE,
    TOKEN_LBRACKET,
    TOKEN_RBRACKET,
    TOKEN_LPAREN,
    TOKEN_RPAREN,
    TOKEN_LBRACE,
    TOKEN_RBRACE,
    TOKEN_EQ,
    TOKEN_NE,
    TOKEN_GT,
    TOKEN_GE,
    TOKEN_LT,
    TOKEN_LE,
    TOKEN_ASSIGN,
    TOKEN_DOT,
    TOKEN_COLON,
    TOKEN_PIPE,
    TOKEN_COMMA,
    TOKEN_SEMICOLON,
} token_kind;

typedef struct token {
    token_kind kind;
    uint32_t line;
    value value; /* a data's, name's or text's text; a number */
} token;

typedef struct lexer {
    const char *source; /* newlines are "\n" */
    size_t length, at;
    uint32_t line;
    token_kind inside;  /* TOKEN_END: in data; else the begin token of the tag that we are in */
    token_kind pending; /* a begin token found behind the data given last; TOKEN_END: none */
    bool in_raw, line_starting;
    char brackets[MAX_NESTING]; /* closing ones that are awaited */
    unsigned n_brackets;
    arena *arena;
    wl_error *err;
} lexer;

/* Copies the source with its newlines made "\n" and one at the end dropped. */
bool jinja_lexer_start (lexer *l, const char *source, size_t length, arena *arena, wl_error *err);
bool jinja_lexer_next (lexer *l, token *out);

/* -- Parser ------------------------------------------------------------------------------------ */

typedef struct parser {
    lexer lexer;
    token current, ahead;
    bool has_ahead;
    unsigned depth;
    int64_t steps_left;
    uint32_t line;        /* while resolving: of the node at hand */
    unsigned n_loops;     /* while resolving: loops around, which forbid the target `loop` */
    unsigned n_breakable; /* and those that break and continue can reach */
    arena *arena;
    wl_error *err;
    struct wl_template *tmpl;
} parser;

#define jinja_parse_fail(p, line, ...) (jinja_parse_report (p, line, __VA_ARGS__), false)
void jinja_parse_report (parser *p, uint32_t line, const char *format, ...) __attribute__ ((format (printf, 3, 4)));
node *jinja_new_node (parser *p, node_kind kind, uint32_t line);
bool jinja_add_node (parser *p, node_list *list, node *item);
bool jinja_parser_enter (parser *p);

bool jinja_advance (parser *p);
bool jinja_look (parser *p, token **ahead);
bool jinja_at_name (const parser *p, const char *name);
bool jinja_skip (parser *p, token_kind kind, bool *skipped);
bool jinja_skip_name (parser *p, const char *name, bool *skipped);
bool jinja_expect (parser *p, token_kind kind);
const char *jinja_token_name (const token *t, char out[64]);

/* Expressions (template_expression.c); NULL on failure. */
node *jinja_parse_expression (parser *p, bool with_conditional);
typedef struct tuple_rules {
    bool targets_only; /* names and literals: what may be assigned to */
    bool with_conditional;
    bool with_namespace; /* ns.attr is a target */
    bool parentheses;    /* () is a tuple */
    const char *end;     /* a name that ends it; NULL: none */
} tuple_rules;
node *jinja_parse_tuple (parser *p, const tuple_rules *rules);
node *jinja_parse_target (parser *p, const char *end, bool with_namespace);
node *jinja_parse_filters (parser *p, node *left, bool starts_here);

/* Statements (template_parser.c). */
bool jinja_parse_template (struct wl_template *tmpl, const char *source, size_t length, wl_error *err);
/* Names to slots (template_scope.c). */
bool jinja_resolve_names (parser *p);

/* -- Evaluation (template_evaluate.c) ---------------------------------------------------------- */

struct scope {
    scope *outer;
    const frame *frame;
    value slots[];
};

struct macro {
    const node *node; /* NODE_MACRO or NODE_CALL_BLOCK */
    scope *outer;
    value name; /* VALUE_NONE: a call block's */
};

struct loop_state {
    iterator *it;
    value iterable;
    int64_t index0, length;       /* length -1: not asked for yet */
    value before, current, after; /* after: VALUE_MISSING until peeked at, or at the end */
    bool has_changed_value, is_done;
    value changed_value; /* a tuple */
    int64_t depth0;
    const node *node;
    scope *outer;
};

typedef enum flow { FLOW_FAILED, FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE } flow;

bool jinja_evaluate (render *r, scope *s, const node *n, value *out);
flow jinja_run (render *r, scope *s, const node_list *body);
scope *jinja_open_scope (render *r, scope *outer, const frame *frame);
void jinja_leave_scope (scope *s);           /* its names are unset, also for macros that outlive it */
bool jinja_load_scope (render *r, scope *s); /* (again) gives the symbols what they start with */
bool jinja_assign (render *r, scope *s, const node *target, value v);
flow jinja_run_loop (render *r, scope *outer, const node *n, value iterable, int64_t depth0);
bool jinja_run_block (render *r, const node *block, scope *from);
bool jinja_run_template (render *r);
/* wl_template_render with another bound than MAX_STEPS: for fuzzing. */
char *jinja_render (const struct wl_template *tmpl, const json_t *variables, const struct tm *now, int64_t n_steps,
                    size_t *length, wl_error *err);
bool jinja_call_macro (render *r, const macro *m, const arguments *call, value *out);
bool jinja_loop_peek (render *r, loop_state *loop, value *out);
bool jinja_loop_length (render *r, loop_state *loop, int64_t *out);
/* The arguments of a call, filter or test, evaluated; `caller` is added by name unless VALUE_MISSING. */
bool jinja_evaluate_arguments (render *r, scope *s, const call_nodes *nodes, value caller, arguments *out);

#endif
