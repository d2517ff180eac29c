// Atomicity under contention: exclusives and atomics of every size, from all CPUs at once, keep counters exact, and
// leave their neighbours alone (Arm ARM B2.2.1, B2.9).
//
// Command line: runs=N (operations of each CPU on each counter).
#include "guest.h"

enum { CPUS = 4, LINE = 256 };
static uint64_t level1[512] __attribute__((aligned(4096)));
static uint64_t online, arrived, finished, ticket, cpus = 1, runs;
static uint8_t cells[LINE] __attribute__((aligned(4096)));
static uint64_t mistakes;

static void mmu_on(void) {
    WRITE_SYSREG(mair_el1, 0x00ff);
    WRITE_SYSREG(tcr_el1, 25ul | 1ul << 8 | 1ul << 10 | 3ul << 12 | 1ul << 23 | 2ul << 32);
    WRITE_SYSREG(ttbr0_el1, (uint64_t)level1);
    __asm__ volatile("isb\n dsb ishst\n tlbi vmalle1\n dsb ish\n isb" : : : "memory");
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) | 1 | 1 << 2 | 1 << 12);
    ISB();
}

void guest_exception(struct frame *f, uint64_t vector) {
    print("exception %d: ESR 0x%x ELR 0x%x FAR 0x%x\n", vector, f->esr, f->elr, f->far);
    guest_exit(99);
}

