// exit: 7
// Semihosting: writing, the command line, errors, and a status for the host.
#include "test.h"

int main(void) {
    const char text[] = "said by SYS_WRITE0\n";
    semihost(0x04, text);
    for (const char *c = "said by SYS_WRITEC\n"; *c; c++)
        semihost(0x03, c);
    char line[128] = {0};
    uint64_t block[2] = {(uint64_t)line, sizeof line};
    CHECK_EQ(semihost(0x15, block), 0); // SYS_GET_CMDLINE
    CHECK(block[1] < sizeof line);
    CHECK_EQ(line[block[1]], 0);
    // The host's program may put its own name first.
    const char *tail = "word=1 two";
    uint64_t length = 10, same = 0;
    while (same < length && block[1] >= length && line[block[1] - length + same] == tail[same])
        same++;
    CHECK_EQ(same, length);
    block[1] = 3; // Too small for it
    block[0] = (uint64_t)line;
    CHECK_EQ(semihost(0x15, block), ~0ul);
    print("semihosting: %s\n", failures ? "FAILED" : "ok");
    guest_exit(failures ? 1 : 7);
}
