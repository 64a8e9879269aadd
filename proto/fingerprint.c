/* Whether two machines hold the same model file; see fingerprint.h. */
#include "fingerprint.h"

#include <sodium.h>

static void add_u64 (crypto_generichash_state *hash, uint64_t value)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t) (value >> 8 * i);
    crypto_generichash_update (hash, bytes, sizeof bytes);
}

bool wl_fingerprint (const wl_gguf *gguf, uint8_t out[WL_FINGERPRINT_BYTES], wl_error *err)
{
    enum { SAMPLE_BYTES = 4096 };
    crypto_generichash_state hash;
    wl_text header = wl_gguf_header (gguf);
    if (sodium_init () < 0)
        return wl_fail (err, WL_ERROR_INTERNAL, "libsodium could not be initialised");
    crypto_generichash_init (&hash, NULL, 0, WL_FINGERPRINT_BYTES);
    add_u64 (&hash, header.length);
    crypto_generichash_update (&hash, (const uint8_t *) header.data, header.length);
    add_u64 (&hash, wl_gguf_file_bytes (gguf));
    for (size_t i = 0; i < wl_gguf_n_tensors (gguf); i++) {
        const wl_tensor *tensor = wl_gguf_tensor (gguf, i);
        const uint8_t *data = tensor->data;
        uint64_t sample = tensor->bytes < SAMPLE_BYTES ? tensor->bytes : SAMPLE_BYTES;
        if (!data)
            return wl_fail (err, WL_ERROR_INTERNAL, "%s: a fingerprint needs the tensors' data", wl_gguf_path (gguf));
        crypto_generichash_update (&hash, data, sample);
        crypto_generichash_update (&hash, data + tensor->bytes - sample, sample);
        wl_gguf_drop_pages (gguf);
    }
    crypto_generichash_final (&hash, out, WL_FINGERPRINT_BYTES);
    return true;
}
