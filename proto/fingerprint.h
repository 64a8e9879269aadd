/* What makes two model files the same: BLAKE2b-256 over the GGUF header (metadata and tensor descriptions), the file size, and a sample of every
 * tensor's data (its first and last 4 KiB), so that it takes milliseconds on files of any size. */
#ifndef WL_PROTO_FINGERPRINT_H
#define WL_PROTO_FINGERPRINT_H

#include <stdint.h>

#include "engine/gguf.h"

enum { WL_FINGERPRINT_BYTES = 32 };

bool wl_fingerprint (const wl_gguf *gguf, uint8_t out[WL_FINGERPRINT_BYTES], wl_error *err);

#endif
