/* The pre-tokenizers of models, by the names GGUF files give them; see pre_schemes.h.
 *
 * The expressions are those of the models' own tokenizer.json, with these differences of form: \s and \S are written out as
 * Unicode's White_Space (PCRE2's \s also matches U+180E), an intersection with a script is a negated class, and digit grouping
 * from the right ((?=(\d{3})+(?!\d)) and the like) is a kind of step, since the expressions look ahead to the end of the digits
 * from every digit. */
#include "pre_schemes.h"

#include <string.h>

/* White_Space, as a part of a class. */
#define WS "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SPACE "[" WS "]"
#define NO_SPACE_NEXT "(?![^" WS "])"

#define TRAILING_SPACE "|" SPACE "+" NO_SPACE_NEXT "|" SPACE "+"
#define LINES_THEN_SPACE "|" SPACE "*[\\r\\n]+" TRAILING_SPACE
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SYMBOLS " ?[^" WS "\\p{L}\\p{N}]+"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|" SYMBOLS TRAILING_SPACE
#define LLAMA3 CONTRACTION "|" WORD "|\\p{N}{1,3}|" SYMBOLS "[\\r\\n]*" LINES_THEN_SPACE
#define QWEN2 CONTRACTION "|" WORD "|\\p{N}|" SYMBOLS "[\\r\\n]*" LINES_THEN_SPACE

/* Words of o200k's kind: some capitals, then small letters, or capitals alone. */
#define CAPITALS "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define SMALLS "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define CASED_WORD(suffix)                                                                                       \
    "[^\\r\\n\\p{L}\\p{N}]?[" CAPITALS "]*[" SMALLS "]+" suffix "|[^\\r\\n\\p{L}\\p{N}]?[" CAPITALS "]+[" SMALLS \
    "]*" suffix
#define GPT4O CASED_WORD (CONTRACTION "?") "|\\p{N}{1,3}|" SYMBOLS "[\\r\\n/]*" LINES_THEN_SPACE

/* Script=Han, and the capitals and small letters outside it. */
#define HAN                                                                                                     \
    "\\x{2e80}-\\x{2e99}\\x{2e9b}-\\x{2ef3}\\x{2f00}-\\x{2fd5}\\x{3005}\\x{3007}\\x{3021}-\\x{3029}\\x{3038}-"  \
    "\\x{303b}\\x{3400}-\\x{4dbf}\\x{4e00}-\\x{9fff}\\x{f900}-\\x{fa6d}\\x{fa70}-\\x{fad9}\\x{16fe2}\\x{16fe3}" \
    "\\x{16ff0}\\x{16ff1}\\x{20000}-\\x{2a6df}\\x{2a700}-\\x{2b739}\\x{2b740}-\\x{2b81d}\\x{2b820}-\\x{2cea1}"  \
    "\\x{2ceb0}-\\x{2ebe0}\\x{2ebf0}-\\x{2ee5d}\\x{2f800}-\\x{2fa1d}\\x{30000}-\\x{3134a}\\x{31350}-\\x{323af}"
#define CAPITALS_NOT_HAN "[^\\p{Ll}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}" HAN "]"
#define SMALLS_NOT_HAN "[^\\p{Lu}\\p{Lt}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}" HAN "]"
#define KIMI                                                                                                \
    "[" HAN "]+|[^\\r\\n\\p{L}\\p{N}]?" CAPITALS_NOT_HAN "*" SMALLS_NOT_HAN "+" CONTRACTION                 \
    "?|[^\\r\\n\\p{L}\\p{N}]?" CAPITALS_NOT_HAN "+" SMALLS_NOT_HAN "*" CONTRACTION "?|\\p{N}{1,3}|" SYMBOLS \
    "[\\r\\n]*" LINES_THEN_SPACE

#define ASCII_PUNCTUATION "!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~"
#define IDEOGRAPHS_AND_KANA "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define DEEPSEEK_WORD "[" ASCII_PUNCTUATION "][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+"
#define DEEPSEEK_CJK "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"

/* Letters with case, as DeepSeek LLM lists them. */
#define CASED_LETTERS                                                                                          \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}"            \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}"     \
    "\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}"            \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"          \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}"          \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}"  \
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}" \
    "\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}"           \
    "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}"            \
    "\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}"            \
    "\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}"           \
    "\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}"          \
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"        \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"                     \
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

/* Oniguruma's \w: letters, marks, digits, what else is Alphabetic, connectors, and Latin-1's numbers. */
#define ONIG_WORD                                                                                                   \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}" \
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"

