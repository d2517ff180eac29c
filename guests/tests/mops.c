// cpu: max
// Memory copy and memory set (FEAT_MOPS): results, overlaps, faults in the middle, mixed options.
#include "mmu.h"

__asm__(".arch armv8.8-a+mops");

enum { EC_MOPS = 0x27 };

static uint8_t area[8][4096] __attribute__((aligned(4096)));
static uint8_t *const bytes = (uint8_t *)PLAY;

#define MOVE(op, d, s, n)                                                                    \
    __asm__ volatile(op "p [%0]!, [%1]!, %2!\n" op "m [%0]!, [%1]!, %2!\n" op "e [%0]!, [%1]!, %2!" \
                     : "+r"(d), "+r"(s), "+r"(n) : : "cc", "memory")
#define FILL(op, d, n, v)                                                                    \
    __asm__ volatile(op "p" " [%0]!, %1!, %2\n" op "m" " [%0]!, %1!, %2\n" op "e" " [%0]!, %1!, %2" \
                     : "+r"(d), "+r"(n) : "r"(v) : "cc", "memory")

static uint8_t pattern(uint64_t i) { return (uint8_t)(i * 7 + (i >> 8)); }

static void fresh(void) {
    for (uint64_t i = 0; i < 16384; i++)
        bytes[i] = pattern(i);
}

static void copies(void) {
    static const uint64_t places[][3] = {
        {0, 8192, 4096}, {100, 8300, 1}, {100, 8300, 0}, {1, 8195, 5000}, {4090, 9000, 20},
        {1000, 1100, 3000}, {1100, 1000, 3000}, {2000, 2001, 6000}, {2001, 2000, 6000}, {4095, 4096, 4097}, {4096, 4095, 4097},
        {3000, 3000, 500},
    };
    for (unsigned k = 0; k < sizeof places / sizeof *places; k++) {
        uint64_t to = places[k][0], from = places[k][1], size = places[k][2];
        uint64_t d = PLAY + to, s = PLAY + from, n = size, bad = 0;
        fresh();
        MOVE("cpy", d, s, n);
        CHECK_EQ(n, 0);
        for (uint64_t i = 0; i < 16384; i++)
            bad += bytes[i] != pattern(i - to < size ? i - to + from : i);
        CHECK_EQ(bad, 0);
        if (from > to || from + size <= to) {
            fresh();
            d = PLAY + to, s = PLAY + from, n = size, bad = 0;
            MOVE("cpyf", d, s, n);
            CHECK_EQ(d, PLAY + to + size);
            CHECK_EQ(s, PLAY + from + size);
            for (uint64_t i = 0; i < 16384; i++)
                bad += bytes[i] != pattern(i - to < size ? i - to + from : i);
            CHECK_EQ(bad, 0);
        }
    }
}

static void sets(void) {
    for (uint64_t size = 0; size < 9000; size = size * 3 + 1) {
        uint64_t d = PLAY + 4000, n = size, bad = 0;
        fresh();
        FILL("set", d, n, 0x1234ul);
        CHECK_EQ(n, 0);
        CHECK_EQ(d, PLAY + 4000 + size);
        for (uint64_t i = 0; i < 16384; i++)
            bad += bytes[i] != (i - 4000 < size ? 0x34 : pattern(i));
        CHECK_EQ(bad, 0);
    }
}

// A page is missing: what is before it is done, the fault is there, and the instruction goes on after it.
static uint64_t missing;
static void back_again(struct frame *f) {
    play3[missing] = (uint64_t)area[missing] | NORMAL | PAGE;
    published();
    caught.far = f->far;
}

static void faults(void) {
    for (int backward = 0; backward < 2; backward++) {
        uint64_t d, s, n = 8192 - 100;
        fresh();
        missing = backward ? 1 : 2;
        play3[missing] = 0;
        tlbi_page(PLAY + missing * 4096, 0);
        d = PLAY + (backward ? 2000 : 1000), s = PLAY + (backward ? 1000 : 2000);
        uint64_t to = d - PLAY, from = s - PLAY, before = caught.count, bad = 0;
        uint64_t after;
        // The handler lets the main instruction be executed again.
        __asm__ volatile("adr %3, 1f\n str %3, [%4]\n cpyp [%0]!, [%1]!, %2!\n1: cpym [%0]!, [%1]!, %2!\n cpye [%0]!, [%1]!, %2!"
                         : "+r"(d), "+r"(s), "+r"(n), "=&r"(after) : "r"(&resume) : "cc", "memory");
        resume = 0;
        CHECK_EQ(caught.count, before + 1);
        CHECK_EQ(EC(caught.esr), EC_DABORT);
        CHECK_EQ(FSC(caught.esr), FSC_TRANSLATION | 3);
        CHECK_EQ(caught.far & ~4095ul, PLAY + missing * 4096);
        CHECK_EQ(n, 0);
        for (uint64_t i = 0; i < 16384; i++)
            bad += bytes[i] != pattern(i - to < 8092 ? i - to + from : i);
        CHECK_EQ(bad, 0);
    }
}

