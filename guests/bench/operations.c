// What single operations cost: each line `operation NAME PICOSECONDS` is the time of one of them. With one CPU all
// that need no other; with two those that depend on there being another.
#include "timing.h"

enum { SAMPLES = 9 };
// Descriptor bits (Arm ARM D8.3).
enum { TABLE = 3, PAGE = 3, BLOCK = 1 };
#define NORMAL (3ul << 8 | 1ul << 10)
#define DEVICE (1ul << 2 | 1ul << 10 | 3ul << 53)
#define NOT_GLOBAL (1ul << 11)
#define EL0 (1ul << 6)
#define USER_CODE (3ul << 6 | 1ul << 53)
// 39-bit addresses in both halves, write-back walks, 40-bit physical addresses, 16-bit ASIDs.
#define TCR (25ul | 1ul << 8 | 1ul << 10 | 3ul << 12 | 25ul << 16 | 1ul << 24 | 1ul << 26 | 3ul << 28 | 2ul << 30 | 2ul << 32 | 1ul << 36)
#define GIB (1ul << 30)
// Where EL1 has the program, as kernels do, and where EL0 has it; beyond its place in RAM.
#define KERNEL 0xffffff8000000000ul
#define USER GIB
#define MANY (4 * GIB)
#define FAULTING (5 * GIB)
#define SWITCHED (6 * GIB)
enum { MANY_TABLES = 64, MANY_PAGES = MANY_TABLES * 512 };

typedef uint64_t table[512] __attribute__((aligned(4096)));
static table root_a, root_b, root_high, many2, many3[MANY_TABLES], fault2, fault3, switch2[2], switch3[2];
static uint8_t pages[16][4096] __attribute__((aligned(4096)));
static uint8_t source[8192], target[8192] __attribute__((aligned(4096)));
static volatile bool ready, busy;
volatile uint64_t interrupts[2];

// A page fault at EL1 puts x17 into the table entry at x16; interrupts are counted by CPU; a system call's number
// tells whether EL0 wants to end.
__asm__(".arch armv8.2-a+crypto+crc\n"
        "        .text\n"
        "        .balign 2048\n"
        "operation_vectors:\n"
        "        b .\n"
        "        .org operation_vectors + 0x200\n"
        "        str x17, [x16]\n"
        "        dsb ishst\n"
        "        isb\n"
        "        eret\n"
        "        .org operation_vectors + 0x280\n"
        "        stp x0, x1, [sp, #-32]!\n"
        "        str x2, [sp, #16]\n"
        "        mrs x0, s3_0_c12_c12_0\n" // ICC_IAR1_EL1
        "        cmp x0, #27\n"
        "        b.ne 1f\n"
        "        msr cntv_ctl_el0, xzr\n"
        "1:      msr s3_0_c12_c12_1, x0\n" // ICC_EOIR1_EL1
        "        mrs x1, mpidr_el1\n"
        "        and x1, x1, #1\n"
        "        adrp x0, interrupts\n"
        "        add x0, x0, :lo12:interrupts\n"
        "        ldr x2, [x0, x1, lsl #3]\n"
        "        add x2, x2, #1\n"
        "        str x2, [x0, x1, lsl #3]\n"
        "        ldr x2, [sp, #16]\n"
        "        ldp x0, x1, [sp], #32\n"
        "        eret\n"
        "        .org operation_vectors + 0x400\n"
        "        mrs x18, esr_el1\n"
        "        tbnz x18, #0, 1f\n"
        "        eret\n"
        "1:      ldr x30, [sp], #16\n"
        "        ret\n"
        "        .org operation_vectors + 0x800\n"
        // x0 system calls by EL0; x1 where EL0 sees the program.
        "run_calls:\n"
        "        str x30, [sp, #-16]!\n"
        "        adr x2, 1f\n"
        "        add x2, x2, x1\n"
        "        msr elr_el1, x2\n"
        "        msr spsr_el1, xzr\n"
        "        eret\n"
        "1:      svc #0\n"
        "        subs x0, x0, #1\n"
        "        b.ne 1b\n"
        "        svc #1\n"
        "        .balign 64\n"
        "nothing: ret\n");
void run_calls(uint64_t n, uint64_t offset);

static uint64_t physical(const void *p) { return (uint64_t)p & ~KERNEL; }