/* Scripts that two models cut out: Hangul, full-width punctuation, Bopomofo, ideographs; and those written without spaces. */
#define YOUTU_SCRIPTS                                                                                            \
    "[\\x{ac00}-\\x{d7a3}\\x{3131}-\\x{318e}]+|[\\x{ff01}\\x{2026}\\x{201c}\\x{201d}\\x{2018}\\x{2019}\\x{2014}" \
    "\\x{ff1a}\\x{ff1b}\\x{ff0c}\\x{3001}-\\x{303f}\\x{fe30}-\\x{fe4f}]+|[\\x{3105}-\\x{312f}]+|" IDEOGRAPHS_AND_KANA
#define AFMOE_SCRIPTS                                                                                                \
    "[\\x{4e00}-\\x{9fff}\\x{3400}-\\x{4dbf}\\x{f900}-\\x{faff}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}"               \
    "\\x{ff65}-\\x{ff9f}\\x{2f00}-\\x{2fdf}\\x{e40}-\\x{e7f}\\x{e80}-\\x{eff}\\x{1780}-\\x{17ff}\\x{1000}-\\x{109f}" \
    "\\x{aa60}-\\x{aa7f}\\x{a9e0}-\\x{a9ff}\\x{ac00}-\\x{d7af}\\x{1100}-\\x{11ff}]+"

/* What BLOOM's family takes for the end of a word. */
#define NOT_BLOOM_STOP " ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"

/* -- Schemes ---------------------------------------------------------------------------------------------------------- */

/* clang-format off */
#define CUT(expression) {expression, STEP_MATCHES}
#define CUT_DIGITS(expression) {expression, STEP_GROUPS_OF_3}
#define CUT_BEFORE_DIGITS(expression) {expression, STEP_BEFORE_GROUPS_OF_3}
#define END {NULL, STEP_MATCHES}
/* clang-format on */

static const pre_step steps_default[] = {CUT ("[\\p{P}$+<=>^~|]+"), CUT (GPT2), CUT ("\\p{N}+"),
                                         CUT ("[0-9][0-9][0-9]"), END};
static const pre_step steps_gpt2[] = {CUT (GPT2), END};
static const pre_step steps_digits_gpt2[] = {CUT ("\\p{N}"), CUT (GPT2), END};
static const pre_step steps_llama3[] = {CUT (LLAMA3), END};
static const pre_step steps_qwen2[] = {CUT (QWEN2), END};
static const pre_step steps_qwen35[] = {CUT (CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" WS
                                                         "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" LINES_THEN_SPACE),
                                        END};
static const pre_step steps_ufakzeka[] = {CUT (WORD "|\\p{N}|" SYMBOLS "[\\r\\n]*" LINES_THEN_SPACE), END};
static const pre_step steps_jais2[] = {
    CUT (CONTRACTION "|" WORD "|\\p{N}{1,3}|" SYMBOLS "[\\r\\n]*|" SPACE "*[\\r\\n]+|" SPACE "{512}" NO_SPACE_NEXT
                     "|" SPACE "{256}" NO_SPACE_NEXT "|" SPACE "{128}" NO_SPACE_NEXT "|" SPACE "{64}" NO_SPACE_NEXT
                     "|" SPACE "{32}" NO_SPACE_NEXT "|" SPACE "{16}" NO_SPACE_NEXT "|" SPACE "{8}" NO_SPACE_NEXT
                     "|" SPACE "{4}" NO_SPACE_NEXT "|" SPACE "{1,2}" NO_SPACE_NEXT "|" SPACE "{1}"),
    END};
static const pre_step steps_deepseek_llm[] = {
    CUT ("[\\r\\n]"),
    CUT (SPACE "?[" CASED_LETTERS "]+"),
    CUT (SPACE "?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+"),
    CUT (SPACE "+$"),
    CUT (DEEPSEEK_CJK),
    CUT ("\\p{N}")};
static const pre_step steps_deepseek_coder[] = {CUT ("[\\r\\n]"),   CUT (SPACE "?\\p{L}+"), CUT (SPACE "?\\p{P}+"),
                                                CUT (DEEPSEEK_CJK), CUT ("\\p{N}"),         END};
static const pre_step steps_deepseek3[] = {CUT ("\\p{N}{1,3}"), CUT (IDEOGRAPHS_AND_KANA),
                                           CUT (DEEPSEEK_WORD "[\\r\\n]*" LINES_THEN_SPACE), END};
static const pre_step steps_spark25[] = {CUT ("\\p{N}{1,3}"), CUT (IDEOGRAPHS_AND_KANA),
                                         CUT (DEEPSEEK_WORD "|[\\r\\n]" TRAILING_SPACE), CUT ("\\p{N}"), END};
