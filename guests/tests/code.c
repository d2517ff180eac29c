// Code that changes itself: after DC CVAU, DSB, IC IVAU, DSB, ISB the new instructions run, also in the page
// that is running, in both halves of a page crossing, and through a call that has run many times.
#include "test.h"

static uint32_t buffer[3 * 1024] __attribute__((aligned(4096)));

static void publish(void *at) {
    __asm__ volatile("dc cvau, %0\n dsb ish\n ic ivau, %0\n dsb ish\n isb" : : "r"(at) : "memory");
}
static uint32_t movz(uint32_t reg, uint32_t value) { return 0xd2800000 | value << 5 | reg; }
enum { RET = 0xd65f03c0, NOP = 0xd503201f };
typedef uint64_t function(void);

static void write_function(uint32_t *at, uint32_t value) {
    at[0] = movz(0, value);
    at[1] = RET;
    publish(at);
    publish(at + 1);
}

// Changes the instruction behind itself, which is in its own block.
__attribute__((noinline, aligned(64))) static uint64_t change_next(uint32_t instruction) {
    uint64_t result;
    __asm__ volatile("adr x1, 1f\n str %w1, [x1]\n dc cvau, x1\n dsb ish\n ic ivau, x1\n dsb ish\n isb\n"
                     "1: movz x0, #0\n mov %0, x0"
                     : "=r"(result)
                     : "r"(instruction)
                     : "x0", "x1", "memory");
    return result;
}

int main(void) {
    for (uint32_t i = 0; i < 2000; i++) {
        write_function(buffer, i & 0xffff);
        uint64_t got = ((function *)buffer)();
        if (got != (i & 0xffff)) {
            CHECK_EQ(got, i & 0xffff);
            break;
        }
    }
    // The second of a block's instructions, at both sides of a page boundary.
    uint32_t *edge = &buffer[1023];
    for (uint32_t i = 0; i < 200; i++) {
        edge[0] = movz(0, i);
        edge[1] = 0x91000000 | (i + 1) << 10; // ADD X0, X0, #(i + 1)
        edge[2] = RET;
        for (int j = 0; j < 3; j++)
            publish(edge + j);
        CHECK_EQ(((function *)edge)(), 2 * i + 1);
        edge[1] = NOP;
        publish(edge + 1);
        CHECK_EQ(((function *)edge)(), i);
        edge[0] = movz(0, 7);
        publish(edge);
        CHECK_EQ(((function *)edge)(), 7);
    }
    for (uint32_t i = 0; i < 200; i++)
        CHECK_EQ(change_next(movz(0, i)), i);
    // A hot loop whose callee changes after it was linked.
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        if (i % 5000 == 0)
            write_function(buffer, 1 + i / 5000);
        sum += ((function *)buffer)();
    }
    CHECK_EQ(sum, 5000 * (1 + 2 + 3 + 4));
    // IC IALLU drops everything.
    for (uint32_t i = 0; i < 100; i++) {
        buffer[0] = movz(0, i);
        buffer[1] = RET;
        __asm__ volatile("dc cvau, %0\n dsb ish\n ic iallu\n dsb ish\n isb" : : "r"(buffer) : "memory");
        CHECK_EQ(((function *)buffer)(), i);
    }
    return finish("code");
}
