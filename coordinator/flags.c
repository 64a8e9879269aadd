/* Flags that several commands share; see flags.h. */
#include "flags.h"

#include <string.h>

#include "engine/kv_cache.h"
#include "speculation.h"

wl_option_table wl_cluster_flags_init (wl_cluster_flags *f)
{
    *f = (wl_cluster_flags){.options = {.n_local = 1, .min_workers = 1, .join_timeout_s = 60, .draft_threads = 1}};
    wl_cluster_options *o = &f->options;
    const wl_option table[WL_CLUSTER_FLAGS] = {
        {0, "local", WL_OPTION_U32, &o->n_local, "N", "start N local workers (1; 0 with --listen)", &o->local_given},
        {0, "listen", WL_OPTION_TEXT, &o->listen, "HOST:PORT", "wait for workers that join here", NULL},
        {0, "min-workers", WL_OPTION_U32, &o->min_workers, "K", "how many must have joined on --listen (1)", NULL},
        {0, "join-timeout", WL_OPTION_F32, &o->join_timeout_s, "S", "seconds to wait for them (60)", NULL},
        {0, "layers", WL_OPTION_TEXT, &o->layers, "RANGES", "fix the split: 0-19,20-39", NULL},
        {0, "objective", WL_OPTION_TEXT, &f->objective, "throughput|latency",
         "what the plan is best at: many requests, or one by itself (throughput)", NULL},
        {0, "use-all", WL_OPTION_FLAG, &o->use_all, NULL, "leave nobody out who joined, however slow", NULL},
        {0, "measure", WL_OPTION_FLAG, &o->measures_anew, NULL, "measure this machine anew (kept for 30 days)", NULL},
        {0, "threads", WL_OPTION_U32, &o->n_threads, "N", "compute threads a worker (the machine's cores shared out)",
         NULL},
        {0, "ctx", WL_OPTION_U32, &o->context, "N", "positions of KV cache (what the command needs)", NULL},
        {0, "spec", WL_OPTION_TEXT, &o->speculation, "off|ngram|auto|draft:MODEL",
         "guess from repetitions; auto: where it pays; or by a smaller model, where that pays (auto; the text is the "
         "same)",
         NULL},
        {0, "draft-threads", WL_OPTION_U32, &o->draft_threads, "N", "threads of the draft model, on this machine (1)",
         &f->draft_threads_given},
        {0, "draft-always", WL_OPTION_FLAG, &o->draft_always, NULL,
         "have it guess even where that does not pay: to see how many come true", NULL},
        {0, "chunk", WL_OPTION_U32, &o->chunk, "N", "rows of a prompt a step (by its length and the stages)", NULL},
        {0, "hop", WL_OPTION_TEXT, &f->hop, "f32|f16|q8",
         "what activations travel as between stages (f32; f16 and q8 round, so answers may differ)", NULL},
        {0, "kv", WL_OPTION_TEXT, &f->kv, "f16|q8_0",
         "what the KV cache holds (f16; q8_0 rounds, in about half the memory)", NULL},
        {0, "rope-scaling", WL_OPTION_TEXT, &f->rope_scaling, "none|linear|yarn",
         "in place of the model's own: for a --ctx beyond its context, yarn (what the file declares)", NULL},
        {0, "rope-factor", WL_OPTION_F32, &f->rope.factor, "F", "by how much (--ctx over the original context)",
         &f->rope_factor_given},
        {0, "no-prefix-cache", WL_OPTION_FLAG, &o->no_prefix_cache, NULL,
         "compute every prompt whole, whatever others began with (the text is the same)", NULL},
        {0, "trace", WL_OPTION_TEXT, &o->trace, "FILE", "write what each stage did when, for a trace viewer", NULL},
        {0, "isa", WL_OPTION_TEXT, &o->isa, "NAME", "kernels: scalar, avx2, … (the best each worker has)", NULL},
        {0, "worker-binary", WL_OPTION_TEXT, &o->worker_binary, "PATH", "woolly-worker (the one beside this program)",
         NULL},
        {0, "no-pack-cache", WL_OPTION_FLAG, &o->no_pack_cache, NULL, "have workers keep no packed weights on disk",
         NULL},
        {0, "insecure", WL_OPTION_FLAG, &o->insecure, NULL, "allow --listen beyond this host without encryption", NULL},
    };
    memcpy (f->table, table, sizeof table);
    return (wl_option_table){f->table, WL_CLUSTER_FLAGS};
}

