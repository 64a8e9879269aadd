/* AMX in plain C: see amx_emulated.h. */
#if defined(__x86_64__)

#include "amx_emulated.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <ucontext.h>
#endif

enum { TILES = 8, MAX_ROWS = 16, MAX_ROW_BYTES = 64 };

typedef struct tile {
    uint8_t bytes[MAX_ROWS][MAX_ROW_BYTES];
    size_t rows, row_bytes; /* 0: not configured */
} tile;

/* The registers of the test's one thread. */
static tile tiles[TILES];
static bool configured;

static void require (bool ok, const char *what)
{
    if (ok)
        return;
    fprintf (stderr, "kernels: AMX: %s\n", what);
    abort ();
}

static tile *tile_at (unsigned t)
{
    require (configured, "a tile is used outside of ldtilecfg and tilerelease");
    require (t < TILES && tiles[t].rows > 0, "a tile is used that has no shape");
    return &tiles[t];
}

void emulated_configure (const void *config)
{
    uint8_t c[64];
    memcpy (c, config, sizeof c);
    require (c[0] == 1 && c[1] == 0, "ldtilecfg: palette 1 from row 0 is all that is emulated");
    memset (tiles, 0, sizeof tiles);
    for (size_t i = 2; i < sizeof c; i++)
        require (!c[i] || (i >= 16 && i < 32) || (i >= 48 && i < 56), "ldtilecfg: a reserved byte is set");
    for (size_t t = 0; t < TILES; t++) {
        size_t row_bytes = (size_t) c[16 + 2 * t] | (size_t) c[17 + 2 * t] << 8, rows = c[48 + t];
        require (rows <= MAX_ROWS && row_bytes <= MAX_ROW_BYTES, "ldtilecfg: a tile is too large");
        require ((rows > 0) == (row_bytes > 0), "ldtilecfg: a tile has rows or bytes, but not both");
        tiles[t].rows = rows;
        tiles[t].row_bytes = row_bytes;
    }
    configured = true;
}

void emulated_release (void)
{
    configured = false;
}

bool emulated_is_released (void)
{
    return !configured;
}

void emulated_zero (unsigned t)
{
    tile *to = tile_at (t);
    memset (to->bytes, 0, sizeof to->bytes);
}

void emulated_load (unsigned t, const void *from, size_t stride)
{
    tile *to = tile_at (t);
    memset (to->bytes, 0, sizeof to->bytes);
    for (size_t r = 0; r < to->rows; r++)
        memcpy (to->bytes[r], (const uint8_t *) from + r * stride, to->row_bytes);
}

void emulated_store (unsigned t, void *to, size_t stride)
{
    const tile *from = tile_at (t);
    for (size_t r = 0; r < from->rows; r++)
        memcpy ((uint8_t *) to + r * stride, from->bytes[r], from->row_bytes);
}

void emulated_multiply (unsigned sum_tile, unsigned a_tile, unsigned b_tile, bool b_signed)
{
    tile *sum = tile_at (sum_tile);
    const tile *a = tile_at (a_tile), *b = tile_at (b_tile);
    require (sum != a && sum != b && a != b, "a multiplication uses a tile twice");
    require (sum->row_bytes % 4 == 0 && a->row_bytes % 4 == 0, "a multiplication's rows are no whole dwords");
    require (sum->rows == a->rows && sum->row_bytes == b->row_bytes && a->row_bytes / 4 == b->rows,
             "the shapes of a multiplication do not fit");
    for (size_t m = 0; m < sum->rows; m++)
        for (size_t n = 0; n < sum->row_bytes / 4; n++) {
            int32_t value, add = 0; /* |add| <= 64 * 128 * 255 */
            for (size_t k = 0; k < a->row_bytes; k++) {
                const uint8_t byte = b->bytes[k / 4][4 * n + k % 4];
                add += (int8_t) a->bytes[m][k] * (b_signed ? (int8_t) byte : byte);
            }
            memcpy (&value, &sum->bytes[m][4 * n], 4);
            value = (int32_t) ((uint32_t) value + (uint32_t) add);
            memcpy (&sum->bytes[m][4 * n], &value, 4);
        }
}