static void add(uint64_t *p, uint64_t v) { __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
static uint64_t load(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }

// Each adds `v` to what is at `p` and returns what was there.
typedef uint64_t operation(void *p, uint64_t v);

#define EXCLUSIVE(name, ldx, stx, w)                                                                          \
    static uint64_t name(void *p, uint64_t v) {                                                               \
        uint64_t old, new, failed;                                                                            \
        __asm__ volatile("1: " ldx " %" w "0, [%3]\n add %1, %0, %4\n " stx " %w2, %" w "1, [%3]\n cbnz %w2, 1b" \
                         : "=&r"(old), "=&r"(new), "=&r"(failed) : "r"(p), "r"(v) : "memory");               \
        return old;                                                                                           \
    }
#define ATOMIC(name, ld, w)                                                                                   \
    static uint64_t name(void *p, uint64_t v) {                                                               \
        uint64_t old;                                                                                         \
        __asm__ volatile(ld " %" w "1, %" w "0, [%2]" : "=&r"(old) : "r"(v), "r"(p) : "memory");              \
        return old;                                                                                           \
    }
#define COMPARE(name, ldr, cas, w)                                                                            \
    static uint64_t name(void *p, uint64_t v) {                                                               \
        uint64_t old, seen, new;                                                                              \
        __asm__ volatile("1: " ldr " %" w "0, [%3]\n 2: mov %1, %0\n add %2, %0, %4\n " cas " %" w "1, %" w "2, [%3]\n" \
                         " cmp %1, %0\n mov %0, %1\n b.ne 2b"                                                  \
                         : "=&r"(old), "=&r"(seen), "=&r"(new) : "r"(p), "r"(v) : "memory", "cc");            \
        return old;                                                                                           \
    }
EXCLUSIVE(exclusive1, "ldxrb", "stxrb", "w")
EXCLUSIVE(exclusive2, "ldxrh", "stxrh", "w")
EXCLUSIVE(exclusive4, "ldxr", "stxr", "w")
EXCLUSIVE(exclusive8, "ldxr", "stxr", "")
EXCLUSIVE(ordered1, "ldaxrb", "stlxrb", "w")
EXCLUSIVE(ordered2, "ldaxrh", "stlxrh", "w")
EXCLUSIVE(ordered4, "ldaxr", "stlxr", "w")
EXCLUSIVE(ordered8, "ldaxr", "stlxr", "")
ATOMIC(add1, "ldaddb", "w")
ATOMIC(add2, "ldaddah", "w")
ATOMIC(add4, "ldaddl", "w")
ATOMIC(add8, "ldaddal", "")
COMPARE(compare1, "ldrb", "casb", "w")
COMPARE(compare2, "ldrh", "casah", "w")
COMPARE(compare4, "ldr", "casl", "w")
COMPARE(compare8, "ldr", "casal", "")

// Pairs: the second half counts three times as fast.
static uint64_t exclusive_pair4(void *p, uint64_t v) {
    uint64_t old, other, failed;
    __asm__ volatile("1: ldxp %w0, %w1, [%3]\n add %w1, %w1, %w4, lsl #1\n add %w1, %w1, %w4\n add %w0, %w0, %w4\n"
                     " stxp %w2, %w0, %w1, [%3]\n cbnz %w2, 1b"
                     : "=&r"(old), "=&r"(other), "=&r"(failed) : "r"(p), "r"(v) : "memory");
    return 0;
}
static uint64_t exclusive_pair8(void *p, uint64_t v) {
    uint64_t old, other, failed;
    __asm__ volatile("1: ldaxp %0, %1, [%3]\n add %1, %1, %4, lsl #1\n add %1, %1, %4\n add %0, %0, %4\n"
                     " stlxp %w2, %0, %1, [%3]\n cbnz %w2, 1b"
                     : "=&r"(old), "=&r"(other), "=&r"(failed) : "r"(p), "r"(v) : "memory");
    return 0;
}
static uint64_t compare_pair4(void *p, uint64_t v) {
    register uint64_t at __asm__("x6") = (uint64_t)p, by __asm__("x7") = v;
    __asm__ volatile("ldp w0, w1, [%0]\n 1: mov w4, w0\n mov w5, w1\n add w2, w0, %w1\n add w3, w1, %w1\n"
                     " add w3, w3, %w1, lsl #1\n casp w0, w1, w2, w3, [%0]\n cmp w0, w4\n ccmp w1, w5, #0, eq\n b.ne 1b"
                     : : "r"(at), "r"(by) : "memory", "cc", "x0", "x1", "x2", "x3", "x4", "x5");
    return 0;
}
static uint64_t compare_pair8(void *p, uint64_t v) {
    register uint64_t at __asm__("x6") = (uint64_t)p, by __asm__("x7") = v;
    __asm__ volatile("ldp x0, x1, [%0]\n 1: mov x4, x0\n mov x5, x1\n add x2, x0, %1\n add x3, x1, %1\n"
                     " add x3, x3, %1, lsl #1\n caspal x0, x1, x2, x3, [%0]\n cmp x0, x4\n ccmp x1, x5, #0, eq\n b.ne 1b"
                     : : "r"(at), "r"(by) : "memory", "cc", "x0", "x1", "x2", "x3", "x4", "x5");
    return 0;
}

static const struct counter {
    const char *name;
    operation *operation;
    uint32_t bytes;
    bool pair;
} counters[] = {
    {"LDXRB", exclusive1, 1, false},    {"LDXRH", exclusive2, 2, false},    {"LDXR W", exclusive4, 4, false},
    {"LDXR X", exclusive8, 8, false},   {"LDAXRB", ordered1, 1, false},     {"LDAXRH", ordered2, 2, false},
    {"LDAXR W", ordered4, 4, false},    {"LDAXR X", ordered8, 8, false},    {"LDADDB", add1, 1, false},
    {"LDADDAH", add2, 2, false},        {"LDADDL W", add4, 4, false},       {"LDADDAL X", add8, 8, false},
    {"CASB", compare1, 1, false},       {"CASAH", compare2, 2, false},      {"CASL W", compare4, 4, false},
    {"CASAL X", compare8, 8, false},    {"LDXP W", exclusive_pair4, 4, true}, {"LDAXP X", exclusive_pair8, 8, true},
    {"CASP W", compare_pair4, 4, true}, {"CASPAL X", compare_pair8, 8, true},
};
enum { COUNTERS = sizeof counters / sizeof *counters };

// All CPUs add to the same cell; each has a byte of its own next to it, which it writes plainly.
static void count(uint64_t number, uint64_t cpu) {
    const struct counter *c = &counters[number];
    volatile uint8_t *own = &cells[64 - 1 - cpu];
    for (uint64_t i = 0; i < runs; i++) {
        c->operation(cells + 64, 1);
        uint8_t now = (uint8_t)(*own + 1);
        *own = now;
    }
    if (*own != (uint8_t)runs)
        add(&mistakes, 1);
}

// Each CPU sets and clears bits of its own, and takes words from each other.
static void toggle(uint64_t cpu) {
    uint64_t bit = 0x0101010101010101ul << cpu, old;
    for (uint64_t i = 0; i < runs; i++) {
        __asm__ volatile("ldset %1, %0, [%2]" : "=&r"(old) : "r"(bit), "r"(cells + 96) : "memory");
        mistakes |= (old & bit) != 0;
        __asm__ volatile("ldclrl %1, %0, [%2]" : "=&r"(old) : "r"(bit), "r"(cells + 96) : "memory");
        mistakes |= (old & bit) != bit;
        __asm__ volatile("ldeorb %w1, %w0, [%2]" : "=&r"(old) : "r"(1ul << cpu), "r"(cells + 104) : "memory");
        mistakes |= (old >> cpu & 1) != (i & 1);
        // What never falls: the maximum of all; and what is passed on is never lost.
        uint64_t mine = i << 2 | cpu, after;
        __asm__ volatile("ldumax %1, %0, [%2]" : "=&r"(old) : "r"(mine), "r"(cells + 112) : "memory");
        __asm__ volatile("ldr %0, [%1]" : "=r"(after) : "r"(cells + 112) : "memory");
        mistakes |= after < old || after < mine;
        static uint64_t held[CPUS];
        __asm__ volatile("swpal %1, %0, [%2]" : "=&r"(old) : "r"(held[cpu] + 1), "r"(cells + 120) : "memory");
        held[cpu] = old;
        if (i == runs - 1)
            add((uint64_t *)(cells + 128), old);
    }
}

static void work(uint64_t number, uint64_t cpu) {
    add(&arrived, 1);
    for (int i = 0; i < 100000 && load(&arrived) < cpus; i++) {
    }
    if (number < COUNTERS)
        count(number, cpu);
    else
        toggle(cpu);
    add(&finished, 1);
    __asm__ volatile("dsb ish\n sev" : : : "memory");
}

static void secondary(void) {
    mmu_on();
    uint64_t cpu = READ_SYSREG(mpidr_el1) & 0xff;
    add(&online, 1);
    for (uint64_t seen = 0;;) {
        while (load(&ticket) == seen)
            __asm__ volatile("wfe");
        seen = load(&ticket);
        work(seen - 1, cpu);
    }
}

static uint64_t argument(void) {
    static char line[256];
    uint64_t block[2] = {(uint64_t)line, sizeof line}, v = 0;
    if (semihost(0x15, block))
        return 10000;
    for (const char *c = line; *c; c++)
        v = *c >= '0' && *c <= '9' ? v * 10 + (uint64_t)(*c - '0') : *c == '=' ? 0 : v;
    return v ? v : 10000;
}

static void run(uint64_t number) {
    for (int i = 0; i < LINE; i += 8)
        *(volatile uint64_t *)(cells + i) = 0;
    finished = arrived = 0;
    __atomic_store_n(&ticket, number + 1, __ATOMIC_SEQ_CST);
    __asm__ volatile("dsb ish\n sev" : : : "memory");
    work(number, 0);
    while (load(&finished) < cpus)
        __asm__ volatile("wfe");
}

static uint64_t cell(uint32_t bytes, uint32_t offset) {
    uint64_t v = *(volatile uint64_t *)(cells + 64 + offset);
    return bytes == 8 ? v : v & ((1ul << 8 * bytes) - 1);
}

int main(void) {
    runs = argument();
    level1[0] = 1 | 1 << 10 | 3 << 8 | 1 << 2;
    level1[1] = 0x40000000ul | 1 | 1 << 10 | 3 << 8;
    DSB();
    mmu_on();
    while (cpus < CPUS && cpu_start((uint32_t)cpus, secondary) == 0)
        cpus++;
    while (load(&online) < cpus - 1) {
    }
    uint64_t bad = 0;
    for (uint64_t n = 0; n < COUNTERS; n++) {
        const struct counter *c = &counters[n];
        run(n);
        uint64_t mask = c->bytes == 8 ? ~0ul : (1ul << 8 * c->bytes) - 1;
        uint64_t want = cpus * runs & mask, got = cell(c->bytes, 0);
        uint64_t want2 = c->pair ? 3 * cpus * runs & mask : 0, got2 = c->pair ? cell(c->bytes, c->bytes) : 0;
        // Nothing may have come to what follows.
        uint32_t end = c->bytes << (c->pair ? 1 : 0);
        uint64_t behind = *(volatile uint8_t *)(cells + 64 + end);
        bool wrong = got != want || got2 != want2 || behind || mistakes;
        if (wrong)
            print("%s: %x and %x, wanted %x and %x; behind it %x, neighbours wrong: %d\n", c->name, got, got2, want,
                  want2, behind, mistakes);
        bad += wrong;
        mistakes = 0;
    }
    run(COUNTERS);
    // Every CPU put in one more than it had taken out.
    uint64_t left = *(volatile uint64_t *)(cells + 128) + *(volatile uint64_t *)(cells + 120);
    uint64_t eor = *(volatile uint8_t *)(cells + 104), want = runs & 1 ? (1ul << cpus) - 1 : 0;
    if (mistakes || left != cpus * runs || *(volatile uint64_t *)(cells + 96) || eor != want) {
        print("bits and words: %d mistakes, %d passed on of %d, bits %x and %x\n", mistakes, left, cpus * runs,
              *(volatile uint64_t *)(cells + 96), eor);
        bad++;
    }
    print("atomics: %d counters, %d operations each, on %d CPUs, %d wrong\n", (uint64_t)COUNTERS + 1, cpus * runs, cpus, bad);
    guest_exit(bad != 0);
}
