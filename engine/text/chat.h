/* A model's own chat template, from its metadata, with the tokens that templates name. */
#ifndef WL_ENGINE_TEXT_CHAT_H
#define WL_ENGINE_TEXT_CHAT_H

#include <jansson.h>
#include <stddef.h>
#include <time.h>

#include "../error.h"
#include "../gguf.h"

/* Renders a conversation. `variables` (borrowed, unchanged): messages, tools, add_generation_prompt, and whatever
 * else the template reads. Added from the metadata unless they are there: bos_token and eos_token (empty where the
 * model has none), and of unk_token, pad_token, sep_token, cls_token, mask_token those that it has. A model with a
 * template of its own for tools (tokenizer.chat_template.tool_use) has it used when tools are given. `now` is what
 * strftime_now sees. Malloc'd text, or NULL with WL_ERROR_INPUT: no template (use --raw), or wl_template_render's
 * reason. Thread: any. */
char *wl_chat_render (const wl_gguf *gguf, const json_t *variables, const struct tm *now, size_t *length,
                      wl_error *err);

#endif
