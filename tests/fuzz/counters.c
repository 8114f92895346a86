/* Tells libFuzzer which blocks of a compiled reader were reached. Part of each extension of the variant `fuzz`.
 *
 * gcc calls __sanitizer_cov_trace_pc in each block; libFuzzer wants counters, which clang alone would make. So the
 * address of a block picks one of ours. FUZZER is the path of the library that holds libFuzzer: the functions of these
 * names in libasan, which comes first, do nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

enum { COUNTERS = 8192 };
#define NOT_COUNTED __attribute__((no_sanitize_coverage, no_sanitize("address", "undefined"), visibility("hidden")))

static uint8_t counters[COUNTERS];
static struct { uintptr_t block, flags; } blocks[COUNTERS]; /* as many as there are counters, or libFuzzer objects */

NOT_COUNTED void __sanitizer_cov_trace_pc(void) {
    uintptr_t block = (uintptr_t)__builtin_return_address(0) - (uintptr_t)counters;
    counters[(block * 0x9E3779B97F4A7C15u >> 40) % COUNTERS]++;
}

__attribute__((constructor)) NOT_COUNTED void announce(void) {
    const char *path = getenv("FUZZER");
    void *fuzzer = path ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : NULL;
    if (!fuzzer)
        return;
    void (*take_counters)(uint8_t *, uint8_t *) =
        (void (*)(uint8_t *, uint8_t *))dlsym(fuzzer, "__sanitizer_cov_8bit_counters_init");
    void (*take_blocks)(const uintptr_t *, const uintptr_t *) =
        (void (*)(const uintptr_t *, const uintptr_t *))dlsym(fuzzer, "__sanitizer_cov_pcs_init");
    if (!take_counters || !take_blocks)
        return;
    for (int i = 0; i < COUNTERS; i++)
        blocks[i].block = (uintptr_t)&counters[i];
    take_counters(counters, counters + COUNTERS);
    take_blocks((const uintptr_t *)blocks, (const uintptr_t *)(blocks + COUNTERS));
}