// Turns the MMU on and goes on in `function`, in the upper half.
static _Noreturn void go_up(void (*function)(void)) {
    extern char operation_vectors[];
    WRITE_SYSREG(vbar_el1, (uint64_t)operation_vectors | KERNEL);
    WRITE_SYSREG(mair_el1, 0x00ff);
    WRITE_SYSREG(tcr_el1, TCR);
    WRITE_SYSREG(ttbr0_el1, (uint64_t)root_a | 1ul << 48);
    WRITE_SYSREG(ttbr1_el1, (uint64_t)root_high);
    ISB();
    __asm__ volatile("dsb ishst\n tlbi vmalle1\n dsb ish\n isb" : : : "memory");
    WRITE_SYSREG(sctlr_el1, (READ_SYSREG(sctlr_el1) & ~2ul) | 1 | 1 << 2 | 1 << 12 | 1 << 23);
    ISB();
    __asm__ volatile("mov x1, sp\n add x1, x1, %1\n mov sp, x1\n br %0"
                     : : "r"((uint64_t)function | KERNEL), "r"(KERNEL) : "x1", "memory");
    __builtin_unreachable();
}

static void tables(void) {
    for (int i = 0; i < MANY_TABLES; i++) {
        many2[i] = (uint64_t)many3[i] | TABLE;
        for (int j = 0; j < 512; j++)
            many3[i][j] = (uint64_t)pages[j & 15] | NORMAL | PAGE;
    }
    fault2[0] = (uint64_t)fault3 | TABLE;
    uint64_t *roots[2] = {root_a, root_b};
    for (int i = 0; i < 2; i++) {
        roots[i][0] = DEVICE | BLOCK;
        roots[i][1] = RAM | NORMAL | BLOCK;
        roots[i][2] = RAM | NORMAL | USER_CODE | BLOCK;
        roots[i][4] = (uint64_t)many2 | TABLE;
        roots[i][5] = (uint64_t)fault2 | TABLE;
        roots[i][6] = (uint64_t)switch2[i] | TABLE;
        switch2[i][0] = (uint64_t)switch3[i] | TABLE;
        switch3[i][0] = (uint64_t)pages[i] | NORMAL | NOT_GLOBAL | EL0 | PAGE;
    }
    root_high[1] = RAM | NORMAL | BLOCK;
    DSB();
}

// `repeats` times `body` in a loop of n rounds. x1 to x7 are 1, the first two are addresses of data.
#define LOOP(name, repeats, body)                                                                                  \
    static void name(uint64_t n) {                                                                                 \
        register uint64_t a __asm__("x1") = (uint64_t)source, b __asm__("x2") = (uint64_t)target;                  \
        __asm__ volatile("mov x3, #1\n mov x4, #1\n mov x5, #1\n"                                                  \
                         "1:\n .rept " #repeats "\n" body "\n .endr\n subs %0, %0, #1\n b.ne 1b"                   \
                         : "+r"(n), "+r"(a), "+r"(b)                                                               \
                         :                                                                                         \
                         : "x3", "x4", "x5", "x6", "x7", "x16", "x17", "x30", "cc", "memory");                      \
    }

LOOP(alu, 16, "add x3, x3, x4\n eor x5, x5, x3, lsl #3\n add x6, x5, #7\n sub x7, x6, x4")
LOOP(call, 16, "bl nothing")
LOOP(indirect, 16, "adr x6, nothing\n blr x6")
LOOP(ldar, 32, "ldar x3, [x1]")
LOOP(stlr, 32, "stlr x3, [x2]")
LOOP(stlr_ldar, 16, "stlr x3, [x2]\n ldar x4, [x1]")
LOOP(ldadd, 16, ".arch armv8.2-a\n ldaddal x3, x4, [x2]")
LOOP(exclusive, 16, "2: ldaxr x4, [x2]\n add x4, x4, #1\n stlxr w5, x4, [x2]\n cbnz w5, 2b")
LOOP(fadd, 16, "fadd d0, d0, d4\n fadd d1, d1, d4\n fadd d2, d2, d4\n fadd d3, d3, d4")
LOOP(fmadd, 16, "fmadd d0, d4, d5, d0\n fmadd d1, d4, d5, d1\n fmadd d2, d4, d5, d2\n fmadd d3, d4, d5, d3")
LOOP(fmla, 16, "fmla v0.4s, v4.4s, v5.4s\n fmla v1.4s, v4.4s, v5.4s\n fmla v2.4s, v4.4s, v5.4s\n fmla v3.4s, v4.4s, v5.4s")
LOOP(fcvtzs, 16, "fcvtzs x3, d4\n fcvtzs x4, d5")
LOOP(fcmp, 16, "fcmp d4, d5\n cset w3, gt")
LOOP(tbl, 16, "tbl v0.16b, {v4.16b}, v6.16b\n tbl v1.16b, {v4.16b, v5.16b}, v6.16b")
LOOP(aes, 16, ".arch armv8.2-a+crypto\n aese v0.16b, v4.16b\n aesmc v0.16b, v0.16b\n aese v1.16b, v4.16b\n aesmc v1.16b, v1.16b")
LOOP(sha256, 16, ".arch armv8.2-a+crypto\n mov v2.16b, v0.16b\n sha256h q0, q1, v4.4s\n sha256h2 q1, q2, v4.4s")
LOOP(crc32, 16, ".arch armv8.2-a+crc\n crc32x w3, w3, x4")
LOOP(copy64, 16, "ldp q0, q1, [x1]\n ldp q2, q3, [x1, #32]\n stp q0, q1, [x2]\n stp q2, q3, [x2, #32]")
LOOP(copy4096, 1,
     "mov x3, x1\n mov x4, x2\n mov x5, #64\n"
     "2: ldp q0, q1, [x3], #32\n ldp q2, q3, [x3], #32\n stp q0, q1, [x4], #32\n stp q2, q3, [x4], #32\n"
     "subs x5, x5, #1\n b.ne 2b")