static const pre_step steps_youtu[] = {
    CUT (YOUTU_SCRIPTS), CUT (CASED_WORD (CONTRACTION "?") "|\\p{N}|" SYMBOLS "[\\r\\n/]*" LINES_THEN_SPACE), END};
static const pre_step steps_falcon[] = {CUT ("[\\p{P}$+<=>^~|`]+"), CUT (GPT2), CUT ("[0-9][0-9][0-9]"), END};
static const pre_step steps_bloom[] = {CUT (NOT_BLOOM_STOP), END};
static const pre_step steps_viking[] = {CUT (NOT_BLOOM_STOP), CUT ("\\p{N}"), END};
static const pre_step steps_tekken[] = {CUT (CASED_WORD ("") "|\\p{N}|" SYMBOLS "[\\r\\n/]*" LINES_THEN_SPACE), END};
static const pre_step steps_gpt4o[] = {CUT (GPT4O), END};
static const pre_step steps_chameleon[] = {CUT ("<sentinel:[0-9]+>"),      CUT ("IMGIMG[A-I]{1,4}Z"),
                                           CUT ("[\\t\\n]|    |  "),       CUT ("\\p{N}"),
                                           CUT ("[\\p{P}!-/:-@\\[-`{-~]"), CUT (GPT2)};
/* \d{1,3}(?=(?:\d{3})*\b): digits are grouped only where no word character follows them. */
static const pre_step steps_tiny_aya[] = {CUT_DIGITS ("(?<!\\p{Nd})\\p{Nd}++(?![" ONIG_WORD "])"), CUT (GPT4O), END};
static const pre_step steps_kimi[] = {CUT (KIMI), END};
/* (?=(\d{3})+(?!\d)) */
static const pre_step steps_superbpe[] = {CUT ("\\p{N}+"), CUT_BEFORE_DIGITS ("\\p{Nd}+"), END};
static const pre_step steps_bailing[] = {CUT ("'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}|" SYMBOLS
                                              "[\\r\\n]*|" SPACE "*[\\r\\n]" TRAILING_SPACE),
                                         END};
static const pre_step steps_seed_coder[] = {
    CUT (CONTRACTION "|" WORD "|\\p{N}| ?[^" WS "\\p{L}\\p{N}\\r\\n]+" LINES_THEN_SPACE), END};
static const pre_step steps_afmoe[] = {CUT_DIGITS ("\\p{N}+"), CUT (AFMOE_SCRIPTS),
                                       CUT (DEEPSEEK_WORD "[\\r\\n]*" LINES_THEN_SPACE), END};
static const pre_step steps_lines[] = {CUT ("[^\\n]+|\\n+"), END};
static const pre_step steps_laguna[] = {CUT ("[^\\n]+|\\n+"), CUT (QWEN2), END};
static const pre_step steps_exaone_moe[] = {
    CUT (CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*+(?: \\p{L}\\p{M}*+)*+)++|\\p{N}|" SYMBOLS
                     "[\\r\\n/]?|" SPACE "*[\\r\\n]" TRAILING_SPACE),
    END};
static const pre_step steps_minicpm5[] = {
    CUT ("\\p{N}{1,3}"), CUT (CONTRACTION "|" WORD "|\\p{N}+|" SYMBOLS "[\\r\\n]*" LINES_THEN_SPACE), END};

/* clang-format off */
#define ADDS_BOS {.adds_bos = true}
#define IGNORES_MERGES {.ignores_merges = true}
#define BOTH {.adds_bos = true, .ignores_merges = true}
#define MERGES_BY_ID {.merges_by_id = true}
#define GEMMA {.is_raw = true, .always_adds_bos = true, .joins_newlines = true}
#define RAW {.is_raw = true}
/* clang-format on */