static void options(void) {
    uint64_t flags, d = PLAY, s = PLAY + 8192, n = 100;
    __asm__ volatile("cpyp [%1]!, [%2]!, %3!\n mrs %0, nzcv\n cpym [%1]!, [%2]!, %3!\n cpye [%1]!, [%2]!, %3!"
                     : "=&r"(flags), "+r"(d), "+r"(s), "+r"(n) : : "cc", "memory");
    // Option A has C clear, option B has it set: the other one in the middle of a sequence is refused.
    uint64_t wrong = flags ^ 1ul << 29, option_a = (flags >> 29 & 1) ? 0 : 1ul << 16;
    register uint64_t x0 __asm__("x0") = PLAY;
    register uint64_t x1 __asm__("x1") = PLAY + 8192;
    register uint64_t x2 __asm__("x2") = -64ul;
    uint64_t esr = SYNDROME(__asm__ volatile("msr nzcv, %3\n cpym [%0]!, [%1]!, %2!"
                                             : "+r"(x0), "+r"(x1), "+r"(x2) : "r"(wrong) : "cc", "memory"));
    CHECK_EQ(esr, (uint64_t)EC_MOPS << 26 | 1u << 25 | 1 << 17 | option_a | 0 << 10 | 1 << 5 | 2);
    esr = SYNDROME(__asm__ volatile("msr nzcv, %3\n cpyfewtrn [%0]!, [%1]!, %2!"
                                    : "+r"(x0), "+r"(x1), "+r"(x2) : "r"(wrong) : "cc", "memory"));
    CHECK_EQ(esr, (uint64_t)EC_MOPS << 26 | 1u << 25 | 9 << 19 | 1 << 18 | 1 << 17 | option_a | 1 << 5 | 2);
    esr = SYNDROME(__asm__ volatile("msr nzcv, %3\n setm [%0]!, %2!, %1"
                                    : "+r"(x0), "+r"(x1), "+r"(x2) : "r"(wrong) : "cc", "memory"));
    CHECK_EQ(esr, (uint64_t)EC_MOPS << 26 | 1u << 25 | 1 << 24 | 1 << 17 | option_a | 1 << 5 | 2);
}

static uint8_t el0_stack[4096] __attribute__((aligned(16)));
static uint64_t el0_set(uint64_t at) {
    uint64_t d = at, n = 16;
    FILL("set", d, n, 0ul);
    return d - at;
}

static void control(void) {
    uint64_t stack = (uint64_t)el0_stack + sizeof el0_stack + USER_DATA, at = (uint64_t)el0_stack + USER_DATA;
    uint64_t sctlr = READ_SYSREG(sctlr_el1);
    WRITE_SYSREG(sctlr_el1, sctlr & ~(1ul << 33));
    ISB();
    uint64_t before = caught.count;
    el0_enter(el0_set, at, stack, USER_CODE);
    CHECK_EQ(caught.count, before + 3);
    CHECK_EQ(EC(caught.esr), EC_UNKNOWN);
    WRITE_SYSREG(sctlr_el1, sctlr | 1ul << 33);
    ISB();
    CHECK_EQ(SYNDROME(el0_enter(el0_set, at, stack, USER_CODE)), ~0ul);
    // Unprivileged forms at EL1 have the permissions of EL0.
    uint64_t d = PLAY, n = 16, t;
    before = caught.count;
    __asm__ volatile("adr %2, 1f\n str %2, [%3]\n setpt [%0]!, %1!, xzr\n setmt [%0]!, %1!, xzr\n setet [%0]!, %1!, xzr\n1:"
                     : "+r"(d), "+r"(n), "=&r"(t) : "r"(&resume) : "cc", "memory");
    resume = 0;
    CHECK_EQ(caught.count, before + 1);
    CHECK_EQ(FSC(caught.esr), FSC_PERMISSION | 3);
    CHECK_EQ(WNR(caught.esr), 1);
    CHECK_EQ(caught.far, PLAY);
}

int main(void) {
    mmu_tables();
    for (int i = 0; i < 8; i++)
        play3[i] = (uint64_t)area[i] | NORMAL | PAGE;
    mmu_on();
    copies();
    sets();
    on_entry = back_again;
    faults();
    on_entry = 0;
    options();
    control();
    return finish("mops");
}
