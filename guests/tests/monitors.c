// cpu: neoverse-n1 max
// smp: 2
// Exclusive monitors and atomics: what opens a monitor and what does not, with another CPU's stores in between, and that
// nothing is lost under contention, of any size (Arm ARM B2.17, C3.2.13). Code that another CPU runs changes under it.
#include "mmu.h"

static volatile uint64_t cell[16] __attribute__((aligned(64)));
static uint64_t go __attribute__((aligned(64))), done, mistakes;

static uint64_t load_acquire(uint64_t *p) {
    uint64_t v;
    __asm__ volatile("ldar %0, [%1]" : "=r"(v) : "r"(p) : "memory");
    return v;
}
static void store_release(uint64_t *p, uint64_t v) { __asm__ volatile("stlr %0, [%1]" : : "r"(v), "r"(p) : "memory"); }

// The other CPU does what it is told, once for each number.
static void (*volatile task)(void);
static void other_cpu(void) {
    mmu_on();
    for (uint64_t n = 1;; n++) {
        while (load_acquire(&go) < n) {
        }
        ISB();
        task();
        store_release(&done, n);
    }
}
static void there(void (*what)(void)) {
    task = what;
    store_release(&go, go + 1);
}
static void wait_there(void) {
    while (load_acquire(&done) != go) {
    }
}
static void store_there(void) { cell[0] = cell[0] + 1; }
static void store_beside(void) { cell[8] = cell[8] + 1; }
static void nothing(void) {}

// LDXR of cell 0, what is between, STXR: 0 if it stores.
#define EXCLUSIVE(between)                                                                                \
    ({                                                                                                    \
        uint64_t status_;                                                                                 \
        __asm__ volatile("ldxr x3, [%1]\n" between "\n add x3, x3, #16\n stxr %w0, x3, [%1]"               \
                         : "=&r"(status_) : "r"(cell) : "x0", "x1", "x2", "x3", "x4", "memory", "cc");    \
        status_;                                                                                          \
    })

static void local_monitor(void) {
    uint64_t value = cell[0];
    CHECK_EQ(EXCLUSIVE(""), 0);
    CHECK_EQ(cell[0], value + 16);
    // None is open, or has been used.
    uint64_t status;
    __asm__ volatile("clrex\n stxr %w0, xzr, [%1]" : "=&r"(status) : "r"(cell) : "memory");
    CHECK_EQ(status, 1);
    CHECK_EQ(cell[0], value + 16);
    CHECK_EQ(EXCLUSIVE("stxr w4, x3, [%1]"), 1);
    CHECK_EQ(EXCLUSIVE("clrex"), 1);
    // An exception return clears it.
    CHECK_EQ(EXCLUSIVE("svc #1"), 1);
    // A store to another place, loads, barriers and arithmetic do not.
    CHECK_EQ(EXCLUSIVE("dmb ish\n ldr x4, [%1, #64]\n mul x4, x4, x4"), 0);
    // It can be opened again. A store elsewhere is none to it.
    CHECK_EQ(EXCLUSIVE("stxr w4, x3, [%1]\n ldxr x3, [%1]"), 0);
    uint64_t other = (uint64_t)&cell[8];
    __asm__ volatile("ldxr x3, [%1]\n stxr %w0, x3, [%2]\n clrex" : "=&r"(status) : "r"(cell), "r"(other) : "x3", "memory");
    CHECK_EQ(status, 1);
    // Pairs, of both sizes, and single ones of each.
    __asm__ volatile("ldxp x3, x4, [%1]\n stxp %w0, x4, x3, [%1]" : "=&r"(status) : "r"(cell) : "x3", "x4", "memory");
    CHECK_EQ(status, 0);
    __asm__ volatile("ldaxp w3, w4, [%1]\n stlxp %w0, w3, w4, [%1]" : "=&r"(status) : "r"(cell) : "x3", "x4", "memory");
    CHECK_EQ(status, 0);
    cell[0] = 0x1122334455667788;
    __asm__ volatile("ldaxrb w3, [%1]\n mov w3, #0x1aa\n stlxrb %w0, w3, [%1]" : "=&r"(status) : "r"(cell) : "x3", "memory");
    CHECK_EQ(status, 0);
    CHECK_EQ(cell[0], 0x11223344556677aa);
    __asm__ volatile("ldxrh w3, [%1]\n mvn w3, w3\n stxrh %w0, w3, [%1]" : "=&r"(status) : "r"(cell) : "x3", "memory");
    CHECK_EQ(status, 0);
    CHECK_EQ(cell[0], 0x1122334455668855);
    // Of two load-exclusives the second one counts.
    __asm__ volatile("ldxr x3, [%1]\n str xzr, [%1]\n ldxr x3, [%1]\n stxr %w0, x3, [%1]"
                     : "=&r"(status) : "r"(cell) : "x3", "memory");
    CHECK_EQ(status, 0);
    CHECK_EQ(cell[0], 0);
}

