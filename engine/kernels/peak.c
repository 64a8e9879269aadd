/* The most multiply-adds that a core can do; see peak.h.
 *
 * Independent destinations, more than latency times throughput, so that only the multipliers limit. Instructions are written out (for NEON as their encodings, which any
 * assembler takes), so that no compiler leaves one out and none needs to be told of an instruction set. */
#include "peak.h"

#include <string.h>

#if defined(__x86_64__)

/* INSTRUCTION of two registers into 12 others, none of which waits for another. */
#define INTO(instruction, kind, d) instruction " %%" kind "14, %%" kind "15, %%" kind #d "\n\t"
#define INTO_4(i, k, a, b, c, d) INTO (i, k, a) INTO (i, k, b) INTO (i, k, c) INTO (i, k, d)
#define DEFINE_RUN(name, instruction, kind, multiply_adds)                                                             \
    static uint64_t name (uint64_t rounds)                                                                             \
    {                                                                                                                  \
        for (uint64_t i = 0; i < rounds; i++)                                                                          \
            __asm__ volatile(INTO_4 (instruction, kind, 0, 1, 2, 3) INTO_4 (instruction, kind, 4, 5, 6, 7)             \
                                 INTO_4 (instruction, kind, 8, 9, 10, 11)::                                            \
                                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
                                       "xmm10", "xmm11");                                                              \
        __asm__ volatile("vzeroupper");                                                                                \
        return rounds * 12 * (multiply_adds);                                                                          \
    }

/* Unsigned times signed bytes, added in pairs to int16, and in fours to int32. */
DEFINE_RUN (run_avx2, "vpmaddubsw", "ymm", 32)
DEFINE_RUN (run_avx512vnni, "vpdpbusd", "zmm", 64)

/* 16 x 16 x 64 multiply-adds: signed times unsigned bytes, added in fours. */
#define TDPBSUD(d) "tdpbsud %%tmm7, %%tmm6, %%tmm" #d "\n\t"

static uint64_t run_amx (uint64_t rounds)
{
    enum { INSTRUCTIONS = 6, MULTIPLY_ADDS = 16 * 16 * 64, TILES = 8 };
    uint8_t config[64] = {1}; /* palette 1; row lengths of two bytes from 16 on, numbers of rows from 48 on */
    for (int t = 0; t < TILES; t++) {
        config[16 + 2 * t] = 64;
        config[48 + t] = 16;
    }
    __asm__ volatile("ldtilecfg (%0)" : : "r"(config) : "memory"); /* which makes all zero */
    for (uint64_t i = 0; i < rounds; i++)
        __asm__ volatile(TDPBSUD (0) TDPBSUD (1) TDPBSUD (2) TDPBSUD (3) TDPBSUD (4) TDPBSUD (5) : :);
    __asm__ volatile("tilerelease");
    return rounds * INSTRUCTIONS * MULTIPLY_ADDS;
}

#elif defined(__aarch64__)

/* OPCODE vD.4s, v30.16b, v31.16b for 16 destinations, those that a callee need not keep. */
#define NEON(opcode, d) ".inst " opcode " + " #d "\n\t"
#define NEON_4(o, a, b, c, d) NEON (o, a) NEON (o, b) NEON (o, c) NEON (o, d)
#define NEON_LOW(o) NEON_4 (o, 0, 1, 2, 3) NEON_4 (o, 4, 5, 6, 7)
#define NEON_HIGH(o) NEON_4 (o, 16, 17, 18, 19) NEON_4 (o, 20, 21, 22, 23)
#define CLOBBERS_LOW "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7"
#define CLOBBERS_HIGH "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23"
enum { NEON_INSTRUCTIONS = 16 };

static uint64_t run_sdot (uint64_t rounds)
{
    enum { MULTIPLY_ADDS = 16 };
    for (uint64_t i = 0; i < rounds; i++)
        __asm__ volatile(NEON_LOW ("0x4e9f97c0") NEON_HIGH ("0x4e9f97c0") : : : CLOBBERS_LOW, CLOBBERS_HIGH);
    return rounds * NEON_INSTRUCTIONS * MULTIPLY_ADDS;
}

static uint64_t run_smmla (uint64_t rounds)
{
    enum { MULTIPLY_ADDS = 32 };
    for (uint64_t i = 0; i < rounds; i++)
        __asm__ volatile(NEON_LOW ("0x4e9fa7c0") NEON_HIGH ("0x4e9fa7c0") : : : CLOBBERS_LOW, CLOBBERS_HIGH);
    return rounds * NEON_INSTRUCTIONS * MULTIPLY_ADDS;
}

#endif

/* Plain C, as the scalar kernels are; on registers, but kept from being worked out by the compiler. */
static uint64_t run_scalar (uint64_t rounds)
{
    enum { SUMS = 8 };
    int32_t sums[SUMS] = {0}, a = 3, b = 5;
    for (uint64_t i = 0; i < rounds; i++) {
        __asm__ volatile("" : "+r"(a), "+r"(b));
        for (int j = 0; j < SUMS; j++) {
            sums[j] = (int32_t) ((uint32_t) sums[j] + (uint32_t) (a * b));
            __asm__ volatile("" : "+r"(a), "+r"(sums[j]));
        }
    }
    return rounds * SUMS;
}

uint64_t wl_peak_run (const char *isa, uint64_t rounds)
{
#if defined(__x86_64__)
    if (strcmp (isa, "amx") == 0)
        return run_amx (rounds);
    if (strcmp (isa, "avx512vnni") == 0)
        return run_avx512vnni (rounds);
    if (strcmp (isa, "scalar") != 0)
        return run_avx2 (rounds);
#elif defined(__aarch64__)
    if (strcmp (isa, "scalar") != 0)
        return strstr (isa, "i8mm") ? run_smmla (rounds) : run_sdot (rounds);
#endif
    (void) isa;
    return run_scalar (rounds);
}

const char *wl_peak_instruction (const char *isa)
{
#if defined(__x86_64__)
    if (strcmp (isa, "amx") == 0)
        return "tdpbsud";
    if (strcmp (isa, "avx512vnni") == 0)
        return "vpdpbusd";
    if (strcmp (isa, "scalar") != 0)
        return "vpmaddubsw";
#elif defined(__aarch64__)
    if (strcmp (isa, "scalar") != 0)
        return strstr (isa, "i8mm") ? "smmla" : "sdot";
#endif
    (void) isa;
    return "imul";
}
