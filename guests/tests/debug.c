// Self-hosted debug: breakpoints, watchpoints, software step (Arm ARM D2).
#include "test.h"

enum { MDSCR_SS = 1, MDSCR_KDE = 1 << 13, MDSCR_MDE = 1 << 15 };
enum { SPSR_SS = 1 << 21, SPSR_D = 1 << 9 };
enum { FSC_DEBUG = 0x22 };
#define WRITE(reg, value) __asm__ volatile("msr " #reg ", %0\n isb" : : "r"((uint64_t)(value)) : "memory")

static uint8_t el0_stack[4096] __attribute__((aligned(16)));
static volatile uint64_t hits;

// Counts, and switches off what was hit, so that the instruction executes next.
static void once(struct frame *f) {
    (void)f;
    hits++;
    WRITE(dbgbcr0_el1, 0);
    WRITE(dbgwcr1_el1, 0);
}

extern char here[], el0_here[];

static void breakpoint_here(uint64_t control) {
    hits = 0;
    WRITE(dbgbvr0_el1, here);
    WRITE(dbgbcr0_el1, control);
    uint64_t x = 1;
    __asm__ volatile("add %0, %0, #1\n .global here\nhere: add %0, %0, #2\n add %0, %0, #4" : "+r"(x));
    CHECK_EQ(x, 8);
    WRITE(dbgbcr0_el1, 0);
}

static uint64_t el0_add(uint64_t x) {
    __asm__ volatile("add %0, %0, #1\n .global el0_here\nel0_here: add %0, %0, #2" : "+r"(x));
    return x;
}

static void breakpoints(void) {
    enum { BOTH = 1 | 3 << 1 | 15 << 5 };
    on_debug = once;
    WRITE(mdscr_el1, MDSCR_KDE | MDSCR_MDE);
    breakpoint_here(BOTH);
    CHECK_EQ(hits, 0); // PSTATE.D is set
    __asm__ volatile("msr daifclr, #8");
    breakpoint_here(BOTH);
    CHECK_EQ(hits, 1);
    CHECK_EQ(caught.esr, (uint64_t)EC_BREAKPOINT << 26 | 1 << 25 | FSC_DEBUG);
    CHECK_EQ(caught.elr, (uint64_t)here);
    breakpoint_here(BOTH & ~(1 << 1)); // Of EL0 only
    CHECK_EQ(hits, 0);
    breakpoint_here(BOTH & ~1);
    CHECK_EQ(hits, 0);
    WRITE(mdscr_el1, MDSCR_MDE);
    breakpoint_here(BOTH);
    CHECK_EQ(hits, 0); // Not in the kernel
    WRITE(dbgbvr0_el1, el0_here);
    WRITE(dbgbcr0_el1, BOTH);
    CHECK_EQ(el0_enter(el0_add, 5, (uint64_t)el0_stack + sizeof el0_stack, 0), 8);
    CHECK_EQ(hits, 1);
    CHECK_EQ(caught.esr, (uint64_t)EC_BREAKPOINT_LOWER << 26 | 1 << 25 | FSC_DEBUG);
    CHECK_EQ(caught.elr, (uint64_t)el0_here);
    __asm__ volatile("msr daifset, #8");
}

static uint64_t words[4] __attribute__((aligned(32)));

static void watch(uint64_t address, uint64_t control) {
    hits = 0;
    WRITE(dbgwvr1_el1, address);
    WRITE(dbgwcr1_el1, control);
}