enum { MAX_THREADS = 1024 };

static bool check_speculation (const wl_cluster_flags *f, wl_error *err)
{
    const wl_cluster_options *o = &f->options;
    wl_speculation_kind kind;
    if (!wl_speculation_parse (o->speculation, &kind, NULL, err))
        return false;
    if (kind != WL_SPECULATION_DRAFT && (f->draft_threads_given || o->draft_always))
        return wl_fail (err, WL_ERROR_USAGE, "--%s is for a draft model: give --spec draft:MODEL too",
                        o->draft_always ? "draft-always" : "draft-threads");
    if (o->draft_threads == 0 || o->draft_threads > MAX_THREADS)
        return wl_fail (err, WL_ERROR_USAGE, "--draft-threads %u: choose 1 to %d", o->draft_threads, MAX_THREADS);
    return true;
}

bool wl_cluster_flags_finish (wl_cluster_flags *f, wl_error *err)
{
    enum { MAX_WORKERS = 10000, LEAST_CHUNK = 1, MOST_CHUNK = 4096 };
    wl_cluster_options *o = &f->options;
    o->latency = f->objective && strcmp (f->objective, "latency") == 0;
    if (f->objective && !o->latency && strcmp (f->objective, "throughput") != 0)
        return wl_fail (err, WL_ERROR_USAGE, "--objective %s: choose throughput or latency", f->objective);
    if (f->hop && !wl_hop_parse (f->hop, &o->hop, err))
        return false;
    if (f->rope_scaling && !wl_rope_choice_parse (f->rope_scaling, &f->rope.choice, err))
        return false;
    if (f->rope_factor_given && f->rope.choice != WL_ROPE_LINEAR && f->rope.choice != WL_ROPE_YARN)
        return wl_fail (err, WL_ERROR_USAGE, "--rope-factor needs --rope-scaling linear or yarn");
    if (f->rope_factor_given && !(f->rope.factor > 1))
        return wl_fail (err, WL_ERROR_USAGE, "--rope-factor %g: choose more than 1", (double) f->rope.factor);
    f->rope.context = o->context;
    if (f->kv && !wl_kv_type_parse (f->kv, &o->kv, err))
        return false;
    if (o->layers && !o->local_given && !o->listen) {
        o->n_local = 1;
        for (const char *c = o->layers; *c; c++)
            o->n_local += *c == ',' && c[1];
    }
    if (o->listen && !o->local_given)
        o->n_local = 0;
    if (!o->listen && o->n_local == 0)
        return wl_fail (err, WL_ERROR_USAGE,
                        "--local 0 leaves no workers: choose 1 or more, or --listen for workers that join");
    if (o->n_local > MAX_WORKERS || o->min_workers > MAX_WORKERS)
        return wl_fail (err, WL_ERROR_USAGE, "more than %d workers", MAX_WORKERS);
    if (o->listen && o->min_workers == 0)
        return wl_fail (err, WL_ERROR_USAGE, "--min-workers 0: choose 1 or more");
    if (!check_speculation (f, err))
        return false;
    if (o->chunk && (o->chunk < LEAST_CHUNK || o->chunk > MOST_CHUNK))
        return wl_fail (err, WL_ERROR_USAGE, "--chunk %u: choose %d to %d", o->chunk, LEAST_CHUNK, MOST_CHUNK);
    if (o->n_threads > MAX_THREADS)
        return wl_fail (err, WL_ERROR_USAGE, "--threads %u: choose 1 to %d", o->n_threads, MAX_THREADS);
    if (!(o->join_timeout_s >= 0 && o->join_timeout_s <= 86400))
        return wl_fail (err, WL_ERROR_USAGE, "--join-timeout %g: choose 0 to 86400 seconds", o->join_timeout_s);
    return true;
}
