/* Models by shape alone, for measuring without a download: the tensors of a known model with weights of zero.
 *
 * The file is sparse: it takes no disk space, and costs a worker the same memory, bandwidth and arithmetic as the real model, since the kernels' work does not
 * depend on the values. It answers nothing sensible. */
#ifndef WL_COORDINATOR_SHAPES_H
#define WL_COORDINATOR_SHAPES_H

#include "engine/error.h"

/* Names of shapes and types, comma-separated, for messages. */
const char *wl_shape_names (void);
const char *wl_shape_types (void);

/* Writes a model of shape `name` (as "granite-3.3-8b") and file type `type` ("Q4_K_M", "Q8_0", …) to `path`. WL_ERROR_USAGE for an unknown one. */
bool wl_shape_write (const char *path, const char *name, const char *type, wl_error *err);
/* The same to a new file under TMPDIR that nobody else sees; its path, to unlink and free. */
char *wl_shape_temporary (const char *name, const char *type, wl_error *err);

#endif