// Another CPU's store between the two makes the second fail.
static void global_monitor(void) {
    for (int i = 0; i < 200; i++) {
        uint64_t value, status;
        __asm__ volatile("ldxr %0, [%1]" : "=r"(value) : "r"(cell) : "memory");
        there(store_there);
        wait_there();
        __asm__ volatile("stxr %w0, %1, [%2]" : "=&r"(status) : "r"(value + 1000), "r"(cell) : "memory");
        CHECK_EQ(status, 1);
        CHECK_EQ(cell[0], value + 1);
    }
    // Pairs look at all of their bytes.
    for (int i = 0; i < 50; i++) {
        uint64_t lo, hi, status;
        __asm__ volatile("ldxp %0, %1, [%2]" : "=&r"(lo), "=&r"(hi) : "r"(cell + 8) : "memory");
        there(store_beside);
        wait_there();
        __asm__ volatile("stxp %w0, %1, %2, [%3]" : "=&r"(status) : "r"(hi), "r"(hi), "r"(cell + 8) : "memory");
        CHECK_EQ(status, 1);
        CHECK_EQ(cell[8], lo + 1);
    }
}

enum { ROUNDS = 20000 };
static uint8_t bytes[8] __attribute__((aligned(8)));
static struct { uint64_t lo, hi; } pair __attribute__((aligned(16)));
static uint64_t bits, largest, exclusive_sum, signed_least;

// The two CPUs have neighbouring bytes of one word, and the same doublewords.
static void contend_as(uint64_t me) {
    for (uint64_t i = 0; i < ROUNDS; i++) {
        __asm__ volatile(".arch armv8.1-a\n staddb %w0, [%1]" : : "r"(1), "r"(bytes + me) : "memory");
        __asm__ volatile(".arch armv8.1-a\n staddh %w0, [%1]" : : "r"(1), "r"(bytes + 4) : "memory");
        __asm__ volatile(".arch armv8.1-a\n steor %0, [%1]" : : "r"(1ul << (me * 32 + i % 32)), "r"(&bits) : "memory");
        __asm__ volatile(".arch armv8.1-a\n stumax %0, [%1]" : : "r"(i * 2 + me), "r"(&largest) : "memory");
        __asm__ volatile(".arch armv8.1-a\n stsmin %0, [%1]" : : "r"(-(int64_t)i), "r"(&signed_least) : "memory");
        // Both halves of 16 bytes change together.
        register uint64_t a __asm__("x4") = pair.lo;
        register uint64_t b __asm__("x5") = pair.hi;
        uint64_t lo, hi;
        do {
            lo = a;
            hi = b;
            register uint64_t c __asm__("x6") = lo + 1;
            register uint64_t d __asm__("x7") = ~(lo + 1);
            __asm__ volatile(".arch armv8.1-a\n caspal x4, x5, x6, x7, [%2]" : "+r"(a), "+r"(b) : "r"(&pair), "r"(c), "r"(d) : "memory");
        } while (a != lo || b != hi);
        if (hi != ~lo)
            __asm__ volatile(".arch armv8.1-a\n stadd %0, [%1]" : : "r"(1ul), "r"(&mistakes) : "memory");
        __asm__ volatile("1: ldaxp x2, x3, [%0]\n add x2, x2, #1\n add x3, x3, #0\n stlxp w4, x2, x3, [%0]\n cbnz w4, 1b"
                         : : "r"(cell + 10) : "x2", "x3", "x4", "memory");
        __asm__ volatile("1: ldxrb w2, [%0]\n add w2, w2, #1\n stxrb w3, w2, [%0]\n cbnz w3, 1b"
                         : : "r"((uint8_t *)&exclusive_sum + me) : "x2", "x3", "memory");
    }
}
static void contend_there(void) { contend_as(1); }

