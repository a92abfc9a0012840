/* The tiles of AMX as functions, for processors that have none: kernels call them in the instructions' place. */

#include <stdint.h>
#include <string.h>

#define ROWS 16
#define ROW_BYTES 64
#define EXPORT __attribute__((visibility("default")))

typedef union {
    unsigned char bytes[ROW_BYTES];
    float sums[16];
    uint16_t halves[32];
} row;

static _Thread_local row tiles[8][ROWS];
static _Thread_local int configured;

static float widened(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

EXPORT void emulated_ldtilecfg(const unsigned char *configuration) {
    configured = configuration[0] == 1;
    for (int tile = 0; tile < 8; tile++)
        configured &= configuration[16 + 2 * tile] == ROW_BYTES && configuration[48 + tile] == ROWS;
    memset(tiles, 0, sizeof tiles);
}

EXPORT void emulated_tilerelease(void) {
    configured = 0;
    memset(tiles, 0x7F, sizeof tiles);
}

EXPORT void emulated_tilezero(uint8_t tile) {
    if (configured) memset(tiles[tile], 0, sizeof tiles[tile]);
}

EXPORT void emulated_tileloadd64(uint8_t tile, const unsigned char *memory, int64_t stride) {
    for (int i = 0; configured && i < ROWS; i++) memcpy(tiles[tile][i].bytes, memory + i * stride, ROW_BYTES);
}

EXPORT void emulated_tileloaddt164(uint8_t tile, const unsigned char *memory, int64_t stride) {
    emulated_tileloadd64(tile, memory, stride);
}

EXPORT void emulated_tilestored64(uint8_t tile, unsigned char *memory, int64_t stride) {
    for (int i = 0; configured && i < ROWS; i++) memcpy(memory + i * stride, tiles[tile][i].bytes, ROW_BYTES);
}

/* As Intel's manual has it: the first numbers of all pairs are summed, and the second ones, and then both added. */
EXPORT void emulated_tdpbf16ps(uint8_t sums, uint8_t left, uint8_t right) {
    for (int i = 0; configured && i < ROWS; i++) {
        float even[16] = {0}, odd[16] = {0};
        for (int k = 0; k < ROWS; k++) {
            float first = widened(tiles[left][i].halves[2 * k]), second = widened(tiles[left][i].halves[2 * k + 1]);
            for (int j = 0; j < 16; j++) {
                even[j] += first * widened(tiles[right][k].halves[2 * j]);
                odd[j] += second * widened(tiles[right][k].halves[2 * j + 1]);
            }
        }
        for (int j = 0; j < 16; j++) tiles[sums][i].sums[j] += even[j] + odd[j];
    }
}
