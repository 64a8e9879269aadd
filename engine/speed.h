/* How fast this machine computes with its real kernels and a number of threads, for whoever plans.
 *
 * A step's time is mostly that of multiplying each weight of a stage with the step's rows. So what is measured is a curve: seconds a weight, for 1 to 128
 * rows, for a few weight types, streamed from memory through wl_multiply as a stage does. At one row it is the memory's bandwidth, at 128 the multiply-adds
 * a second; between them lies what a batch costs. Attention is measured by itself, a multiply-add at a time; and so is the work on rows themselves (norms,
 * rounding, rotation, activations), an element at a time, and what it takes to set all threads to work and wait for them, of which a layer has several.
 *
 * wl_speed_obtain keeps what it measured in the cache folder (WOOLLY_CACHE), a file for each CPU model, ISA and number of threads, which counts as long as the kernels' sources are the same; measuring takes well under a second
 * and is done by one process of a machine at a time. What was measured while others used the processors is measured again at the next start, and the best of both kept. Thread: any, all state is in the arguments. */
#ifndef WL_ENGINE_SPEED_H
#define WL_ENGINE_SPEED_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "gguf.h"
#include "kernels/kernels.h"

enum { WL_SPEED_ROWS = 8, WL_SPEED_TYPES = 6, WL_SPEED_VERSION = 2, WL_SPEED_CPU_BYTES = 64 };

/* Of an ordinary core, where nothing is known. */
#define WL_SPEED_ELEMENT_S 5e-10
#define WL_SPEED_DISPATCH_S 2e-6

/* 1, 2, 4, … 128; and the types that are measured. */
extern const uint32_t wl_speed_rows[WL_SPEED_ROWS];
extern const wl_type wl_speed_types[WL_SPEED_TYPES];

typedef struct wl_speed {
    char cpu[WL_SPEED_CPU_BYTES], isa[16];
    uint32_t n_threads, n_cores;                              /* that were used, that this machine has */
    uint64_t measured_at;                                     /* seconds since 1970 */
    double seconds_per_weight[WL_SPEED_TYPES][WL_SPEED_ROWS]; /* to multiply one weight with so many rows */
    double attention_s[2]; /* a multiply-add of attention: of one query, and of many of one sequence */
    double element_s;      /* an element of a row that a norm or the like passes over, on one thread */
    double dispatch_s;     /* a job of all threads, without the work */
} wl_speed;

typedef enum wl_speed_source {
    WL_SPEED_DEFAULT,
    WL_SPEED_MEASURED,
    WL_SPEED_CACHED,
    WL_SPEED_DESCRIBED
} wl_speed_source;
/* "assumed", "measured", "cached", "described" */
const char *wl_speed_source_name (wl_speed_source source);

/* Measures now. WL_ERROR_INTERNAL without memory for it. */
bool wl_speed_measure (const wl_kernels *kernels, uint32_t n_threads, wl_speed *out, wl_error *err);

/* From the cache, unless it is older than 30 days or of other kernels, or `fresh` asks for it; else measured, and kept where the cache folder can be
 * written. */
bool wl_speed_obtain (const wl_kernels *kernels, uint32_t n_threads, bool fresh, wl_speed *out, wl_speed_source *source,
                      wl_error *err);

/* What stands in for a machine that was not measured: an ordinary laptop core of 2020 a thread, up to the bandwidth of two channels of memory. */
wl_speed wl_speed_assumed (uint32_t n_threads);

/* Seconds to multiply one weight of `type` with `rows` rows: between two measured points a line, beyond 128 in proportion. A type that is not measured takes the curve
 * of the one that is closest in how it computes, at one row by its bytes. rows may be a fraction (experts share a step's rows). */
double wl_speed_weight_s (const wl_speed *speed, wl_type type, double rows);

/* Raises every figure to that of `other`: all cores are not slower than some of them, whatever disturbed the measuring. */
void wl_speed_at_least (wl_speed *speed, const wl_speed *other);

/* Bytes a second at one row, and multiply-adds a second at 128, of Q4_K. */
double wl_speed_bandwidth (const wl_speed *speed);
double wl_speed_macs (const wl_speed *speed);

/* The same machine, threads and figures; when they were measured does not matter. */
bool wl_speed_equal (const wl_speed *a, const wl_speed *b);

/* Whether every number is one that a machine could have: what a peer or a file says is checked by it. */
bool wl_speed_is_sound (const wl_speed *speed);

json_t *wl_speed_to_json (const wl_speed *speed);
/* False if it is not what wl_speed_to_json writes. */
bool wl_speed_from_json (const json_t *json, wl_speed *out);

/* This machine: its CPU's name, and a text that is the same for all processes on it until it is started anew ("" where the system does not say). */
void wl_machine_cpu (char *out, size_t size);
void wl_machine_id (char out[40]);

/* Where the cache folder (cache_folder.h) keeps the measured figure of this name; NULL where there is no such place. Free with free(). */
char *wl_measured_path (const char *name);
/* Writes it as a whole or not at all. */
bool wl_measured_write (const char *path, json_t *json);

#endif
