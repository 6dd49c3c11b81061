/* Libraries that are no plugins, one for each way in which that can be: the flag says which. */
#include "snaphook_driver.h"

#include <stdlib.h>
#include <unistd.h>
#include <unwind.h>

static void open_store(snaphook_plugin_bytes request, snaphook_plugin_completion completion) {
  (void)request, (void)completion;
}

static void call(uint64_t handle, uint32_t method, snaphook_plugin_bytes request,
                 snaphook_plugin_completion completion) {
  (void)handle, (void)method, (void)request, (void)completion;
}

static char data[300];

/* `Plugin`: name `h`, version `1`, a driver `h` with secure storage. */
static const uint8_t description[] = "\x0a\x01h\x12\x01" "1\x1a\x05\x0a\x01h\x10\x01";
/* The same without drivers. */
static const uint8_t no_drivers[] = "\x0a\x01h\x12\x01" "1";
/* The same with two drivers of one name. */
static const uint8_t same_names[] =
    "\x0a\x01h\x12\x01" "1\x1a\x05\x0a\x01h\x10\x01\x1a\x05\x0a\x01h\x10\x01";
/* A driver with a kind of store that does not exist. */
static const uint8_t odd_store[] = "\x0a\x01h\x12\x01" "1\x1a\x05\x0a\x01h\x10\x00";

#define BYTES(bytes) {bytes, sizeof(bytes) - 1}

static snaphook_plugin plugin = {
    .abi_version = SNAPHOOK_PLUGIN_ABI_VERSION,
    .struct_size = sizeof(snaphook_plugin),
    .name = {"h", 1},
    .version = {"1", 1},
    .description = BYTES(description),
    .open = open_store,
    .call = call,
};

#ifdef CONSTRUCTOR
__attribute__((constructor)) static void construct(void) { CONSTRUCTOR; }
#endif

const snaphook_plugin *snaphook_plugin_v1(void) {
#ifdef ENTRY
  ENTRY;
#endif
  (void)data, (void)no_drivers, (void)same_names, (void)odd_store;
  return &plugin;
}
