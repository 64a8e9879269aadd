/* A model's own chat template; see chat.h. */
#include "chat.h"

#include <stdlib.h>

#include "template.h"

/* Sets `name` to the text of the token that `id_key` numbers, unless the caller gave it. Without that token it is
 * empty, so that a template may join it to something, or, unless `always`, not defined. */
static bool add_token (const wl_gguf *gguf, json_t *variables, const char *name, const char *id_key, bool always,
                       wl_error *err)
{
    uint32_t id;
    wl_text text = {"", 0};
    if (json_object_get (variables, name))
        return true;
    bool found = wl_gguf_u32 (gguf, id_key, &id) && wl_gguf_array_text (gguf, "tokenizer.ggml.tokens", id, &text);
    if (!found && !always)
        return true;
    json_t *value = json_stringn (text.data, text.length);
    if (!value)
        return wl_fail (err, WL_ERROR_INPUT, "%s: the token of %s is not UTF-8", wl_gguf_path (gguf), id_key);
    if (json_object_set_new (variables, name, value) != 0)
        return wl_fail (err, WL_ERROR_INTERNAL, "out of memory for a conversation");
    return true;
}

static bool add_tokens (const wl_gguf *gguf, json_t *variables, wl_error *err)
{
    static const struct {
        const char *name, *id_key;
        bool always;
    } tokens[] = {
        {"bos_token", "tokenizer.ggml.bos_token_id", true},
        {"eos_token", "tokenizer.ggml.eos_token_id", true},
        {"unk_token", "tokenizer.ggml.unknown_token_id", false},
        {"pad_token", "tokenizer.ggml.padding_token_id", false},
        {"sep_token", "tokenizer.ggml.seperator_token_id", false}, /* sic: the format's spelling */
        {"cls_token", "tokenizer.ggml.cls_token_id", false},
        {"mask_token", "tokenizer.ggml.mask_token_id", false},
    };
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
        if (!add_token (gguf, variables, tokens[i].name, tokens[i].id_key, tokens[i].always, err))
            return false;
    return true;
}

static bool find_template (const wl_gguf *gguf, const json_t *variables, wl_text *source, wl_error *err)
{
    const json_t *tools = json_object_get (variables, "tools");
    if (json_array_size (tools) > 0 && wl_gguf_text (gguf, "tokenizer.chat_template.tool_use", source))
        return true;
    return wl_gguf_text (gguf, "tokenizer.chat_template", source) ||
           wl_fail (err, WL_ERROR_INPUT, "%s: the model has no chat template: give the prompt as plain text with --raw",
                    wl_gguf_path (gguf));
}

char *wl_chat_render (const wl_gguf *gguf, const json_t *variables, const struct tm *now, size_t *length, wl_error *err)
{
    wl_text source;
    wl_template *parsed = NULL;
    char *text = NULL;
    json_t *all = json_copy ((json_t *) variables);
    if (!all) {
        wl_fail (err, WL_ERROR_INTERNAL, "out of memory for a conversation");
        return NULL;
    }
    if (!find_template (gguf, all, &source, err) || !add_tokens (gguf, all, err))
        goto done;
    parsed = wl_template_parse (source.data, source.length, err);
    if (parsed)
        text = wl_template_render (parsed, all, now, length, err);
done:
    wl_template_free (&parsed);
    json_decref (all);
    return text;
}