static void contention(void) {
    pair.hi = ~0ul;
    cell[10] = cell[11] = 0;
    there(contend_there);
    contend_as(0);
    wait_there();
    CHECK_EQ(bytes[0], ROUNDS % 256);
    CHECK_EQ(bytes[1], ROUNDS % 256);
    CHECK_EQ(*(uint16_t *)(bytes + 4), 2 * ROUNDS % 65536);
    CHECK_EQ(bits, ~0ul); // Each bit 625 times
    CHECK_EQ(largest, 2 * (ROUNDS - 1) + 1);
    CHECK_EQ(signed_least, -(int64_t)(ROUNDS - 1));
    CHECK_EQ(pair.lo, 2 * ROUNDS);
    CHECK_EQ(pair.hi, ~(2ul * ROUNDS));
    CHECK_EQ(cell[10], 2 * ROUNDS);
    CHECK_EQ(exclusive_sum & 0xffff, ROUNDS % 256 * 0x101);
    CHECK_EQ(mistakes, 0);
}

// Code: written through another address, on a page that is mapped anew, and while another CPU waits for it.
static uint32_t code[2][1024] __attribute__((aligned(4096)));
#define ALIAS (PLAY + 0x3000)
static uint64_t number;
static void call_there(void) { number = ((uint64_t(*)(void))ALIAS)(); }
static void write_code(uint64_t at, uint32_t value) {
    volatile uint32_t *p = (volatile uint32_t *)at;
    p[0] = 0xd2800000 | value << 5; // MOVZ X0, #value
    p[1] = 0xd65f03c0;              // RET
}
static void publish(uint64_t at) { __asm__ volatile("dc cvau, %0\n dsb ish\n ic ivau, %0\n dsb ish\n isb" : : "r"(at) : "memory"); }

static void changing_code(void) {
    play3[3] = (uint64_t)code[0] | NORMAL | AP_RO | PAGE;
    published();
    for (uint32_t i = 0; i < 300; i++) {
        // Maintenance by one address serves all of the page's addresses.
        write_code((uint64_t)code[0], i);
        publish(i % 2 ? ALIAS : (uint64_t)code[0]);
        CHECK_EQ(((uint64_t(*)(void))ALIAS)(), i);
        CHECK_EQ(((uint64_t(*)(void))code[0])(), i);
        there(call_there);
        wait_there();
        CHECK_EQ(number, i);
    }
    for (uint32_t i = 0; i < 200; i++) {
        // Another page at the address: no maintenance of the cache, which goes by physical addresses.
        if (i < 2) {
            write_code((uint64_t)code[i % 2], 1000 + i % 2);
            publish((uint64_t)code[i % 2]);
        }
        play3[3] = 0;
        tlbi_page(ALIAS, 0);
        play3[3] = (uint64_t)code[i % 2] | NORMAL | AP_RO | PAGE;
        published();
        CHECK_EQ(((uint64_t(*)(void))ALIAS)(), 1000 + i % 2);
        there(call_there);
        wait_there();
        CHECK_EQ(number, 1000 + i % 2);
    }
    // By all addresses, on all CPUs.
    play3[3] = 0;
    tlbi_page(ALIAS, 0);
    play3[3] = (uint64_t)code[0] | NORMAL | AP_RO | PAGE;
    published();
    for (uint32_t i = 0; i < 100; i++) {
        write_code((uint64_t)code[0], i);
        __asm__ volatile("dc cvau, %0\n dsb ish\n ic ialluis\n dsb ish\n isb" : : "r"(code) : "memory");
        there(call_there);
        CHECK_EQ(((uint64_t(*)(void))code[0])(), i);
        wait_there();
        CHECK_EQ(number, i);
    }
}

int main(void) {
    mmu_tables();
    mmu_on();
    CHECK_EQ(cpu_start(1, other_cpu), 0);
    there(nothing);
    wait_there();
    local_monitor();
    global_monitor();
    contention();
    changing_code();
    return finish("monitors");
}