LOOP(counter, 16, "mrs x3, cntvct_el0")
LOOP(daif, 16, "msr daifset, #2\n msr daifclr, #2")

// A jump by a table of 16 places, in an order that nobody foresees.
static void dispatch(uint64_t n) {
    __asm__ volatile("movz x3, #0x7f2d\n movk x3, #0x4c95, lsl #16\n movk x3, #0xf42d, lsl #32\n movk x3, #0x5851, lsl #48\n"
                     "1: madd x4, x4, x3, x3\n ubfx x5, x4, #33, #4\n adr x6, 2f\n add x6, x6, x5, lsl #3\n br x6\n"
                     "2: .rept 16\n add x7, x7, #1\n b 3f\n .endr\n"
                     "3: subs %0, %0, #1\n b.ne 1b"
                     : "+r"(n) : : "x3", "x4", "x5", "x6", "x7", "cc");
}

static void system_call(uint64_t n) {
    run_calls(n, USER - KERNEL);
    irq_unmask();
}

static void address_space(uint64_t n) {
    uint64_t a = physical(root_a) | 1ul << 48, b = physical(root_b) | 2ul << 48, va = SWITCHED;
    while (n--) {
        __asm__ volatile("msr ttbr0_el1, %1\n isb\n ldtr x3, [%2]\n msr ttbr0_el1, %0\n isb\n ldtr x3, [%2]"
                         : : "r"(a), "r"(b), "r"(va) : "x3", "memory");
    }
}

static void page_fault(uint64_t n) {
    uint64_t va = FAULTING, page = va >> 12;
    __asm__ volatile("mov x16, %1\n mov x17, %2\n"
                     "1: str xzr, [x16]\n dsb ishst\n tlbi vae1, %4\n dsb nsh\n isb\n ldr x3, [%3]\n subs %0, %0, #1\n b.ne 1b"
                     : "+r"(n)
                     : "r"(fault3), "r"(physical(pages) | NORMAL | PAGE), "r"(va), "r"(page)
                     : "x3", "x16", "x17", "cc", "memory");
}

static void tlb_invalidate(uint64_t n) {
    uint64_t va = MANY, page = va >> 12;
    __asm__ volatile("1: .rept 8\n tlbi vae1, %2\n dsb nsh\n isb\n ldr x3, [%1]\n .endr\n subs %0, %0, #1\n b.ne 1b"
                     : "+r"(n) : "r"(va), "r"(page) : "x3", "cc", "memory");
}

static void tlb_miss(uint64_t n) {
    uint64_t va = MANY, page = 0;
    while (n--) {
        page = (page + 12289) & (MANY_PAGES - 1);
        __asm__ volatile("ldr x3, [%0]" : : "r"(va + page * 4096) : "x3", "memory");
    }
}

// A timer that is due at once: arming, interrupt, its end.
static void timer(uint64_t n) {
    while (n--) {
        uint64_t before = interrupts[0];
        WRITE_SYSREG(cntv_cval_el0, 0);
        WRITE_SYSREG(cntv_ctl_el0, 1);
        ISB();
        while (interrupts[0] == before) {
        }
    }
}

// Sleeps until another interrupt has been taken; interrupts are masked around it.
static void sleep_until_interrupt(uint64_t me, uint64_t before) {
    while (interrupts[me] == before) {
        wfi();
        irq_unmask();
        ISB();
        irq_mask();
    }
}

static void send(uint64_t cpu) {
    ICC_WRITE(SGI1R, 1ul << 24 | 1ul << cpu);
    ISB();
}

// There and back, between CPUs that sleep.
static void ipi(uint64_t n) {
    irq_mask();
    while (n--) {
        uint64_t before = interrupts[0];
        send(1);
        sleep_until_interrupt(0, before);
    }
    irq_unmask();
}

// Between CPUs that compute.
static void ipi_busy(uint64_t n) {
    while (n--) {
        uint64_t before = interrupts[0];
        send(1);
        while (interrupts[0] == before) {
        }
    }
}

