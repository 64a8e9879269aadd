/* What real steps taught about predictions: measured over predicted seconds, for each CPU (with its ISA and threads) and kind of model, kept in the cache folder. */
#ifndef WL_COORDINATOR_CORRECTIONS_H
#define WL_COORDINATOR_CORRECTIONS_H

#include "cost.h"

/* What is kept for this machine and kind of model; all n 0 where nothing is. */
wl_correction wl_correction_load (const wl_speed *speed, const char *kind);
/* For a whole machine whose workers compute at the same time: what such steps taught, else what steps of one worker with all its cores did. */
wl_correction wl_correction_load_together (const wl_speed *whole, const char *kind);

typedef struct wl_lessons wl_lessons;

/* `speed` and `cost` are borrowed. together: of a whole machine, see above. */
wl_lessons *wl_lessons_new (const wl_speed *speed, const wl_cost *cost, bool together, wl_error *err);
/* A step of this shape took these layers so long, with nothing else running on the machine; or would have, if they had had the whole machine. */
void wl_lessons_add (wl_lessons *lessons, uint32_t first_layer, uint32_t last_layer, const wl_step_shape *shape,
                     double seconds);
/* Keeps what was learned, if it was enough to mean something. */
void wl_lessons_free (wl_lessons **lessons);

#endif