static const pre_scheme schemes[] = {
    {"default", steps_default, {0}},
    {"llama3", steps_llama3, BOTH},
    {"llama-v3", steps_llama3, BOTH},
    {"llama-bpe", steps_llama3, BOTH},
    {"falcon3", steps_llama3, BOTH},
    {"falcon-h1", steps_llama3, BOTH},
    {"pixtral", steps_llama3, BOTH},
    {"midm-2.0", steps_llama3, BOTH},
    {"lfm2", steps_llama3, BOTH},
    {"jina-v5-nano", steps_llama3, BOTH},
    {"dbrx", steps_llama3, {0}},
    {"smaug-bpe", steps_llama3, {0}},
    {"chatglm-bpe", steps_llama3, {0}},
    {"glm4", steps_llama3, IGNORES_MERGES},
    {"glm5", steps_llama3, IGNORES_MERGES},
    {"jais-2", steps_jais2, {0}},
    {"minicpm5", steps_minicpm5, IGNORES_MERGES},
    {"deepseek-llm", steps_deepseek_llm, {0}},
    {"deepseek-coder", steps_deepseek_coder, {0}},
    {"deepseek-v3", steps_deepseek3, {0}},
    {"hunyuan-dense", steps_deepseek3, {0}},
    {"joyai-llm", steps_deepseek3, {0}},
    {"hy_v4", steps_deepseek3, {0}},
    {"spark2_5", steps_spark25, {0}},
    {"youtu", steps_youtu, IGNORES_MERGES},
    {"falcon", steps_falcon, {0}},
    {"starcoder", steps_digits_gpt2, {0}},
    {"refact", steps_digits_gpt2, {0}},
    {"command-r", steps_digits_gpt2, {0}},
    {"smollm", steps_digits_gpt2, {0}},
    {"codeshell", steps_digits_gpt2, {0}},
    {"exaone", steps_digits_gpt2, {0}},
    {"minerva-7b", steps_digits_gpt2, {0}},
    {"mellum2", steps_digits_gpt2, {0}},
    {"gpt-2", steps_gpt2, {0}},
    {"gpt2", steps_gpt2, {0}},
    {"phi-2", steps_gpt2, {0}},
    {"mpt", steps_gpt2, {0}},
    {"olmo", steps_gpt2, {0}},
    {"jais", steps_gpt2, {0}},
    {"trillion", steps_gpt2, {0}},
    {"granite-docling", steps_gpt2, {0}},
    {"exaone4", steps_gpt2, {0}},
    {"jina-es", steps_gpt2, {0}},
    {"jina-de", steps_gpt2, {0}},
    {"jina-v1-en", steps_gpt2, {0}},
    {"jina-v2-es", steps_gpt2, {0}},
    {"jina-v2-de", steps_gpt2, {0}},
    {"jina-v2-code", steps_gpt2, {0}},
    {"roberta-bpe", steps_gpt2, {0}},
    {"modern-bert", steps_gpt2, {0}},
    {"gigachat", steps_gpt2, {0}},
    {"a.x-4.0", steps_gpt2, {0}},
    {"mellum", steps_gpt2, {0}},
    {"qwen2", steps_qwen2, {0}},
    {"deepseek-r1-qwen", steps_qwen2, {0}},
    {"kormo", steps_qwen2, {0}},
    {"f2llmv2", steps_qwen2, {0}},
    {"megrez", steps_qwen2, {0}},
    {"stablelm2", steps_qwen2, {0}},
    {"hunyuan", steps_qwen2, {0}},
    {"solar-open", steps_qwen2, {0}},
    {"grok-2", steps_qwen2, {0}},
    {"qwen35", steps_qwen35, {0}},
    {"ufakzeka", steps_ufakzeka, {0}},
    {"laguna", steps_laguna, {0}},
    {"poro-chat", steps_bloom, {0}},
    {"bloom", steps_bloom, {0}},
    {"gpt3-finnish", steps_bloom, {0}},
    {"viking", steps_viking, {0}},
    {"tekken", steps_tekken, BOTH},
    {"chameleon", steps_chameleon, ADDS_BOS},
    {"gpt-4o", steps_gpt4o, {0}},
    {"gpt-oss", steps_gpt4o, {0}},
    {"llama4", steps_gpt4o, {0}},
    {"kanana2", steps_gpt4o, {0}},
    {"talkie", steps_gpt4o, {0}},
    {"minimax-m2", steps_gpt4o, {0}},
    {"granite-embed-multi-97m", steps_gpt4o, IGNORES_MERGES},
    {"tiny_aya", steps_tiny_aya, {0}},
    {"cohere2moe", steps_tiny_aya, {0}},
    {"kimi-k2", steps_kimi, MERGES_BY_ID},
    {"superbpe", steps_superbpe, {0}},
    {"bailingmoe", steps_bailing, {0}},
    {"bailingmoe2", steps_bailing, {0}},
    {"llada-moe", steps_bailing, {0}},
    {"seed-coder", steps_seed_coder, {0}},
    {"afmoe", steps_afmoe, {0}},
    {"exaone-moe", steps_exaone_moe, {0}},
    {"gemma4", steps_lines, GEMMA},
    {"granite-embed-multi-311m", steps_lines, GEMMA},
    {"sarvam-moe", steps_lines, RAW},
};

const pre_scheme *pre_scheme_find (wl_text name)
{
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
        if (strlen (schemes[i].name) == name.length && memcmp (schemes[i].name, name.data, name.length) == 0)
            return &schemes[i];
    return NULL;
}