/* -- Instructions that the CPU refuses ----------------------------------------------------------------------------- */

#if defined(__linux__)

static const int general_registers[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                          REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* An instruction of three bytes of VEX prefix, an opcode, and operands. */
typedef struct instruction {
    unsigned prefix, opcode; /* prefix: 0 none, 1 66, 2 f3, 3 f2 */
    bool memory;
    unsigned reg, rm, vvvv; /* tiles; rm unless `memory` */
    uintptr_t base;
    size_t index; /* of memory operands; index times scale */
    size_t length;
} instruction;

static bool decode (instruction *in, const uint8_t *code, const greg_t *registers)
{
    *in = (instruction){.length = 5};
    if (code[0] != 0xc4 || (code[1] & 31) != 2 || code[2] & 0x84)
        return false;
    const unsigned x = code[1] & 0x40 ? 0 : 8, b = code[1] & 0x20 ? 0 : 8, mode = code[4] >> 6, rm = code[4] & 7;
    in->prefix = code[2] & 3;
    in->vvvv = ~code[2] >> 3 & 15;
    in->opcode = code[3];
    in->reg = (code[4] >> 3 & 7) | (code[1] & 0x80 ? 0 : 8);
    in->rm = rm | b;
    in->memory = mode != 3;
    if (!in->memory)
        return true;
    unsigned base = rm;
    if (rm == 4) {
        const uint8_t sib = code[in->length++];
        const unsigned index = (sib >> 3 & 7) | x;
        base = sib & 7;
        if (index != 4)
            in->index = (size_t) registers[general_registers[index]] << (sib >> 6);
    }
    if (mode == 0 && base == 5)
        return false; /* no base register: none of ours */
    int32_t displacement = 0;
    if (mode == 1)
        displacement = (int8_t) code[in->length++];
    else if (mode == 2) {
        memcpy (&displacement, code + in->length, 4);
        in->length += 4;
    }
    in->base = (uintptr_t) registers[general_registers[base | b]] + (uintptr_t) (intptr_t) displacement;
    return true;
}

static void *pointer_to (uintptr_t address)
{
    void *p;
    memcpy (&p, &address, sizeof p);
    return p;
}

static bool execute (const instruction *in)
{
    enum { STATE = 0x49, MOVES = 0x4b, PRODUCTS = 0x5e };
    if (in->opcode == STATE && in->memory && in->prefix == 0 && in->reg == 0)
        emulated_configure (pointer_to (in->base + in->index));
    else if (in->opcode == STATE && !in->memory && in->prefix == 0 && in->reg == 0 && in->rm == 0)
        emulated_release ();
    else if (in->opcode == STATE && !in->memory && in->prefix == 3 && in->rm == 0)
        emulated_zero (in->reg);
    else if (in->opcode == MOVES && in->memory && in->prefix == 3)
        emulated_load (in->reg, pointer_to (in->base), in->index);
    else if (in->opcode == MOVES && in->memory && in->prefix == 2)
        emulated_store (in->reg, pointer_to (in->base), in->index);
    else if (in->opcode == PRODUCTS && !in->memory && in->prefix >= 2) /* tdpbsud, tdpbssd */
        emulated_multiply (in->reg, in->rm, in->vvvv, in->prefix == 3);
    else
        return false;
    return true;
}

static void on_refused (int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *) context)->uc_mcontext.gregs;
    instruction in;
    (void) info;
    if (decode (&in, pointer_to ((uintptr_t) registers[REG_RIP]), registers) && execute (&in))
        registers[REG_RIP] += (greg_t) in.length;
    else
        signal (number, SIG_DFL); /* and the instruction fails again */
}

bool emulate_refused_instructions (void)
{
    struct sigaction action = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO};
    return sigaction (SIGILL, &action, NULL) == 0;
}

#else

bool emulate_refused_instructions (void)
{
    return false;
}

#endif
#endif