static void watchpoints(void) {
    enum { ON = 1 | 3 << 1, LOADS = 1 << 3, STORES = 2 << 3, ALL = 0xff << 5 };
    uint64_t at = (uint64_t)words, x;
    on_debug = once;
    WRITE(mdscr_el1, MDSCR_KDE | MDSCR_MDE);
    __asm__ volatile("msr daifclr, #8");
    watch(at + 8, ON | STORES | ALL);
    __asm__ volatile("ldr %0, [%1, #8]\n str %0, [%1]\n str %0, [%1, #16]" : "=&r"(x) : "r"(at) : "memory");
    CHECK_EQ(hits, 0);
    __asm__ volatile("stp %0, %0, [%1]" : : "r"(7ul), "r"(at) : "memory");
    CHECK_EQ(hits, 1);
    CHECK_EQ(EC(caught.esr), EC_WATCHPOINT);
    CHECK_EQ(FSC(caught.esr), FSC_DEBUG);
    CHECK_EQ(WNR(caught.esr), 1);
    CHECK(caught.far >= at && caught.far < at + 16);
    CHECK_EQ(words[1], 7);
    // Byte 5 only; before the access.
    words[1] = 0x1111;
    watch(at + 8, ON | STORES | LOADS | 1 << 5 << 5);
    __asm__ volatile("str wzr, [%0, #8]\n strb wzr, [%0, #14]" : : "r"(at) : "memory");
    CHECK_EQ(hits, 0);
    __asm__ volatile("mov %0, #5\n ldrb %w0, [%1, #13]" : "=&r"(x) : "r"(at) : "memory");
    CHECK_EQ(hits, 1);
    CHECK_EQ(WNR(caught.esr), 0);
    CHECK_EQ(caught.far, at + 13);
    // A vector, an atomic, an exclusive.
    watch(at, ON | LOADS | ALL);
    __asm__ volatile("msr cpacr_el1, %0\n isb\n ldr q0, [%1]" : : "r"(3ul << 20), "r"(at) : "v0", "memory");
    CHECK_EQ(hits, 1);
    watch(at, ON | STORES | ALL);
    __asm__ volatile(".arch armv8.1-a\n ldadd %0, %0, [%1]" : "+r"(x) : "r"(at) : "memory");
    CHECK_EQ(hits, 1);
    watch(at, ON | LOADS | ALL);
    __asm__ volatile("ldxr %0, [%1]\n clrex" : "=r"(x) : "r"(at) : "memory");
    CHECK_EQ(hits, 1);
    // 32 bytes by MASK.
    watch(at, ON | STORES | ALL | 5 << 24);
    __asm__ volatile("strb wzr, [%0, #31]" : : "r"(at) : "memory");
    CHECK_EQ(hits, 1);
    watch(at, 0);
    __asm__ volatile("msr daifset, #8");
}

static uint64_t path[16];
static volatile uint64_t steps, wanted;

// Notes where it is, and goes on with the next step.
static void stepped(struct frame *f) {
    if (steps < 16)
        path[steps] = f->elr;
    steps++;
    if (steps < wanted) {
        f->spsr |= SPSR_SS;
    } else {
        WRITE(mdscr_el1, 0);
        f->spsr |= SPSR_D;
    }
}

// Starts stepping behind the BRK.
static void start(struct frame *f) {
    f->elr += 4;
    f->spsr = (f->spsr | SPSR_SS) & ~(uint64_t)SPSR_D;
    WRITE(mdscr_el1, MDSCR_SS | MDSCR_KDE);
}

static void debug_or_start(struct frame *f) {
    if (EC(f->esr) == EC_STEP)
        stepped(f);
    else
        start(f);
}

extern char s0[], s1[], s2[], s3[], s4[], s5[];

static void software_step(void) {
    enum { BOTH = 1 | 3 << 1 | 15 << 5 };
    on_debug = debug_or_start;
    steps = 0;
    wanted = 6;
    caught.count = 0;
    // A breakpoint is the way into the handler, which returns stepping.
    WRITE(mdscr_el1, MDSCR_KDE | MDSCR_MDE);
    WRITE(dbgbvr0_el1, s0);
    WRITE(dbgbcr0_el1, BOTH);
    uint64_t x = 0;
    __asm__ volatile("msr daifclr, #8\n .global s0\ns0: nop\n .global s1\ns1: add %0, %0, #1\n b s2\n brk #1\n"
                     ".global s2\ns2: svc #3\n .global s3\ns3: add %0, %0, #2\n .global s4\ns4: nop\n .global s5\n"
                     "s5: add %0, %0, #4\n nop" : "+r"(x) : : "memory");
    WRITE(dbgbcr0_el1, 0);
    CHECK_EQ(x, 7);
    CHECK_EQ(steps, 6);
    CHECK_EQ(path[0], (uint64_t)s1 + 4);
    CHECK_EQ(path[1], (uint64_t)s2);
    CHECK_EQ(path[2], (uint64_t)s3); // Once the SVC has returned
    CHECK_EQ(path[3], (uint64_t)s4);
    CHECK_EQ(path[4], (uint64_t)s5);
    CHECK_EQ(path[5], (uint64_t)s5 + 4);
    CHECK_EQ(ISS(caught.esr), 1 << 24 | FSC_DEBUG); // ISV, no exclusive
    CHECK_EQ(caught.count, 1 + 6 + 1);
}

int main(void) {
    WRITE(oslar_el1, 0);
    breakpoints();
    watchpoints();
    software_step();
    return finish("debug");
}