// The other CPU: answers each interrupt, out of its sleep or, if told so before, out of a loop.
static void answer(void) {
    gic_setup();
    gic_enable(1, 0x80);
    irq_mask();
    ready = true;
    uint64_t before = interrupts[1];
    while (!busy) {
        sleep_until_interrupt(1, before);
        before = interrupts[1];
        send(0);
    }
    irq_unmask();
    for (;;) {
        while (interrupts[1] == before) {
        }
        before = interrupts[1];
        send(0);
    }
}

static uint64_t sample(void (*body)(uint64_t), uint64_t n) {
    uint64_t start = now();
    body(n);
    return now() - start;
}

// The least of several samples: what others on the host do only ever adds.
static void measure(const char *name, void (*body)(uint64_t), uint64_t per_round) {
    uint64_t frequency = READ_SYSREG(cntfrq_el0), n = 8, least = ~0ul;
    while (sample(body, n) < frequency / 1000)
        n *= 2;
    for (int i = 0; i < SAMPLES; i++) {
        uint64_t t = sample(body, n);
        least = t < least ? t : least;
    }
    print("operation %s %d\n", name, least * (1000000000000 / frequency) / n / per_round);
}

// How late a CPU in WFI wakes up for its timer: the median.
static void wake_up(void) {
    enum { SLEEPS = 201 };
    static uint64_t late[SLEEPS];
    uint64_t frequency = READ_SYSREG(cntfrq_el0);
    irq_mask();
    sleep_late(late, SLEEPS, frequency / 2000);
    irq_unmask();
    print("operation timer-wake-up %d\n", late[SLEEPS / 2] * (1000000000000 / frequency));
}

static void floats(void) {
    // Numbers near 1 whose sums and products are not exact, as single and as double precision; indices for tables.
    __asm__ volatile("mov w3, #0x6666\n movk w3, #0x3f86, lsl #16\n dup v4.4s, w3\n"
                     "mov w3, #0x3333\n movk w3, #0x3f83, lsl #16\n dup v5.4s, w3\n movi v6.16b, #9\n"
                     "fmov d0, xzr\n fmov d1, xzr\n fmov d2, xzr\n fmov d3, xzr" : : : "x3");
}

// FPCR.FZ.
static void flush_to_zero(bool on) {
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)on << 24));
}

static void other(void) { go_up(answer); }

static bool two;

static void measure_all(void) {
    gic_setup();
    gic_enable(INTID_TIMER_VIRTUAL, 0x80);
    irq_unmask();
    floats();
    if (two) {
        gic_enable(1, 0x80);
        while (!ready) {
        }
        measure("2-ipi", ipi, 1);
        busy = true;
        // The answer to this one still comes out of the sleep.
        ipi(1);
        measure("2-ipi-busy", ipi_busy, 1);
        measure("2-ldadd", ldadd, 16);
        measure("2-exclusive", exclusive, 16);
        measure("2-stlr+ldar", stlr_ldar, 16);
        measure("2-tlbi", tlb_invalidate, 8);
        guest_exit(0);
    }
    measure("alu", alu, 64);
    measure("call", call, 16);
    measure("indirect-call", indirect, 16);
    measure("dispatch", dispatch, 1);
    measure("ldar", ldar, 32);
    measure("stlr", stlr, 32);
    measure("ldadd", ldadd, 16);
    measure("exclusive", exclusive, 16);
    measure("fadd", fadd, 64);
    measure("fmadd", fmadd, 64);
    floats();
    measure("fmla", fmla, 64);
    flush_to_zero(true);
    floats();
    measure("fadd-flush", fadd, 64);
    floats();
    measure("fmla-flush", fmla, 64);
    flush_to_zero(false);
    measure("fcvtzs", fcvtzs, 32);
    measure("fcmp", fcmp, 16);
    measure("tbl", tbl, 32);
    measure("aes", aes, 32);
    measure("sha256", sha256, 16);
    measure("crc32x", crc32, 16);
    measure("copy-64", copy64, 16);
    measure("copy-4096", copy4096, 1);
    measure("tlb-miss", tlb_miss, 1);
    measure("cntvct", counter, 16);
    measure("daif", daif, 16);
    measure("tlbi", tlb_invalidate, 8);
    measure("svc", system_call, 1);
    measure("address-space", address_space, 2);
    measure("page-fault", page_fault, 1);
    measure("timer", timer, 1);
    wake_up();
    guest_exit(0);
}

int main(void) {
    tables();
    two = cpu_start(1, other) == 0;
    go_up(measure_all);
}

// The vectors are others.
void guest_exception(struct frame *f, uint64_t vector) {
    (void)f;
    (void)vector;
    guest_exit(1);
}
